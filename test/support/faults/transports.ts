import { createFileRegistry, type DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  credentials,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import { dialHttp2, type Http2Conn, pooledSession } from "../../../src/connect/index.ts";
import type { CallOptions, Conn, Dial } from "../../../src/contract.ts";
import { DrpcError, DrpcServer, dialDrpc } from "../../../src/drpc/index.ts";
import { isPoolError } from "../../../src/errors.ts";
import { dialGrpc, dialGrpcHttp2, GrpcError } from "../../../src/grpc/index.ts";
import type { Limits } from "../../../src/options.ts";
import { Pool } from "../../../src/pool/pool.ts";
import { echoDescriptors, ProtobufEcho } from "../echo-descriptor.ts";
import { echoService } from "../echo-service.ts";
import { peer } from "../peer.ts";

export const transportNames = ["gRPC", "gRPC over node:http2", "Connect", "DRPC"] as const;

export type TransportName = (typeof transportNames)[number];

/** A server that echoes texts and remembers how often each has reached it. */
export interface FaultPeer {
  readonly port: number;
  readonly seen: Map<string, number>;
  /** Answers come so many ms late; a function is asked for each. */
  delayMs: () => number;
  close(): Promise<void>;
}

export type EchoOptions = Pick<CallOptions, "timeoutMs" | "signal" | "waitForReady">;

/** Calls by one transport, over a pool of its own. */
export interface FaultClient {
  readonly pool: Pick<Pool, "stats" | "keys" | "clear" | "close">;
  /** The key of the pool for a peer at `address`. */
  keyOf(address: string): string;
  /** Sends a text and resolves with what comes back. `waitForReady` is for transports that have it. */
  echo(address: string, text: string, options: EchoOptions): Promise<string>;
}

export interface Transport {
  readonly serve: () => Promise<FaultPeer>;
  readonly client: (options?: Partial<Limits>) => FaultClient;
}

function ledger(): Pick<FaultPeer, "seen" | "delayMs"> & { take(text: string): Promise<void> } {
  const seen = new Map<string, number>();
  return {
    seen,
    delayMs: () => 0,
    async take(text) {
      seen.set(text, (seen.get(text) ?? 0) + 1);
      const ms = this.delayMs();
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
    },
  };
}

async function serveGrpc(service = ProtobufEcho.service): Promise<FaultPeer> {
  const server = new Server();
  const book = ledger();
  server.addService(service, {
    unary({ request: { text } }: ServerUnaryCall<{ text: string }, unknown>, answer: sendUnaryData<unknown>) {
      void book.take(text).then(() => answer(null, { text }));
    },
    collect: () => {},
    repeat: () => {},
    chat: () => {},
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
  return Object.assign(book, { port, close: async () => server.forceShutdown() });
}

async function serveDrpc(): Promise<FaultPeer> {
  const server = new DrpcServer();
  const book = ledger();
  server.add(
    { echo: peer.echo },
    {
      async echo(request) {
        await book.take(request.toString());
        return request;
      },
    },
  );
  const key = await server.listen({ host: "127.0.0.1" });
  return Object.assign(book, { port: Number(key.split(":")[1]), close: () => server.close({ graceMs: 0 }) });
}

function overHandles(
  dial: Dial<string, Conn>,
  echo: (conn: Conn, text: string, options: CallOptions) => Promise<string>,
) {
  return (options?: Partial<Limits>): FaultClient => {
    const pool = new Pool<string>({ dial, ...options });
    return {
      pool,
      keyOf: (address) => address,
      echo: (address, text, options) => echo(pool.get(address), text, options),
    };
  };
}

const grpcClient = (dial: Dial<string, Conn>) =>
  overHandles(dial, async (conn, text, options) => (await conn.invoke(echoService.unary, { text }, options)).text);

interface EchoClient {
  unary(ask: { text: string }, options: EchoOptions): Promise<{ text: string }>;
}

function connectClient(options?: Partial<Limits>): FaultClient {
  const pool = new Pool<string, Http2Conn>({ dial: dialHttp2(), ...options });
  const service: DescService | undefined = createFileRegistry(echoDescriptors).getService("test.Echo");
  if (service === undefined) throw new Error("the descriptors have the service");
  const clients = new Map<string, EchoClient>();
  const make = (baseUrl: string): EchoClient =>
    Object(createClient(service, createGrpcTransport({ baseUrl, sessionManager: pooledSession(pool, baseUrl) })));
  return {
    pool,
    keyOf: (address) => `http://${address}`,
    async echo(address, text, options) {
      const client = clients.get(address) ?? make(`http://${address}`);
      clients.set(address, client);
      return (await client.unary({ text }, options)).text;
    },
  };
}

const insecure = credentials.createInsecure();

export const transports: Readonly<Record<TransportName, Transport>> = {
  gRPC: { serve: () => serveGrpc(echoService), client: grpcClient(dialGrpc(insecure)) },
  "gRPC over node:http2": { serve: () => serveGrpc(echoService), client: grpcClient(dialGrpcHttp2(insecure)) },
  Connect: { serve: () => serveGrpc(), client: connectClient },
  DRPC: {
    serve: serveDrpc,
    client: overHandles(dialDrpc(), async (conn, text, options) =>
      (await conn.invoke(peer.echo, Buffer.from(text), options)).toString(),
    ),
  },
};

/** What a call failed with, in one word. A failure that no caller could tell the cause of is none of these: it throws. */
export function wordOf(error: unknown): string {
  if (error instanceof ConnectError) return Code[error.code] ?? String(error.code);
  if (error instanceof GrpcError) return status[error.code];
  if (error instanceof DrpcError) return error.name;
  if (isPoolError(error)) return error.code.replace("ERR_POOL_", "");
  throw error;
}
