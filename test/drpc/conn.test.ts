import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import {
  DrpcBusyError,
  DrpcConn,
  type DrpcConnOptions,
  DrpcError,
  DrpcProtocolError,
  DrpcTimeoutError,
} from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { peer } from "../support/peer.ts";
import { Far, packet, rejection, turns } from "../support/wire.ts";

const hello = Buffer.from("hello");

function connect(options?: DrpcConnOptions, far: Far = new Far()): { far: Far; conn: DrpcConn } {
  return { far, conn: new DrpcConn(far.near, options) };
}

test("a unary call is one socket write, and resolves with the one response", async () => {
  const { far, conn } = connect();
  const response = conn.invoke(peer.echo, hello, { metadata: { k: "v" } });
  assert.deepEqual((await far.got(4)).slice(1), ["invoke 1/2 /test.Peer/Echo", "message 1/3 hello", "closeSend 1/4"]);
  assert.equal(far.chunks.length, 1);
  far.send(packet("message", 1, 1, "hi"), packet("closeSend", 1, 2));
  assert.equal((await response).toString(), "hi");
  assert.equal(conn.unblocked(), undefined);
});

test("what a stream sends in one tick is one socket write", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.chat);
  void stream.send(hello);
  void stream.send(hello);
  await turns();
  assert.deepEqual(far.packets, ["invoke 1/1 /test.Peer/ChatStream", "message 1/2 hello", "message 1/3 hello"]);
  assert.equal(far.chunks.length, 1);
});

test("the header stands in front of the first write, and of no other", async () => {
  for (const [header, text] of [
    [true, "DRPC!!!1"],
    ["MINE", "MINE"],
  ] as const) {
    const { far, conn } = connect({ header });
    const first = conn.invoke(peer.echo, hello);
    await turns();
    assert.equal(Buffer.concat(far.chunks).toString("latin1", 0, text.length), text);
    far.chunks.length = 0;
    far.send(packet("message", 1, 1), packet("closeSend", 1, 2));
    await first;
    void conn.invoke(peer.echo, hello).catch(() => {});
    await turns();
    assert.equal(far.packets[0], "invoke 2/1 /test.Peer/Echo");
    await conn.close();
  }
});

test("row 4: the conn takes the next RPC before the last one's caller hears of its end", async () => {
  const { far, conn } = connect();
  const order: string[] = [];
  const response = conn
    .invoke(peer.echo, hello)
    .then(() => order.push(`invoke, free: ${conn.unblocked() === undefined}`));
  await far.got(3);
  assert(conn.unblocked());
  far.send(packet("message", 1, 1), packet("closeSend", 1, 2));
  await response;
  const stream = await conn.newStream(peer.count);
  void stream.closed.then(() => order.push(`closed, free: ${conn.unblocked() === undefined}`));
  await stream.closeSend(hello);
  far.send(packet("message", 2, 1, "a"), packet("message", 2, 2, "b"), packet("closeSend", 2, 3));
  for await (const message of stream) order.push(message.toString());
  order.push("done");
  assert.deepEqual(order, ["invoke, free: true", "closed, free: true", "a", "b", "done"]);
});

test("a second RPC on a conn that runs one is refused, and the first goes on", async () => {
  const { far, conn } = connect();
  const first = conn.invoke(peer.echo, hello);
  assert((await rejection(conn.invoke(peer.echo, hello))) instanceof DrpcBusyError);
  assert((await rejection(conn.newStream(peer.echo))) instanceof DrpcBusyError);
  far.send(packet("message", 1, 1, "hi"), packet("closeSend", 1, 2));
  assert.equal((await first).toString(), "hi");
});

test("a unary RPC has exactly one response", async () => {
  const { far, conn } = connect();
  let response = conn.invoke(peer.echo, hello);
  far.send(packet("message", 1, 1), packet("message", 1, 2), packet("closeSend", 1, 3));
  await assert.rejects(response, { name: "DrpcError", message: /more than one response/ });
  assert.equal((await far.got(4)).at(-1), "cancel! 1/4");

  for (const [stream, end] of [[2, "closeSend"] as const, [3, "close"] as const]) {
    response = conn.invoke(peer.echo, hello);
    far.send(packet(end, stream, 1));
    await assert.rejects(response, { name: "DrpcError", message: /without a response/ });
  }

  response = conn.invoke(peer.echo, hello);
  far.send(packet("message", 4, 1, "kept"), packet("close", 4, 2));
  assert.equal((await response).toString(), "kept", "a close ends the RPC, too");
});

test("an error of the server rejects with message and code, after the messages before it", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.count);
  const code = Buffer.from([0, 0, 0, 0, 0, 0, 0, 7]);
  far.send(packet("message", 1, 1, "a"), packet("error", 1, 2, Buffer.concat([code, hello])));
  const seen: string[] = [];
  const error = await rejection(
    (async () => {
      for await (const message of stream) seen.push(message.toString());
    })(),
  );
  assert(error instanceof DrpcError);
  assert.deepEqual([seen, error.message, error.code], [["a"], "hello", 7]);
  assert.equal(await rejection(stream.send(hello)), error, "`send` rejects with the same");
  await stream.closeSend();
  assert.equal(conn.unblocked(), undefined);
});

test("row 45: an abort rejects with the signal's reason, untouched, and a soft cancel leaves the conn free", async () => {
  const { far, conn } = connect();
  for (const reason of [new Error("enough"), null, "text"]) {
    const controller = new AbortController();
    const response = conn.invoke(peer.echo, hello, { signal: controller.signal });
    controller.abort(reason);
    assert.equal(conn.unblocked(), undefined);
    assert.equal(await rejection(response), reason);
  }
  assert.equal((await far.got(12))[3], "cancel! 1/4");
  const aborted = await rejection(conn.invoke(peer.echo, hello, { signal: AbortSignal.abort("before") }));
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
  assert.equal(await rejection(stream[Symbol.asyncIterator]().next()), "enough");
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

test("timeoutMs cancels the RPC with a DrpcTimeoutError", async () => {
  const { far, conn } = connect();
  const error = await rejection(conn.invoke(peer.echo, hello, { timeoutMs: 5 }));
  assert(error instanceof DrpcTimeoutError);
  assert.equal((await far.got(4)).at(-1), "cancel! 1/4");
  const stream = await conn.newStream(peer.chat, { timeoutMs: 5 });
  assert((await rejection(stream[Symbol.asyncIterator]().next())) instanceof DrpcTimeoutError);
  await stream.closed;
  for (const timeoutMs of [0, -1, Number.NaN]) {
    await assert.rejects(conn.invoke(peer.echo, hello, { timeoutMs }), { code: "ERR_POOL_ARGUMENT" });
  }
  assert.equal(conn.unblocked(), undefined);
});

test("hazard 5: a conn is blocked until a cancelled RPC's bytes have left", async () => {
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

test("hazard 5: a conn that stays blocked is closed after maxBlockedMs", async () => {
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

test("row 6: an idle conn notices the peer's end at once, and its error", async () => {
  for (const end of [(far: Far) => far.end(), (far: Far) => far.near.destroy(new Error("ECONNRESET"))]) {
    const { far, conn } = connect();
    end(far);
    await conn.closed;
    const error = await rejection(conn.invoke(peer.echo, hello));
    assert(error instanceof ConnClosedError);
    assert.deepEqual([error.reason, error.sent], ["died", false]);
  }
});

test("a conn that dies under an RPC: closed first, then sent is true and the cause is the socket's error", async () => {
  const { far, conn } = connect();
  const order: string[] = [];
  const reset = new Error("reset");
  const response = conn.invoke(peer.echo, hello);
  void conn.closed.then(() => order.push("closed"));
  void response.catch(() => order.push("rejected"));
  far.near.destroy(reset);
  const error = await rejection(response);
  assert(error instanceof ConnClosedError);
  assert.deepEqual([error.reason, error.sent, error.cause], ["died", true, reset]);
  assert.deepEqual(order, ["closed", "rejected"]);
});

test("close() ends what runs, is idempotent and resolves when the duplex is destroyed", async () => {
  const { far, conn } = connect();
  const response = conn.invoke(peer.echo, hello);
  const both = Promise.all([conn.close(), conn.close()]);
  const error = await rejection(response);
  assert(error instanceof ConnClosedError);
  assert.deepEqual([error.reason, error.sent], ["handle", true]);
  await both;
  assert(far.near.destroyed);
  await conn.close();
  assert.equal(conn.unblocked(), undefined);
});

test("a duplex that is dead already makes a conn that is closed", async () => {
  const far = new Far();
  far.near.destroy();
  const conn = new DrpcConn(far.near);
  assert(((await rejection(conn.invoke(peer.echo, hello))) as ConnClosedError).sent === false);
  await conn.closed;
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

test("a stream has one consumer", async () => {
  const { conn } = connect();
  const stream = await conn.newStream(peer.count);
  stream[Symbol.asyncIterator]();
  assert.throws(() => stream[Symbol.asyncIterator](), { code: "ERR_POOL_ARGUMENT" });
});

test("after closeSend nothing can be sent; saying it twice is saying it once", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.collect);
  await stream.closeSend(hello);
  await stream.closeSend();
  await assert.rejects(stream.send(hello), { message: /closeSend\(\) was called/ });
  await assert.rejects(stream.closeSend(hello), { message: /closeSend\(\) was called/ });
  assert.equal((await far.got(3)).length, 3);
});

test("when the server has said its last, reading to the end says ours and frees the conn", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.chat);
  far.send(packet("message", 1, 1, "bye"), packet("closeSend", 1, 2));
  await turns();
  await stream.send(hello); // a half-closed RPC still takes messages
  for await (const message of stream) assert.equal(message.toString(), "bye");
  assert.equal(conn.unblocked(), undefined);
  assert.equal((await far.got(3)).at(-1), "closeSend 1/3");
});

test("an error of serializing or deserializing rejects its RPC only", async () => {
  const { far, conn } = connect();
  const broken = (): never => {
    throw new Error("broken");
  };
  await assert.rejects(conn.invoke({ ...peer.echo, requestSerialize: broken }, hello), { message: "broken" });
  const text = { ...peer.echo, requestSerialize: () => "text" as unknown as Uint8Array };
  await assert.rejects(conn.invoke(text, hello), { code: "ERR_POOL_ARGUMENT" });
  await assert.rejects(conn.invoke({ ...peer.echo, path: undefined as unknown as string }, hello), TypeError);
  const response = conn.invoke({ ...peer.echo, responseDeserialize: broken }, hello);
  far.send(packet("message", 1, 1), packet("closeSend", 1, 2));
  await assert.rejects(response, { message: "broken" });
  const stream = await conn.newStream({ ...peer.count, responseDeserialize: broken });
  far.send(packet("message", 2, 1));
  await assert.rejects(stream[Symbol.asyncIterator]().next(), { message: "broken" });
  await stream.closed;
  assert.equal(conn.unblocked(), undefined);
});

test("send waits for room in the socket", async () => {
  const { far, conn } = connect({}, new Far({ deaf: true, highWaterMark: 1024 }));
  const stream = await conn.newStream(peer.collect);
  let room = false;
  const sent = stream.send(Buffer.alloc(100_000)).then(() => {
    room = true;
  });
  await turns();
  assert.equal(room, false);
  far.listen();
  await sent;
});

test("hazard 15: past the high-water mark the peer is stopped, and goes on when the consumer has caught up", async () => {
  const { far, conn } = connect({ highWaterBytes: 10_000 }, new Far({ highWaterMark: 1000 }));
  const stream = await conn.newStream(peer.count);
  let sent = 0;
  const pump = (async () => {
    while (sent < 300) if (!far.send(packet("message", 1, ++sent, Buffer.alloc(1000)))) await far.room();
    far.send(packet("closeSend", 1, 301));
  })();
  await turns(20);
  assert(sent < 30, `the peer got rid of ${sent} messages that nobody read`);
  let seen = 0;
  for await (const message of stream) {
    seen += message.length;
    if (seen % 50_000 === 0) await turns(1);
    if (seen === 300_000) await stream.closeSend();
  }
  await pump;
  assert.equal(seen, 300_000);
});

test("a consumer that lags behind an ended RPC does not stop the next one", async () => {
  const { far, conn } = connect({ highWaterBytes: 100 });
  const old = await conn.newStream(peer.count);
  await old.closeSend(hello);
  far.send(packet("message", 1, 1, "a".repeat(200)), packet("message", 1, 2, "b"), packet("closeSend", 1, 3));
  await turns();
  const messages = old[Symbol.asyncIterator]();
  assert.equal((await messages.next()).value?.length, 200);
  await old.closed;
  const next = conn.invoke(peer.echo, hello);
  far.send(packet("message", 2, 1, "next"), packet("closeSend", 2, 2));
  assert.equal((await next).toString(), "next");
  assert.equal((await messages.next()).value?.toString(), "b");
  assert.equal((await messages.next()).done, true);
});

test("unknown control packets are ignored; what breaks the protocol ends the conn with a typed error", async () => {
  const { far, conn } = connect();
  const response = conn.invoke(peer.echo, hello);
  far.send({ ...packet(42, 1, 1), control: true }, { ...packet(42, 9, 1), control: true });
  await turns();
  assert(conn.unblocked());
  await conn.close();
  await rejection(response);

  for (const bad of [
    packet(42, 1, 1),
    packet("invoke", 1, 1),
    packet("invokeMetadata", 1, 1),
    packet("message", 2, 1),
    packet("message", 1, 0),
  ]) {
    const { far, conn } = connect();
    const response = conn.invoke(peer.echo, hello);
    far.send(bad);
    const error = await rejection(response);
    assert(error instanceof ConnClosedError);
    assert(error.cause instanceof DrpcProtocolError);
    assert.equal(error.sent, true);
    await conn.closed;
  }
});

test("options are checked at once, and unknown names refused", () => {
  const bad: Record<string, unknown>[] = [
    { nope: 1 },
    { cancel: "medium" },
    { maxPacketBytes: -1 },
    { splitBytes: 1.5 },
    { highWaterBytes: "1" },
    { maxBlockedMs: Number.NaN },
    { header: 1 },
    { header: "€" },
  ];
  for (const options of bad) {
    assert.throws(() => new DrpcConn(new Far().near, options), { code: "ERR_POOL_ARGUMENT" }, JSON.stringify(options));
  }
});
