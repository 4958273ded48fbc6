export type { GrpcConn } from "./conn.ts";
export { dialGrpc, type GrpcDialOptions } from "./dial.ts";
export { GrpcError } from "./status.ts";
