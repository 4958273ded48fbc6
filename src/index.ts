/**
 * A client-side cache of connections, keyed by peer.
 *
 * @example
 * ```ts
 * import { once } from "node:events";
 * import { dialSocket, Pool } from "rpc-conn-pool";
 *
 * await using pool = new Pool({ dial: dialSocket(), maxKeyConns: 4, waitTimeoutMs: 2_000 });
 * const [answer] = await pool.use("localhost:6379", async ({ socket }) => {
 *   socket.write("PING\r\n");
 *   return await once(socket, "data");
 * });
 * console.log(String(answer).trim()); // +PONG
 * ```
 *
 * @module
 */
export type * from "./contract.ts";
export * from "./errors.ts";
export type * from "./explanation.ts";
export { type DialSocketOptions, dialSocket, type SocketTlsOptions } from "./net/dial.ts";
export { type SocketConn, socketConn } from "./net/socket.ts";
export type * from "./options.ts";
export type { Named, PoolEventName, PoolEvents } from "./pool/events.ts";
export { Pool } from "./pool/pool.ts";
export type { PoolStats } from "./pool/stats.ts";
export type { Clock } from "./runtime/clock.ts";
