import assert from "node:assert/strict";
import { createServer as createHttpServer, get } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import {
  type DialDrpcOptions,
  DrpcConn,
  DrpcError,
  type DrpcHandlers,
  type DrpcListenOptions,
  DrpcServer,
  type DrpcServerOptions,
  dialDrpc,
} from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { ca, localhost } from "../support/certs.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { Far, holding, packet, rejection, turns, wire } from "../support/wire.ts";

const hello = Buffer.from("hello");
const { signal: never } = new AbortController();

class Place implements AsyncDisposable {
  readonly server: DrpcServer;
  readonly conns: DrpcConn[] = [];
  key = "";

  constructor(options?: DrpcServerOptions, handlers?: Partial<DrpcHandlers<typeof peer>>) {
    this.server = new DrpcServer(options).add(peer, { ...peerHandlers(), ...handlers });
  }

  async listen(options: DrpcListenOptions = {}): Promise<this> {
    this.key = await this.server.listen({ host: "127.0.0.1", ...options });
    return this;
  }

  async dial(options?: DialDrpcOptions): Promise<DrpcConn> {
    const conn = await dialDrpc(options)(this.key, { signal: never });
    this.conns.push(conn);
    return conn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.conns.map((conn) => conn.close()));
    await this.server.close({ graceMs: 200 });
  }
}

async function tryEcho(conn: DrpcConn): Promise<void> {
  assert.equal((await conn.invoke(peer.echo, hello)).toString(), "hello");
}

async function tryAll(conn: DrpcConn): Promise<void> {
  await tryEcho(conn);

  const metadata = await conn.invoke(peer.metadata, hello, { metadata: { a: "1" } });
  assert.deepEqual(JSON.parse(metadata.toString()), { a: "1" });

  const error = await rejection(conn.invoke(peer.fail, Buffer.from("18446744073709551615 oh")));
  assert(error instanceof DrpcError);
  assert.deepEqual([error.message, error.code], ["oh", 2n ** 64n - 1n]);
  await assert.rejects(conn.invoke({ ...peer.echo, path: "/no/Such" }, hello), { code: 12 });

  const count = await conn.newStream(peer.count);
  await count.closeSend(Buffer.from("300"));
  const counted: string[] = [];
  for await (const message of count) counted.push(message.toString());
  assert.equal(counted.at(-1), "299");

  const collect = await conn.newStream(peer.collect);
  for (const letter of "abc") await collect.send(Buffer.from(letter));
  await collect.closeSend();
  for await (const message of collect) assert.equal(message.toString(), "abc");

  const chat = await conn.newStream(peer.chat);
  const replies = chat[Symbol.asyncIterator]();
  for (let i = 0; i < 20; i++) {
    await chat.send(Buffer.from(`${i}`));
    assert.equal((await replies.next()).value?.toString(), `${i}`);
  }
  await chat.closeSend();
  assert.equal((await replies.next()).done, true);

  const big = Buffer.alloc(3 << 20, "big");
  assert(big.equals(await conn.invoke(peer.echo, big)));
}

test("row 44: all kinds of RPC over TCP", async () => {
  await using place = await new Place().listen();
  await tryAll(await place.dial());
});

test("all kinds of RPC over TLS", async () => {
  await using place = await new Place().listen({ tls: localhost });
  place.key = place.key.replace("127.0.0.1", "localhost");
  await tryAll(await place.dial({ tls: { ca } }));
});

test("all kinds of RPC over a unix socket", async () => {
  await using place = await new Place().listen({ path: join(tmpdir(), `drpc-${process.pid}.sock`) });
  await tryAll(await place.dial());
});

test("all kinds of RPC over a given duplex", async () => {
  await using place = new Place();
  const [near, far] = duplexPair();
  place.server.serve(far);
  place.conns.push(new DrpcConn(near));
  await tryAll(place.conns[0] as DrpcConn);
});

test("the header shares a port with HTTP", async () => {
  const http = createHttpServer((_, response) => response.end("over HTTP"));
  await using place = await new Place().listen({
    header: true,
    otherwise: (socket) => http.emit("connection", socket),
  });
  await tryAll(await place.dial({ header: true }));
  const body = await new Promise<string>((resolve, reject) => {
    get(`http://${place.key}`, { agent: false }, (response) => response.on("data", (data) => resolve(String(data)))).on(
      "error",
      reject,
    );
  });
  assert.equal(body, "over HTTP");
  assert.throws(() => new DrpcServer().add(peer, {} as DrpcHandlers<typeof peer>), { code: "ERR_POOL_ARGUMENT" });
  await assert.rejects(place.server.listen({ otherwise: () => {} }), { code: "ERR_POOL_ARGUMENT" });
});

test("who does not begin with the header is closed when nobody else takes it", async () => {
  await using place = await new Place().listen({ header: true });
  const conn = await place.dial();
  assert((await rejection(conn.invoke(peer.echo, hello))) instanceof ConnClosedError);
  const slow = await place.dial({ header: true });
  await tryAll(slow);
});

test("a handler hears through its signal that its caller has cancelled, or gone", async () => {
  const reasons: unknown[] = [];
  let aborted: () => void = () => {};
  await using place = await new Place(undefined, {
    hang: async function* (_, { signal }) {
      yield hello;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      reasons.push(signal.reason);
      aborted();
    },
  }).listen();
  for (const leave of ["cancel", "close", "destroy"] as const) {
    const conn = await place.dial();
    const heard = new Promise<void>((resolve) => {
      aborted = resolve;
    });
    const stream = await conn.newStream(peer.hang);
    await stream.closeSend(hello);
    await stream[Symbol.asyncIterator]().next();
    if (leave === "cancel") await stream.close();
    else if (leave === "close") await conn.close();
    else conn.duplex.destroy();
    await heard;
    if (leave === "cancel") await tryAll(conn);
  }
  assert(
    reasons[0] instanceof DrpcError && reasons[1] instanceof ConnClosedError && reasons[2] instanceof ConnClosedError,
  );
});

test("a cancelled RPC is followed by the next at once, whose handler waits for the old one", async () => {
  let running = 0;
  let most = 0;
  await using place = await new Place(undefined, {
    hang: async function* (_, { signal }) {
      most = Math.max(most, ++running);
      yield hello;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await turns(3);
      running--;
    },
  }).listen();
  const conn = await place.dial();
  for (let i = 0; i < 20; i++) {
    const stream = await conn.newStream(peer.hang);
    await stream.closeSend(hello);
    for await (const message of stream) {
      assert.equal(message.toString(), "hello");
      break;
    }
  }
  assert.equal((await conn.invoke(peer.echo, hello)).toString(), "hello");
  assert.deepEqual([running, most], [0, 1]);
});

test("a new invoke on a running RPC cancels that, and handlers never pile up", async () => {
  let started = 0;
  let release: () => void = () => {};
  const server = new DrpcServer().add(peer, {
    ...peerHandlers(),
    echo: async (request) => {
      started++;
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return request;
    },
  });
  const far = new Far();
  server.serve(far.near);
  for (let stream = 1; stream <= 100; stream++) {
    far.send(packet("invoke", stream, 1, peer.echo.path), packet("message", stream, 2, `${stream}`));
    await turns(1);
  }
  assert.equal(started, 1, "99 invokes wait, or are cancelled");
  release();
  await turns();
  release();
  assert.deepEqual(await far.got(2), ["message 100/1 100", "closeSend 100/2"]);
  assert.equal(started, 2, "only the newest ran");
  await server.close({ graceMs: 0 });
});

test("a close packet is no last message: the handler's requests end with an error", async () => {
  const server = new DrpcServer();
  const seen = new Promise<unknown>((resolve) => {
    const collect = async (requests: AsyncIterable<Buffer>): Promise<Buffer> => {
      try {
        for await (const _ of requests);
        resolve("the end");
      } catch (error) {
        resolve(error);
      }
      return hello;
    };
    server.add({ collect: peer.collect }, { collect });
  });
  const far = new Far();
  server.serve(far.near);
  far.send(packet("invoke", 1, 1, peer.collect.path), packet("message", 1, 2), packet("close", 1, 3));
  assert(((await seen) as Error).message.includes("cancelled"));
  assert.deepEqual(far.packets, []);
  await server.close({ graceMs: 0 });
});

test("a handler that leaves its requests unread does not stop the conn", async () => {
  await using place = await new Place({ highWaterBytes: 1000 }, { collect: () => hello }).listen();
  const conn = await place.dial();
  const stream = await conn.newStream(peer.collect);
  for (let i = 0; i < 100; i++) await stream.send(Buffer.alloc(10_000));
  await stream.closeSend();
  for await (const message of stream) assert.equal(message.toString(), "hello");
  await tryEcho(conn);
});

test("a handler that throws, returns nonsense or cannot be serialized fails its RPC only", async () => {
  const bad = {
    echo: (): Buffer => {
      throw Object.assign(new Error("no"), { code: 5 });
    },
    count: () => "no iterable" as unknown as AsyncIterable<Buffer>,
    metadata: () => Promise.reject("just text"),
  };
  await using place = await new Place(undefined, bad).listen();
  const conn = await place.dial();
  await assert.rejects(conn.invoke(peer.echo, hello), { message: "no", code: 5 });
  const count = await conn.newStream(peer.count);
  await count.closeSend(hello);
  await assert.rejects(count[Symbol.asyncIterator]().next(), { message: /async iterable/ });
  await assert.rejects(conn.invoke(peer.metadata, hello), { message: "just text", code: 0 });
  const empty = await conn.newStream(peer.echo);
  await empty.closeSend();
  await assert.rejects(empty[Symbol.asyncIterator]().next(), { message: /no request/ });
});

test("hazard 15: inactive clients are closed, silent ones and those that send half a request", async () => {
  await using place = await new Place({ inactivityTimeoutMs: 30 }).listen();
  const silent = await place.dial();
  await holding(silent.closed);
  const half = await place.dial();
  const stream = await half.newStream(peer.echo);
  await stream.closed;
  await place.listen({ header: true });
  const [host, port] = place.key.split(":");
  const socket = connectTcp(Number(port), host).resume();
  await new Promise((resolve) => socket.on("close", resolve));
  await place.listen();
  const busy = await place.dial();
  const hang = await busy.newStream(peer.hang);
  await hang.closeSend(hello);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert(busy.unblocked(), "a handler that runs is activity");
  await busy.close();
});

test("hazard 15: a client that never reads its replies gets no further RPCs, and others do not notice", async () => {
  let handled = 0;
  const big = Buffer.alloc(1 << 20);
  const metadata = (): Buffer => {
    handled++;
    return big;
  };
  await using place = await new Place(undefined, { metadata }).listen();
  const [host, port] = place.key.split(":");
  const rude = connectTcp(Number(port), host).pause();
  for (let stream = 1; stream <= 300; stream++) {
    rude.write(wire(packet("invoke", stream, 1, peer.metadata.path), packet("message", stream, 2)));
    await turns(2);
  }
  assert(handled > 0 && handled < 50, `${handled} of 300 were handled`);
  await tryEcho(await place.dial());
  rude.destroy();
});

test("maxConns closes what comes beyond it", async () => {
  await using place = await new Place({ maxConns: 1 }).listen();
  const first = await place.dial();
  await first.invoke(peer.echo, hello);
  const second = await place.dial();
  await holding(second.closed);
  await first.invoke(peer.echo, hello);
});

test("row 38: close() lets RPCs finish and closes idle conns at once", async () => {
  let started: () => void = () => {};
  let finish: () => void = () => {};
  const running = new Promise<void>((resolve) => {
    started = resolve;
  });
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const place = await new Place(undefined, {
    echo: async (request) => {
      started();
      await finished;
      return request;
    },
  }).listen();
  const idle = await place.dial();
  await idle.invoke(peer.metadata, hello);
  const busy = await place.dial();
  const response = busy.invoke(peer.echo, Buffer.alloc(1 << 20));
  await running;
  const closing = place.server.close();
  await holding(idle.closed);
  assert(busy.unblocked(), "it runs on");
  finish();
  assert.equal((await response).length, 1 << 20);
  await holding(busy.closed);
  await closing;
});

test("close() cuts what takes longer than graceMs, and aborts the handlers", async () => {
  const place = await new Place().listen();
  const conn = await place.dial();
  const stream = await conn.newStream(peer.hang);
  await stream.closeSend(hello);
  const replies = stream[Symbol.asyncIterator]();
  await replies.next();
  const closing = place.server.close({ graceMs: 20 });
  assert((await rejection(replies.next())) instanceof ConnClosedError);
  await closing;
  await place.server.close();
  await assert.rejects(place.server.listen(), { code: "ERR_POOL_CLOSED" });
  await assert.rejects(dialDrpc()(place.key, { signal: never }) as Promise<unknown>, { code: "ECONNREFUSED" });
});

test("options of server and listen are checked at once, and a port in use is Node's error", async () => {
  const bad: Record<string, unknown>[] = [{ inactivityTimeoutMs: -1 }, { maxConns: 0.5 }, { onError: 1 }, { nope: 1 }];
  for (const options of bad) assert.throws(() => new DrpcServer(options), { code: "ERR_POOL_ARGUMENT" });
  await using place = await new Place().listen();
  const port = Number(place.key.split(":")[1]);
  await assert.rejects(place.server.listen({ host: "127.0.0.1", port }), { code: "EADDRINUSE" });
  await assert.rejects(place.server.listen({ header: 5 as unknown as string }), { code: "ERR_POOL_ARGUMENT" });
  await assert.rejects(place.server.close({ graceMs: -1 }), { code: "ERR_POOL_ARGUMENT" });
});
