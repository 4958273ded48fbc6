// What protobuf-ts makes of greeter.proto, in short: `protoc --ts_out . --ts_opt client_none,generate_dependencies`.
import { MessageType, ScalarType } from "@protobuf-ts/runtime";
import { ServiceType } from "@protobuf-ts/runtime-rpc";

export interface HelloRequest {
  name: string;
}
export const HelloRequest: MessageType<HelloRequest> = new MessageType("demo.HelloRequest", [
  { no: 1, name: "name", kind: "scalar", T: ScalarType.STRING },
]);

export interface HelloReply {
  message: string;
}
export const HelloReply: MessageType<HelloReply> = new MessageType("demo.HelloReply", [
  { no: 1, name: "message", kind: "scalar", T: ScalarType.STRING },
]);

/** @generated ServiceType for protobuf service demo.Greeter */
export const Greeter: ServiceType = new ServiceType("demo.Greeter", [
  { name: "SayHello", options: {}, I: HelloRequest, O: HelloReply },
]);
