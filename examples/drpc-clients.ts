// One DRPC service, called with what each of three generators makes of its .proto file: the pool needs a path and two functions.

import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, type DescMessage, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { IMessageType } from "@protobuf-ts/runtime";
import type { ServiceInfo } from "@protobuf-ts/runtime-rpc";
import { Pool, type Rpc } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { GreeterClientImpl, GreeterService } from "./gen/greeter.ts";
import * as es from "./gen/greeter_pb.ts";
import * as ts from "./gen/greeter_ts.ts";

const server = new DrpcServer().add(GreeterService, { sayHello: ({ name }) => ({ message: `hello, ${name}` }) });
const address = await server.listen({ host: "127.0.0.1" });
const pool = new Pool<string>({ dial: dialDrpc() });
const conn = pool.get(address);

// ts-proto, --ts_proto_opt=outputServices=grpc-js: its definitions fit as they are.
console.log((await conn.invoke(GreeterService.sayHello, { name: "ts-proto" })).message);

// ts-proto, --ts_proto_opt=outputServices=default: its clients take an object with `request`.
const bytes = { requestSerialize: (data: Uint8Array) => data, responseDeserialize: (data: Uint8Array) => data };
const client = new GreeterClientImpl({
  request: (service, method, data) => conn.invoke({ path: `/${service}/${method}`, ...bytes }, data),
});
console.log((await client.sayHello({ name: "ts-proto's client" })).message);

// protobuf-es, protoc-gen-es with target=ts,import_extension=ts
function esRpc<I extends DescMessage, O extends DescMessage>({
  parent,
  name,
  input,
  output,
}: DescMethod & { input: I; output: O }): Rpc<MessageInitShape<I>, MessageShape<O>> {
  return {
    path: `/${parent.typeName}/${name}`,
    requestSerialize: (message) => toBinary(input, create(input, message)),
    responseDeserialize: (bytes) => fromBinary(output, bytes),
  };
}
console.log((await conn.invoke(esRpc(es.Greeter.method.sayHello), { name: "protobuf-es" })).message);

// protobuf-ts, --ts_opt=client_none: the types of the messages, which its services do not carry, stand beside the name
const tsRpc = <I extends object, O extends object>(
  service: ServiceInfo,
  name: string,
  input: IMessageType<I>,
  output: IMessageType<O>,
): Rpc<I, O> => ({
  path: `/${service.typeName}/${name}`,
  requestSerialize: (message) => input.toBinary(message),
  responseDeserialize: (bytes) => output.fromBinary(bytes),
});
const sayHello = tsRpc(ts.Greeter, "SayHello", ts.HelloRequest, ts.HelloReply);
console.log((await conn.invoke(sayHello, { name: "protobuf-ts" })).message);

await Promise.all([pool.close(), server.close()]);

// hello, ts-proto
// hello, ts-proto's client
// hello, protobuf-es
// hello, protobuf-ts
