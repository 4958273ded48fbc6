export { statusOfPoolError } from "../net/rpc-status.ts";
export type { CallHost } from "./call.ts";
export type { GrpcConn } from "./conn.ts";
export { dialGrpc, type GrpcDialOptions } from "./dial.ts";
export type { GrpcHttp2Conn } from "./http2/conn.ts";
export { dialGrpcHttp2 } from "./http2/dial.ts";
export {
  type ConnectionScaling,
  connectionScaling,
  type GrpcDialer,
  type GrpcPeer,
  type GrpcPeers,
  type GrpcPeersOptions,
  grpcBackoff,
  grpcPeers,
  pooledChannels,
} from "./peers.ts";
export { type ChannelConn, type PooledChannelOptions, pooledChannel } from "./pooled-channel.ts";
export { GrpcError } from "./status.ts";
