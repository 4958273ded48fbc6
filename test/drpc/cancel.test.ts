import assert from "node:assert/strict";
import { getEventListeners, once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { type DrpcError, dialDrpc, encodePackets } from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { turns } from "../support/clock.ts";
import { reasonOf, rejection } from "../support/outcome.ts";
import { peer } from "../support/peer.ts";
import { connect, Far, holding, packet, wire } from "../support/wire.ts";

const hello = Buffer.from("hello");

test("an abort rejects with the signal's reason, untouched, and a soft cancel leaves the conn free", async () => {
  const { far, conn } = connect();
  for (const reason of [new Error("enough"), null, "text"]) {
    const controller = new AbortController();
    const response = conn.invoke(peer.echo, hello, { signal: controller.signal });
    controller.abort(reason);
    assert.equal(conn.unblocked(), undefined);
    assert.equal(await reasonOf(response), reason);
  }
  assert.equal((await far.got(12))[3], "cancel! 1/4");
  const aborted = await reasonOf(conn.invoke(peer.echo, hello, { signal: AbortSignal.abort("before") }));
  assert.equal(aborted, "before");
  assert.equal(far.packets.length, 12, "nothing was sent");
});

test("a signal that outlives its calls collects no listeners", async () => {
  const { far, conn } = connect();
  const { signal } = new AbortController();
  for (let stream = 1; stream <= 20; stream++) {
    const response = conn.invoke(peer.echo, hello, { signal, timeoutMs: 10_000 });
    assert.equal(getEventListeners(signal, "abort").length, 1);
    far.send(packet("message", stream, 1), packet("closeSend", stream, 2));
    await response;
    assert.equal(getEventListeners(signal, "abort").length, 0);
  }
});

test("an abort drops what has come, and late packets of what was cancelled are ignored", async () => {
  const { far, conn } = connect();
  const controller = new AbortController();
  const stream = await conn.newStream(peer.count, { signal: controller.signal });
  far.send(packet("message", 1, 1, "a"), packet("message", 1, 2, "b"));
  await turns();
  controller.abort("enough");
  assert.equal(await reasonOf(stream[Symbol.asyncIterator]().next()), "enough");
  await stream.closed;
  const next = conn.invoke(peer.echo, hello);
  far.send(packet("message", 1, 3, "late"), packet("closeSend", 1, 4));
  far.send(packet("message", 2, 1, "mine"), packet("closeSend", 2, 2));
  assert.equal((await next).toString(), "mine");
});

test("a hard cancel closes the conn, which is closed before the RPC rejects", async () => {
  const { conn } = connect({ cancel: "hard" });
  const controller = new AbortController();
  const order: string[] = [];
  const response = conn.invoke(peer.echo, hello, { signal: controller.signal });
  void conn.closed.then(() => order.push("closed"));
  void response.catch((reason) => order.push(reason));
  controller.abort("enough");
  await turns();
  assert.deepEqual(order, ["closed", "enough"]);
  const error = await rejection(conn.invoke(peer.echo, hello));
  assert(error instanceof ConnClosedError);
  assert.equal(error.sent, false);
});

test("a conn is blocked until a cancelled RPC's bytes have left", async () => {
  const { far, conn } = connect({}, new Far({ deaf: true, highWaterMark: 1024 }));
  const stream = await conn.newStream(peer.collect);
  const sent = stream.send(Buffer.alloc(100_000));
  await stream.close();
  await assert.rejects(sent, { message: /close\(\) cancelled/ });
  await stream.closed;
  const free = conn.unblocked();
  assert(free);
  let settled = false;
  void free.then(() => {
    settled = true;
  });
  await turns();
  assert.equal(settled, false);
  far.listen();
  await free;
  assert.equal(conn.unblocked(), undefined);
  assert.equal(far.packets.at(-1), "cancel! 1/3");
});

test("a duplex that hands on later has two turns to do so; what does not leave then blocks the conn", async () => {
  const { far, conn } = connect({}, new Far({ deaf: true }));
  const controller = new AbortController();
  const call = conn.invoke(peer.echo, hello, { signal: controller.signal });
  controller.abort("enough");
  assert.equal(conn.unblocked(), undefined, "as TLS, which is about to hand on what it was just given");
  assert.equal(await reasonOf(call), "enough");
  await turns(3);
  const free = conn.unblocked();
  assert(free, "nothing has left");
  far.listen();
  await free;
  assert.equal(conn.unblocked(), undefined);

  const late = connect({}, new Far({ deaf: true }));
  const aborting = new AbortController();
  const waiting = late.conn.invoke(peer.echo, hello, { signal: aborting.signal });
  await turns(3);
  aborting.abort("enough");
  assert(late.conn.unblocked(), "the request had not left when it was cancelled");
  assert.equal(await reasonOf(waiting), "enough");
});

test("a TCP socket writes at once: what it has not taken by the end of an RPC blocks the conn", async () => {
  const deaf = createServer((socket) => socket.pause().on("error", () => {})).listen(0, "127.0.0.1");
  await once(deaf, "listening");
  const { port } = deaf.address() as AddressInfo;
  const conn = await dialDrpc()(`127.0.0.1:${port}`, new AbortController());
  const stream = await conn.newStream(peer.collect);
  const sent: Promise<void>[] = [];
  const message = Buffer.alloc(100_000);
  do {
    sent.push(stream.send(message).catch(() => {}));
    await turns(2);
  } while (conn.duplex.writableLength === 0);
  await stream.close();
  const free = conn.unblocked();
  await Promise.all([conn.close(), ...sent]);
  deaf.close();
  assert(free);
});

test("a conn that stays blocked is closed after maxBlockedMs", async () => {
  const { conn } = connect({ maxBlockedMs: 20 }, new Far({ deaf: true, highWaterMark: 1024 }));
  const stream = await conn.newStream(peer.collect);
  void stream.send(Buffer.alloc(100_000)).catch(() => {});
  await stream.close();
  const free = conn.unblocked();
  assert(free);
  const alive = setTimeout(() => {}, 5000); // the conn's own timer keeps nothing alive
  await free;
  clearTimeout(alive);
  await conn.closed;
  const error = await rejection(conn.invoke(peer.echo, hello));
  assert(error instanceof ConnClosedError);
  assert.deepEqual([error.reason, error.sent], ["blocked", false]);
});

test("a conn is blocked while a frame of a cancelled RPC is half in, and free when the rest has come", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.count);
  const bytes = wire(packet("message", 1, 1, "late"), packet("closeSend", 1, 2));
  far.near.push(bytes.subarray(0, 6));
  await turns();
  await stream.close();
  const free = conn.unblocked();
  assert(free, "the next answer would come behind it");
  far.near.push(bytes.subarray(6));
  await free;
  assert.equal(conn.unblocked(), undefined);
  const next = conn.invoke(peer.echo, hello);
  far.send(packet("message", 2, 1, "mine"), packet("closeSend", 2, 2));
  assert.equal((await next).toString(), "mine");
});

test("a frame whose rest does not come within maxBlockedMs closes the conn", async () => {
  const { far, conn } = connect({ maxBlockedMs: 20 });
  const stream = await conn.newStream(peer.count);
  const free = conn.unblocked();
  assert(free, "an RPC runs");
  far.near.push(wire(packet("message", 1, 1, "late")).subarray(0, 6));
  await turns();
  await stream.close();
  await holding(free);
  const error = await rejection(conn.invoke(peer.echo, hello));
  assert(error instanceof ConnClosedError);
  assert.deepEqual([error.reason, error.sent], ["blocked", false]);
  assert.match(error.message, /the rest of a frame had not come within 20 ms/);
});

test("a packet that its peer broke off between two frames blocks nothing", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.count);
  far.near.push(Buffer.concat(encodePackets([packet("message", 1, 1, "abcdef")], 3)).subarray(0, 7));
  await turns();
  await stream.close();
  assert.equal(conn.unblocked(), undefined);
});

test("breaking out of the loop cancels the RPC, and so does `return` before the first `next` or while it waits", async () => {
  const { far, conn } = connect();
  const first = await conn.newStream(peer.count);
  far.send(packet("message", 1, 1), packet("message", 1, 2));
  for await (const _ of first) break;
  await first.closed;
  assert.equal((await far.got(2))[1], "cancel! 1/2");

  const second = await conn.newStream(peer.count);
  await second[Symbol.asyncIterator]().return?.();
  await second.closed;

  const third = await conn.newStream(peer.count);
  const iterator = third[Symbol.asyncIterator]();
  const waiting = rejection(iterator.next());
  await iterator.return?.();
  assert.equal(((await waiting) as DrpcError).code, 1);
  {
    await using fourth = await conn.newStream(peer.count);
    void fourth;
  }
  assert.equal((await far.got(8)).at(-1), "cancel! 4/2");
  assert.equal(conn.unblocked(), undefined);
});
