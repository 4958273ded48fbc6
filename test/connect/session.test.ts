import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { createFileRegistry, type DescService, type JsonObject, type Message } from "@bufbuild/protobuf";
import { type CallOptions, Code, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ServerCredentials } from "@grpc/grpc-js";
import { dialHttp2, type Http2Conn, pooledSession } from "../../src/connect/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, localhost } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { echoDescriptors, ProtobufEcho } from "../support/echo-descriptor.ts";
import { type EchoServer, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { startRaw } from "../support/raw-grpc.ts";

interface Text extends JsonObject {
  text: string;
}

/** A Connect client of the echo service; its types come from names that are put together here. */
interface EchoClient {
  unary(ask: Text, options?: CallOptions): Promise<Message & Text>;
  collect(asks: AsyncIterable<Text>): Promise<Message & Text>;
  repeat(ask: Text): AsyncIterable<Message & Text>;
  chat(asks: AsyncIterable<Text>): AsyncIterable<Message & Text>;
}

const files = createFileRegistry(echoDescriptors);

function clientOf(transport: Transport): EchoClient {
  const service: DescService | undefined = files.getService("test.Echo");
  if (service === undefined) throw new Error("the service was defined above");
  return Object(createClient(service, transport));
}

async function textsOf(messages: AsyncIterable<Text>): Promise<string> {
  let all = "";
  for await (const message of messages) all += message.text;
  return all;
}

async function* asks(): AsyncGenerator<Text> {
  for (const each of ["a", "b", "c"]) yield { text: each };
}

const tls = ServerCredentials.createSsl(null, [
  { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) },
]);

describe("row 43: a Connect transport over the pool", () => {
  let plain: EchoServer;
  let encrypted: EchoServer;
  let pool: Pool<string, Http2Conn>;
  before(async () => {
    const options = { "grpc.max_concurrent_streams": 7 };
    plain = await startEcho(undefined, options, ProtobufEcho.service);
    encrypted = await startEcho(tls, options, ProtobufEcho.service);
    pool = new Pool({ dial: dialHttp2({ tls: { ca } }) });
  });
  after(async () => {
    await pool.close();
    await plain[Symbol.asyncDispose]();
    await encrypted[Symbol.asyncDispose]();
  });
  const over = (baseUrl: string): EchoClient =>
    clientOf(createGrpcTransport({ baseUrl, sessionManager: pooledSession(pool, baseUrl) }));

  for (const kind of ["plain text", "TLS"]) {
    test(`runs all kinds of RPC over ${kind}, on one connection`, { timeout: 10_000 }, async () => {
      const echo = kind === "TLS" ? encrypted : plain;
      const client = over(`${kind === "TLS" ? "https" : "http"}://localhost:${echo.port}`);
      assert.equal((await client.unary({ text: "one" })).text, "one");
      assert.equal((await client.collect(asks())).text, "a b c");
      assert.equal(await textsOf(client.repeat({ text: "n", count: 3 })), "n0n1n2");
      assert.equal(await textsOf(client.chat(asks())), "abc");
      await until(() => pool.stats().streams === 0, "all slots are free");
      assert.equal(echo.sockets.size, 1);
    });
  }

  test("opens another connection when the peer's limit of streams is reached", { timeout: 10_000 }, async () => {
    const client = over(`http://localhost:${plain.port}`);
    let finish = (): void => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    async function* never(): AsyncGenerator<Text> {
      yield { text: "x" };
      await finished;
    }
    const chats = Array.from({ length: 20 }, () => textsOf(client.chat(never())));
    await until(() => plain.running === 20, "all run at once");
    assert.equal(plain.sockets.size, 3);
    finish();
    assert.deepEqual(new Set(await Promise.all(chats)), new Set(["x"]));
    await until(() => pool.stats().streams === 0, "all slots are free");
  });

  test("an aborted call gives its slot back", async () => {
    const client = over(`http://localhost:${plain.port}`);
    const controller = new AbortController();
    const reading = rejection(client.collect(endless(controller)));
    await until(() => plain.running === 1, "it runs");
    controller.abort();
    await reading;
    await until(() => pool.stats().streams === 0, "the slot is free");
  });

  for (const [protocol, create] of [
    ["gRPC", createGrpcTransport],
    ["Connect", createConnectTransport],
  ] as const) {
    test(`a call of ${protocol} that waits for a slot leaves the queue when its time is over`, async () => {
      await using full = new Pool({ dial: dialHttp2({ maxStreams: 1 }), maxKeyConns: 1 });
      const baseUrl = `http://localhost:${plain.port}`;
      using _lease = await full.acquire(baseUrl);
      const sessionManager = pooledSession(full, baseUrl);
      const client = clientOf(create({ baseUrl, httpVersion: "2", sessionManager }));
      const error = Object(await rejection(client.unary({ text: "x" }, { timeoutMs: 30 })));
      assert.equal(error.code, Code.DeadlineExceeded);
      await until(() => full.stats().waiting === 0, "nobody waits");
      assert.equal(full.stats().timeouts, 1);
    });
  }

  test("an aborted call that waits for a slot rejects at once, and gives the slot back that it still gets", async () => {
    await using full = new Pool({ dial: dialHttp2({ maxStreams: 1 }), maxKeyConns: 1 });
    const baseUrl = `http://localhost:${plain.port}`;
    const lease = await full.acquire(baseUrl);
    const client = clientOf(createGrpcTransport({ baseUrl, sessionManager: pooledSession(full, baseUrl) }));
    const handled = plain.handled;
    const error = Object(await rejection(client.unary({ text: "x" }, { signal: AbortSignal.timeout(20) })));
    assert.equal(error.name, "ConnectError");
    lease.release();
    await until(() => full.stats().waiting === 0 && full.stats().streams === 0, "the slot is free");
    assert.equal((await client.unary({ text: "next" })).text, "next");
    assert.equal(plain.handled - handled, 1);
  });

  test("a refused connection is Unavailable, with the cause", async () => {
    const error = Object(await rejection(over("http://127.0.0.1:1").unary({ text: "x" })));
    assert.equal(error.name, "ConnectError");
    assert.match(error.message, /ECONNREFUSED 127\.0\.0\.1:1/);
    assert.equal(error.code, Code.Unavailable);
  });

  test("a lost connection ends its conn before its calls", async () => {
    const url = `http://localhost:${plain.port}`;
    await over(url).unary({ text: "x" });
    using lease = pool.tryAcquire(url);
    const order: string[] = [];
    void lease?.conn.closed.then(() => order.push("closed"));
    const call = rejection(textsOf(over(url).chat(endless(new AbortController())))).then(() => order.push("failed"));
    await until(() => plain.running === 1, "it runs");
    for (const socket of plain.sockets) socket.destroy();
    await call;
    assert.deepEqual(order, ["closed", "failed"]);
  });

  test("a GOAWAY drains the conn", async () => {
    await using raw = await startRaw((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { endStream: true });
      stream.session?.goaway(0);
    });
    const url = `http://${raw.address}`;
    await rejection(over(url).unary({ text: "x" }));
    await until(() => pool.stats(url).open === 0, "the conn leaves");
    assert.equal(pool.stats().streams, 0);
  });

  test("a dial that is aborted leaves no socket; wrong keys and options are refused", async () => {
    const controller = new AbortController();
    const dial = dialHttp2();
    const reason = new Error("no");
    const dialing = rejection(Promise.resolve(dial(`https://localhost:${plain.port}`, { signal: controller.signal })));
    controller.abort(reason);
    assert.equal(await dialing, reason);
    await assert.rejects(async () => dial("localhost:1", { signal: controller.signal }), { name: "PoolTypeError" });
    assert.throws(() => dialHttp2({ maxStreams: 0 }), { name: "PoolRangeError" });
    assert.throws(() => dialHttp2({ streams: 1 } as object), { name: "PoolTypeError" });
    assert.throws(() => pooledSession(pool, "nowhere"), { name: "PoolTypeError" });
  });
});

async function* endless({ signal }: AbortController): AsyncGenerator<Text> {
  yield { text: "x" };
  await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("enough")), { once: true }));
}
