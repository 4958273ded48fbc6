/**
 * gRPC peers: conns by grpc-js' channels or straight on `node:http2`, and channels over a pool for generated clients.
 *
 * @example
 * ```ts
 * import { credentials } from "@grpc/grpc-js";
 * import { Pool } from "rpc-conn-pool";
 * import { dialGrpc, pooledChannel } from "rpc-conn-pool/grpc";
 * import { GreeterClient } from "./gen/greeter.js"; // generated for grpc-js, by any generator
 *
 * const [address, insecure] = ["localhost:50051", credentials.createInsecure()];
 * const pool = new Pool({ dial: dialGrpc(insecure), maxKeyConns: 10 });
 * const client = new GreeterClient(address, insecure, { channelOverride: pooledChannel(pool, address) });
 * client.sayHello({ name: "Ada" }, (_error, reply) => console.log(reply.message)); // hello, Ada
 * ```
 *
 * @module
 */
export { statusOfPoolError } from "../net/rpc-status.ts";
export type { CallHost } from "./call.ts";
export type { GrpcConn } from "./conn.ts";
export { grpcBackoff } from "./connectivity.ts";
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
  grpcPeers,
  pooledChannels,
} from "./peers.ts";
export { type ChannelConn, type PooledChannelOptions, pooledChannel } from "./pooled-channel.ts";
export { GrpcError } from "./status.ts";
