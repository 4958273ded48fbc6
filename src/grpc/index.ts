export type { GrpcConn } from "./conn.ts";
export { dialGrpc, type GrpcDialOptions } from "./dial.ts";
export {
  type ConnectionScaling,
  connectionScaling,
  type GrpcPeer,
  type GrpcPeers,
  grpcPeers,
  pooledChannels,
} from "./peers.ts";
export { type PooledChannelOptions, pooledChannel } from "./pooled-channel.ts";
export { GrpcError } from "./status.ts";
