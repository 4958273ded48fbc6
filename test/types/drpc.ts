/** DRPC without grpc-js: nothing of it may be needed to compile this. */
import { Pool, type Rpc } from "rpc-conn-pool";
import { type DrpcConn, DrpcError, dialDrpc } from "rpc-conn-pool/drpc";

declare const piece: Rpc<{ id: number }, { size: bigint }>;
declare const maybeSignal: AbortSignal | undefined;

const pool = new Pool();
const node = pool.get("node:7777", dialDrpc());
const { size } = await node.invoke(piece, { id: 1 }, { signal: maybeSignal });
export const bytes: bigint = size;
// @ts-expect-error a wrong request is refused
await node.invoke(piece, { id: "1" });

export const own = new Pool<string, DrpcConn>({ dial: dialDrpc() });
await own.use("unix:/run/node.sock", (conn) => conn.invoke(piece, { id: 1 }));

export const isDrpcError = (error: unknown): boolean => error instanceof DrpcError;
