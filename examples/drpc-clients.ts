// One DRPC service, called with what each of three generators makes of its .proto file: the pool needs a path and two functions.

import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, type DescMessage, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { IMessageType } from "@protobuf-ts/runtime";
import type { ServiceInfo } from "@protobuf-ts/runtime-rpc";
import { Pool, type Rpc } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { rpcOver } from "./adapters/ts-proto.ts";
import { ChatClientImpl, ChatService } from "./gen/chat.ts";
import * as es from "./gen/chat_pb.ts";
import * as ts from "./gen/chat_ts.ts";

const server = new DrpcServer().add(ChatService, {
  say: ({ text }) => ({ text: `${text}!` }),
  async collect(lines) {
    const texts: string[] = [];
    for await (const { text } of lines) texts.push(text);
    return { text: texts.join(" and ") };
  },
  async *repeat(line) {
    for (let i = 0; i < 3; i++) yield line;
  },
  async *talk(lines) {
    for await (const { text } of lines) yield { text: `${text}?` };
  },
});
const address = await server.listen({ host: "127.0.0.1" });
const pool = new Pool<string>({ dial: dialDrpc() });
const conn = pool.get(address);
async function* lines(...texts: readonly string[]) {
  for (const text of texts) yield { text };
}
async function print(lines: AsyncIterable<{ readonly text: string }>): Promise<void> {
  const texts: string[] = [];
  for await (const { text } of lines) texts.push(text);
  console.log(texts.join(", "));
}

// ts-proto, --ts_proto_opt=outputServices=grpc-js: its definitions fit as they are.
console.log((await conn.invoke(ChatService.say, { text: "ts-proto" })).text);

// ts-proto, --ts_proto_opt=outputServices=default,useAsyncIterable=true: its own clients
const client = new ChatClientImpl(rpcOver(conn));
console.log((await client.say({ text: "ts-proto's client" })).text);
console.log((await client.collect(lines("one", "two"))).text);
await print(client.repeat({ text: "again" }));
await print(client.talk(lines("really", "you")));

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
console.log((await conn.invoke(esRpc(es.Chat.method.say), { text: "protobuf-es" })).text);
const talk = await conn.newStream(esRpc(es.Chat.method.talk));
await talk.send({ text: "a stream" });
await talk.closeSend();
await print(talk);

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
console.log((await conn.invoke(tsRpc(ts.Chat, "Say", ts.Line, ts.Line), { text: "protobuf-ts" })).text);
const repeat = await conn.newStream(tsRpc(ts.Chat, "Repeat", ts.Line, ts.Line));
await repeat.closeSend({ text: "and again" });
await print(repeat);

console.log(`${pool.stats().dials} dial`);
await Promise.all([pool.close(), server.close()]);

// ts-proto!
// ts-proto's client!
// one and two
// again, again, again
// really?, you?
// protobuf-es!
// a stream?
// protobuf-ts!
// and again, and again, and again
// 1 dial
