// What protobuf-ts makes of chat.proto, in short: `protoc --ts_out . --ts_opt client_none,generate_dependencies`.
import { MessageType, ScalarType } from "@protobuf-ts/runtime";
import { ServiceType } from "@protobuf-ts/runtime-rpc";

export interface Line {
  text: string;
}
export const Line: MessageType<Line> = new MessageType("demo.Line", [
  { no: 1, name: "text", kind: "scalar", T: ScalarType.STRING },
]);

/** @generated ServiceType for protobuf service demo.Chat */
export const Chat: ServiceType = new ServiceType("demo.Chat", [
  { name: "Say", options: {}, I: Line, O: Line },
  { name: "Collect", clientStreaming: true, options: {}, I: Line, O: Line },
  { name: "Repeat", serverStreaming: true, options: {}, I: Line, O: Line },
  { name: "Talk", serverStreaming: true, clientStreaming: true, options: {}, I: Line, O: Line },
]);
