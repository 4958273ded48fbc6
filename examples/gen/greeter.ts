// What ts-proto makes of greeter.proto, in short, with `outputServices=grpc-js`: for the examples and
// the programs of the documents.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type ChannelCredentials,
  type ClientOptions,
  type ClientUnaryCall,
  type handleUnaryCall,
  makeGenericClientConstructor,
  type ServiceError,
} from "@grpc/grpc-js";
import { HelloReplySchema, HelloRequestSchema } from "./greeter_pb.ts";

export interface HelloRequest {
  name: string;
}

export interface HelloReply {
  message: string;
}

export const GreeterService = {
  sayHello: {
    path: "/demo.Greeter/SayHello",
    requestStream: false,
    responseStream: false,
    requestSerialize: (value: HelloRequest): Buffer =>
      Buffer.from(toBinary(HelloRequestSchema, create(HelloRequestSchema, value))),
    requestDeserialize: (value: Buffer): HelloRequest => fromBinary(HelloRequestSchema, value),
    responseSerialize: (value: HelloReply): Buffer =>
      Buffer.from(toBinary(HelloReplySchema, create(HelloReplySchema, value))),
    responseDeserialize: (value: Buffer): HelloReply => fromBinary(HelloReplySchema, value),
  },
} as const;

export interface GreeterServer {
  sayHello: handleUnaryCall<HelloRequest, HelloReply>;
}

export interface GreeterClient {
  sayHello(
    request: HelloRequest,
    callback: (error: ServiceError | null, response: HelloReply) => void,
  ): ClientUnaryCall;
  close(): void;
}

export const GreeterClient = makeGenericClientConstructor(GreeterService, "demo.Greeter") as unknown as new (
  address: string,
  credentials: ChannelCredentials,
  options?: Partial<ClientOptions>,
) => GreeterClient;
