import assert from "node:assert/strict";
import { createServer as createHttpServer, get } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex, duplexPair } from "node:stream";
import { test } from "node:test";
import { DrpcConn, type DrpcHandlers, DrpcServer, dialDrpc } from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { ca, localhost } from "../support/certs.ts";
import { turns } from "../support/clock.ts";
import { rejection } from "../support/outcome.ts";
import { peer } from "../support/peer.ts";
import { Place, tryAll } from "../support/place.ts";
import { Far, holding, packet } from "../support/wire.ts";

const hello = Buffer.from("hello");
const { signal: never } = new AbortController();

test("all kinds of RPC over TCP", async () => {
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

test("close() lets RPCs finish and closes idle conns at once", async () => {
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

test("close({ graceMs: Infinity }) cuts nothing, and a second close() can", async () => {
  const place = await new Place().listen();
  const [patient, stubborn] = [await place.dial(), await place.dial()];
  const chat = await patient.newStream(peer.chat);
  const hang = await stubborn.newStream(peer.hang);
  await hang.closeSend(hello);
  const hanging = hang[Symbol.asyncIterator]();
  await hanging.next();
  const replies = chat[Symbol.asyncIterator]();
  await chat.send(hello);
  await replies.next();
  const closing = place.server.close({ graceMs: Number.POSITIVE_INFINITY });
  for (let i = 0; i < 5; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    await chat.send(Buffer.from(`${i}`));
    assert.equal((await replies.next()).value?.toString(), `${i}`);
  }
  await chat.closeSend();
  assert.equal((await replies.next()).done, true);
  await holding(patient.closed);
  await place.server.close({ graceMs: 0 });
  await closing;
  assert((await rejection(hanging.next())) instanceof ConnClosedError);
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

test("what is no duplex is refused at once, and the server goes on", async () => {
  await using place = await new Place().listen();
  for (const duplex of [undefined, null, 42, {}] as unknown as Duplex[]) {
    assert.throws(() => place.server.serve(duplex), { name: "PoolTypeError" });
  }
  await place.server.close();
});

test("a duplex that cannot be served is refused and not counted", async () => {
  await using place = new Place({ maxConns: 1 });
  const objects = new Duplex({ objectMode: true, read() {}, write() {} });
  assert.throws(() => place.server.serve(objects), { code: "ERR_POOL_ARGUMENT" });
  await place.listen();
  await tryAll(await place.dial());
});

test("an onError or otherwise that throws or rejects takes nothing down", async () => {
  const warnings: string[] = [];
  const warned = (warning: Error): void => void warnings.push(warning.message);
  process.on("warning", warned);
  const failing: (() => void)[] = [
    (): never => {
      throw new Error("from a listener");
    },
    (() => Promise.reject(new Error("from a listener"))) as () => void,
    (): never => {
      throw Object.create(null);
    },
  ];
  for (const fail of failing) {
    await using place = new Place({ onError: fail });
    await place.listen({ header: true, otherwise: fail });
    const rude = connectTcp(Number(place.key.split(":")[1]), "127.0.0.1").on("error", () => {});
    rude.end("GET / HTTP/1.1");
    await new Promise((resolve) => rude.resume().once("close", resolve));
    const bad = new Far();
    place.server.serve(bad.near);
    bad.send(packet("message", 1, 1));
    await turns();
    assert(bad.near.destroyed);
    await tryAll(await place.dial({ header: true }));
  }
  process.off("warning", warned);
  assert.equal(warnings.filter((text) => text === "from a listener").length, 4);
  assert.equal(warnings.length, 6);
});
