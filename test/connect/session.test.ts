import assert from "node:assert/strict";
import { createSecureServer } from "node:http2";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { createFileRegistry, type DescService, type JsonObject, type Message } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ServerCredentials } from "@grpc/grpc-js";
import { dialHttp2, type Http2Conn, type Http2Peer, http2Peers, pooledSession } from "../../src/connect/index.ts";
import { isPoolError } from "../../src/errors.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, localhost, other } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { echoDescriptors, ProtobufEcho } from "../support/echo-descriptor.ts";
import { type EchoServer, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { answer, startRaw } from "../support/raw-grpc.ts";

interface Text extends JsonObject {
  text: string;
}

/** A Connect client of the echo service; its types come from names that are put together here. */
interface EchoClient {
  unary(ask: Text, options?: CallOptions): Promise<Message & Text>;
  collect(asks: AsyncIterable<Text>): Promise<Message & Text>;
  repeat(ask: Text, options?: CallOptions): AsyncIterable<Message & Text>;
  chat(asks: AsyncIterable<Text>, options?: CallOptions): AsyncIterable<Message & Text>;
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

test("the timeout of a request is one for all that it waits, also where conns begin to leave as they are handed out", async () => {
  await using echo = await startEcho();
  const origin = `http://${echo.address}`;
  await using pool = new Pool<string, Http2Conn>({ dial: dialHttp2() });
  const acquire = pool.acquire.bind(pool);
  const deadlines: unknown[] = [];
  pool.tryAcquire = () => undefined;
  pool.acquire = async (key, options) => {
    deadlines.push(options?.deadline);
    const lease = await acquire(key);
    const conn = Object.create(lease.conn, { draining: { value: deadlines.length < 3 } });
    return deadlines.length < 3 ? Object.assign(Object.create(lease), { conn, release: () => lease.release() }) : lease;
  };
  const headers = { "connect-timeout-ms": "5000" };
  const stream = await pooledSession(pool, origin).request("POST", "/test.Echo/Unary", headers, {});
  stream.destroy();
  assert.equal(deadlines.length, 3);
  assert.ok(typeof deadlines[0] === "number" && deadlines.every((deadline) => deadline === deadlines[0]));
});

describe("a Connect transport over the pool", () => {
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

  test("a call that is given up before anything has come of its answer says so with its slot", async () => {
    let requests = 0;
    await using silent = await startRaw((stream) => ++requests === 1 && answer(stream, [""]));
    const baseUrl = `http://${silent.address}`;
    const conn = await dialHttp2()(baseUrl, { signal: new AbortController().signal });
    const given: unknown[] = [];
    const spy: Pool<string, Http2Conn> = Object.assign(Object.create(pool), {
      tryAcquire: () => ({ conn, release: (how: unknown) => given.push(how) }),
    });
    const client = clientOf(createGrpcTransport({ baseUrl, sessionManager: pooledSession(spy, baseUrl) }));
    await client.unary({ text: "answered" });
    await rejection(client.unary({ text: "late" }, { timeoutMs: 30 }));
    await rejection(client.unary({ text: "aborted" }, { signal: AbortSignal.timeout(30) }));
    await until(() => given.length === 3, "all slots are back");
    assert.deepEqual(given, [undefined, { unanswered: true }, { unanswered: true }]);
    await conn.close();
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

  test("an aborted call that waits leaves the queue at once, where the transport has the session's interceptor", async () => {
    await using full = new Pool({ dial: dialHttp2({ maxStreams: 1 }), maxKeyConns: 1 });
    const baseUrl = `http://localhost:${plain.port}`;
    using _lease = await full.acquire(baseUrl);
    const sessionManager = pooledSession(full, baseUrl);
    const interceptors = [sessionManager.interceptor];
    for (const create of [createGrpcTransport, createConnectTransport]) {
      const client = clientOf(create({ baseUrl, httpVersion: "2", sessionManager, interceptors }));
      const controller = new AbortController();
      const calls = [
        rejection(client.unary({ text: "x" }, { signal: controller.signal })),
        rejection(textsOf(client.chat(asks(), { signal: controller.signal }))),
      ];
      await until(() => full.stats().waiting === 2, "both wait");
      controller.abort();
      assert.equal(full.stats().waiting, 0);
      for (const error of await Promise.all(calls)) assert.equal(Object(error).code, Code.Canceled);
    }
  });

  test("a call that is aborted with an answer that nobody reads gives its slot back", async () => {
    const baseUrl = `http://localhost:${plain.port}`;
    const sessionManager = pooledSession(pool, baseUrl);
    const interceptors = [sessionManager.interceptor];
    const client = clientOf(createGrpcTransport({ baseUrl, sessionManager, interceptors }));
    const controller = new AbortController();
    const handled = plain.handled;
    const answers = client.repeat({ text: "x".repeat(1000), count: 20 }, { signal: controller.signal });
    await answers[Symbol.asyncIterator]().next();
    await until(() => plain.handled === handled + 1, "the server is done");
    controller.abort();
    await until(() => pool.stats().streams === 0, "the slot is free");
  });

  describe("what the pool refuses is a ConnectError with the pool's error as its cause", () => {
    const dial = dialHttp2({ maxStreams: 1 });
    const refusals: [string, Code, (baseUrl: string) => Promise<Pool<string, Http2Conn>>][] = [
      [
        "ERR_POOL_QUEUE_FULL",
        Code.ResourceExhausted,
        async (baseUrl) => {
          const full = new Pool({ dial, maxKeyConns: 1, maxWaiters: 1 });
          await full.acquire(baseUrl);
          full.acquire(baseUrl).catch(() => {});
          return full;
        },
      ],
      [
        "ERR_POOL_WAIT_TIMEOUT",
        Code.DeadlineExceeded,
        async (baseUrl) => {
          const slow = new Pool({ dial, maxKeyConns: 1, waitTimeoutMs: 5 });
          await slow.acquire(baseUrl, { timeoutMs: 10_000 });
          return slow;
        },
      ],
      ["ERR_POOL_NO_CONN", Code.Unavailable, async () => new Pool<string, Http2Conn>()],
      [
        "ERR_POOL_CLOSED",
        Code.Unavailable,
        async () => {
          const over = new Pool({ dial });
          await over.close();
          return over;
        },
      ],
      [
        "ERR_POOL_DIAL_TIMEOUT",
        Code.Unavailable,
        async () => new Pool<string, Http2Conn>({ dial: () => new Promise(() => {}), dialTimeoutMs: 5 }),
      ],
    ];
    for (const [name, code, make] of refusals) {
      test(`${name} is ${Code[code]}`, async () => {
        const baseUrl = `http://localhost:${plain.port}`;
        const refusing = await make(baseUrl);
        const sessionManager = pooledSession(refusing, baseUrl);
        for (const create of [createGrpcTransport, createConnectTransport]) {
          const client = clientOf(create({ baseUrl, httpVersion: "2", sessionManager }));
          const error = await rejection(client.unary({ text: "x" }));
          assert.ok(error instanceof ConnectError);
          assert.equal(error.code, code);
          assert.ok(isPoolError(error.cause));
          assert.equal(error.cause.code, name);
          assert.equal(error.rawMessage, error.cause.message);
          assert.equal(error.message, ConnectError.from(error.cause, code).message);
          assert.deepEqual(error.findDetails({ kind: "registry" } as never), []);
        }
        await refusing.close({ graceMs: 0 });
      });
    }
  });

  test("peers with a CA and a client certificate each share one pool, and never a connection", async () => {
    const names: string[] = [];
    const server = createSecureServer({ ...localhost, ca, requestCert: true, rejectUnauthorized: false });
    server.on("secureConnection", (socket) => names.push(String(Object(socket.getPeerCertificate().subject).CN)));
    const sockets = new Set<Socket>();
    server.on("connection", (socket: Socket) => void sockets.add(socket));
    server.on("stream", (stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" })).end(Buffer.alloc(5));
    });
    await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
    const origin = `https://localhost:${Object(server.address()).port}`;
    await using peers = new Pool({ ...http2Peers() });
    const call = (tls: Http2Peer["tls"]) => {
      const sessionManager = pooledSession(peers, { origin, tls });
      return clientOf(createGrpcTransport({ baseUrl: origin, sessionManager })).unary({ text: "x" });
    };
    const identities = [{ ca }, { ca, ...localhost }, { ca, ...other }];
    for (const tls of [...identities, ...identities.map((each) => ({ ...each }))]) await call(tls);
    assert.deepEqual(names, ["undefined", "localhost", "other"]);
    assert.equal(peers.stats().dials, 3);
    const untrusted = await rejection(call(undefined));
    assert.match(String(Object(untrusted).message), /self-signed|unable to (verify|get)/);
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  test("what a call brings counts as a sign of life of its conn", async () => {
    const baseUrl = `http://localhost:${plain.port}`;
    const client = over(baseUrl);
    await client.unary({ text: "x" });
    using lease = pool.tryAcquire(baseUrl);
    const before = lease?.conn.bytesRead ?? 0;
    await client.unary({ text: "x".repeat(5_000) });
    assert.ok((lease?.conn.bytesRead ?? 0) > before + 5_000);
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
