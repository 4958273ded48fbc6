// What protoc-gen-es makes of greeter.proto, for the examples and the programs of the documents.
import type { Message } from "@bufbuild/protobuf";
import type { GenFile, GenMessage, GenService } from "@bufbuild/protobuf/codegenv2";
import { fileDesc, messageDesc, serviceDesc } from "@bufbuild/protobuf/codegenv2";

const file: GenFile = fileDesc(
  "Cg1ncmVldGVyLnByb3RvEgRkZW1vIiIKDEhlbGxvUmVxdWVzdBISCgRuYW1lGAEgASgJUgRuYW1lIiYKCkhlbGxvUmVwbHkSGAoHbWVzc2FnZRgBIAEo" +
    "CVIHbWVzc2FnZTI7CgdHcmVldGVyEjAKCFNheUhlbGxvEhIuZGVtby5IZWxsb1JlcXVlc3QaEC5kZW1vLkhlbGxvUmVwbHliBnByb3RvMw==",
);

export type HelloRequest = Message<"demo.HelloRequest"> & { name: string };
export const HelloRequestSchema: GenMessage<HelloRequest> = messageDesc(file, 0);

export type HelloReply = Message<"demo.HelloReply"> & { message: string };
export const HelloReplySchema: GenMessage<HelloReply> = messageDesc(file, 1);

export const Greeter: GenService<{
  sayHello: { methodKind: "unary"; input: typeof HelloRequestSchema; output: typeof HelloReplySchema };
}> = serviceDesc(file, 0);
