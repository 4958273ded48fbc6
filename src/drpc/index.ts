export { DrpcConn, type DrpcConnOptions } from "./conn.ts";
export { type DialDrpcOptions, type DrpcTlsOptions, dialDrpc } from "./dial.ts";
export {
  DrpcBusyError,
  DrpcCode,
  DrpcError,
  DrpcProtocolError,
  DrpcTimeoutError,
  decodeError,
  encodeError,
} from "./error.ts";
export { encodePackets, type FrameHeader, Kind, MAX_HEADER_BYTES, type Packet, readFrameHeader } from "./frame.ts";
export { DRPC_HEADER, type DrpcLimits } from "./limits.ts";
export { decodeMetadata, encodeMetadata } from "./metadata.ts";
export { PacketReader, type ReceivedPacket } from "./packet.ts";
export { type DrpcListenOptions, DrpcServer, type DrpcServerOptions } from "./server.ts";
export type {
  DrpcContext,
  DrpcHandler,
  DrpcHandlers,
  DrpcMethod,
  DrpcRequest,
  DrpcResponse,
  DrpcService,
} from "./service.ts";
export type { Uint64 } from "./uint64.ts";
export { type Cursor, readVarint, varintBytes, writeVarint } from "./varint.ts";
