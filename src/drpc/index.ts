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
