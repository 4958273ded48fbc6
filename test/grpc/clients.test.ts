import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Channel, credentials, makeGenericClientConstructor, type ServiceError } from "@grpc/grpc-js";
import { GrpcTransport } from "@protobuf-ts/grpc-transport";
import { MessageType, ScalarType } from "@protobuf-ts/runtime";
import { ServiceType, stackIntercept } from "@protobuf-ts/runtime-rpc";
import { createClient } from "nice-grpc";
import { dialGrpc, type GrpcConn, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { ProtobufEcho } from "../support/echo-descriptor.ts";
import { type EchoServer, echoService, startEcho } from "../support/echo-service.ts";

const insecure = credentials.createInsecure();
const unused = "not used:1";

interface Text {
  text: string;
}

async function textsOf(messages: AsyncIterable<Text>): Promise<string> {
  let all = "";
  for await (const { text } of messages) all += text;
  return all;
}

async function* asks(): AsyncGenerator<Text> {
  for (const text of ["a", "b", "c"]) yield { text };
}

function called(run: (callback: (error: ServiceError | null, answer?: Text) => void) => unknown): Promise<string> {
  return new Promise((resolve, reject) =>
    run((error, answer) => (error ? reject(error) : resolve(answer?.text ?? ""))),
  );
}

/** What grpc-js makes of a definition is typed by names only. */
interface CallbackClient {
  unary(ask: Text, callback: (error: ServiceError | null, answer?: Text) => void): unknown;
  collect(callback: (error: ServiceError | null, answer?: Text) => void): NodeJS.WritableStream & Writes;
  repeat(ask: Text & { count: number }): AsyncIterable<Text>;
  chat(): AsyncIterable<Text> & Writes;
}
interface Writes {
  write(ask: Text): unknown;
  end(): unknown;
}

async function exercise(client: CallbackClient): Promise<void> {
  assert.equal(await called((callback) => client.unary({ text: "one" }, callback)), "one");
  const all = await called((callback) => {
    const stream = client.collect(callback);
    for (const text of ["a", "b", "c"]) stream.write({ text });
    stream.end();
  });
  assert.equal(all, "a b c");
  assert.equal(await textsOf(client.repeat({ text: "n", count: 3 })), "n0n1n2");
  const chat = client.chat();
  for (const text of ["a", "b", "c"]) chat.write({ text });
  chat.end();
  assert.equal(await textsOf(chat), "abc");
}

describe("through the pool, with one line changed, goes", () => {
  let json: EchoServer;
  let protobuf: EchoServer;
  let pool: Pool<string, GrpcConn>;
  before(async () => {
    json = await startEcho();
    protobuf = await startEcho(undefined, {}, ProtobufEcho.service);
    pool = new Pool({ dial: dialGrpc(insecure) });
  });
  after(async () => {
    await until(() => pool.stats().streams === 0, "all slots are free");
    assert.equal(pool.stats().dials, 2);
    await pool.close();
    await json[Symbol.asyncDispose]();
    await protobuf[Symbol.asyncDispose]();
  });
  const channel = (echo: EchoServer): Channel => pooledChannel(pool, echo.address);

  test("a client as grpc-tools generates them", async () => {
    const EchoClient = makeGenericClientConstructor(echoService, "test.Echo");
    await exercise(Object(new EchoClient(unused, insecure, { channelOverride: channel(json) })));
  });

  test("a client of @grpc/proto-loader", async () => {
    await exercise(Object(new ProtobufEcho(unused, insecure, { channelOverride: channel(protobuf) })));
  });

  test("a client of nice-grpc", async () => {
    const client = createClient(echoService, channel(json));
    assert.deepEqual(await client.unary({ text: "one" }), { text: "one" });
    assert.deepEqual(await client.collect(asks()), { text: "a b c" });
    assert.equal(await textsOf(client.repeat({ text: "n", count: 3 })), "n0n1n2");
    assert.equal(await textsOf(client.chat(asks())), "abc");
    const abort = AbortSignal.timeout(20);
    await assert.rejects(client.unary({ text: "x", delayMs: -1 }, { signal: abort }), { name: "TimeoutError" });
  });

  test("a client of @protobuf-ts/grpc-transport", async () => {
    const text = { no: 1, name: "text", kind: "scalar", T: ScalarType.STRING } as const;
    const count = { no: 2, name: "count", kind: "scalar", T: ScalarType.INT32 } as const;
    const I = new MessageType<Text & { count: number }>("test.Ask", [text, count]);
    const O = new MessageType<Text>("test.Answer", [text]);
    const { methods } = new ServiceType("test.Echo", [
      { name: "Unary", I, O, options: {} },
      { name: "Collect", I, O, options: {}, clientStreaming: true },
      { name: "Repeat", I, O, options: {}, serverStreaming: true },
      { name: "Chat", I, O, options: {}, clientStreaming: true, serverStreaming: true },
    ]);
    const [unary, collect, repeat, chat] = methods;
    if (!unary || !collect || !repeat || !chat) throw new Error("four methods were defined");
    const transport = new GrpcTransport({
      host: unused,
      channelCredentials: insecure,
      clientOptions: { channelOverride: channel(protobuf) },
    });
    const options = transport.mergeOptions({});
    type Ask = Text & { count: number };
    const answered = await stackIntercept<Ask, Text>("unary", transport, unary, options, I.create({ text: "one" }));
    assert.equal(answered.response.text, "one");
    const collecting = stackIntercept<Ask, Text>("clientStreaming", transport, collect, options);
    for await (const ask of asks()) await collecting.requests.send(I.create(ask));
    await collecting.requests.complete();
    assert.equal((await collecting.response).text, "a b c");
    const ask = I.create({ text: "n", count: 3 });
    const repeating = stackIntercept<Ask, Text>("serverStreaming", transport, repeat, options, ask);
    assert.equal(await textsOf(repeating.responses), "n0n1n2");
    const chatting = stackIntercept<Ask, Text>("duplex", transport, chat, options);
    for await (const each of asks()) await chatting.requests.send(I.create(each));
    await chatting.requests.complete();
    assert.equal(await textsOf(chatting.responses), "abc");
  });
});
