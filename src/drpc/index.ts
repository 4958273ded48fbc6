/**
 * DRPC, as Go's `storj.io/drpc` speaks it: conns for a pool, a server, and the codec.
 *
 * @example
 * ```ts
 * import { Pool } from "rpc-conn-pool";
 * import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
 * import { GreeterService } from "./gen/greeter.js"; // the service definitions that grpc-js has, too
 *
 * await using server = new DrpcServer().add(GreeterService, { sayHello: ({ name }) => ({ message: `hello, ${name}` }) });
 * const address = await server.listen({ host: "127.0.0.1" });
 * await using pool = new Pool({ dial: dialDrpc() });
 * const { message } = await pool.get(address).invoke(GreeterService.sayHello, { name: "Ada" });
 * console.log(message); // hello, Ada
 * ```
 *
 * @module
 */
export { DrpcConn, type DrpcConnOptions } from "./client.ts";
export { type DialDrpcOptions, type DrpcTlsOptions, dialDrpc } from "./dial.ts";
export { DrpcBusyError, DrpcCode, DrpcError, DrpcProtocolError, DrpcTimeoutError } from "./errors.ts";
export { DRPC_HEADER, type DrpcLimits } from "./limits.ts";
export { type DrpcListenOptions, DrpcServer, type DrpcServerOptions } from "./server.ts";
export type {
  DrpcContext,
  DrpcHandler,
  DrpcHandlers,
  DrpcMethod,
  DrpcRequest,
  DrpcResponse,
  DrpcService,
} from "./server-conn.ts";
export {
  type Cursor,
  decodeError,
  decodeMetadata,
  encodeError,
  encodeMetadata,
  encodePackets,
  type FrameHeader,
  Kind,
  MAX_HEADER_BYTES,
  type Packet,
  PacketReader,
  type ReceivedPacket,
  readFrameHeader,
  readVarint,
  type Uint64,
  varintBytes,
  writeVarint,
} from "./wire.ts";
