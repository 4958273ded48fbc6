export type { Clock } from "./clock.ts";
export { type DialSocketOptions, dialSocket, type SocketTlsOptions } from "./connect.ts";
export type * from "./contract.ts";
export * from "./errors.ts";
export type { Named, PoolEventName, PoolEvents } from "./events.ts";
export type * from "./options.ts";
export { Pool } from "./pool.ts";
export { type SocketConn, socketConn } from "./socket.ts";
export type { PoolStats } from "./stats.ts";
