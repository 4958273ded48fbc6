export type * from "./contract.ts";
export * from "./errors.ts";
export { type DialSocketOptions, dialSocket, type SocketTlsOptions } from "./net/dial.ts";
export { type SocketConn, socketConn } from "./net/socket.ts";
export type * from "./options.ts";
export type { Named, PoolEventName, PoolEvents } from "./pool/events.ts";
export { Pool } from "./pool/pool.ts";
export type { PoolStats } from "./pool/stats.ts";
export type { Clock } from "./runtime/clock.ts";
