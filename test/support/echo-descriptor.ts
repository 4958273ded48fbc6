import { create, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  type FileDescriptorSet,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { loadPackageDefinition, type ServiceClientConstructor } from "@grpc/grpc-js";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";

const { STRING, INT32 } = FieldDescriptorProto_Type;
const label = FieldDescriptorProto_Label.OPTIONAL;
const text = { name: "text", number: 1, type: STRING, label, jsonName: "text" };
const count = { name: "count", number: 2, type: INT32, label, jsonName: "count" };
const rpc = { inputType: ".test.Ask", outputType: ".test.Answer" };

/** The echo service, as a protobuf compiler hands it to its plugins. */
export const echoDescriptor: FileDescriptorProto = create(FileDescriptorProtoSchema, {
  name: "echo.proto",
  package: "test",
  syntax: "proto3",
  messageType: [
    { name: "Ask", field: [text, count] },
    { name: "Answer", field: [text] },
  ],
  service: [
    {
      name: "Echo",
      method: [
        { name: "Unary", ...rpc },
        { name: "Collect", ...rpc, clientStreaming: true },
        { name: "Repeat", ...rpc, serverStreaming: true },
        { name: "Chat", ...rpc, clientStreaming: true, serverStreaming: true },
      ],
    },
  ],
});

export const echoDescriptors: FileDescriptorSet = create(FileDescriptorSetSchema, { file: [echoDescriptor] });

const descriptors = Buffer.from(toBinary(FileDescriptorSetSchema, echoDescriptors));

/** What `@grpc/proto-loader` makes of it: the client, and its service. */
export const ProtobufEcho: ServiceClientConstructor = Object(
  loadPackageDefinition(loadFileDescriptorSetFromBuffer(descriptors))["test"],
).Echo;
