import assert from "node:assert/strict";
import { test } from "node:test";
import { DrpcError } from "../../src/drpc/index.ts";
import { turns } from "../support/clock.ts";
import { rejection } from "../support/outcome.ts";
import { peer } from "../support/peer.ts";
import { connect, Far, packet } from "../support/wire.ts";

const hello = Buffer.from("hello");

test("what a stream sends in one tick is one socket write", async () => {
  const { far, conn } = connect();
  const stream = await conn.newStream(peer.chat);
  void stream.send(hello);
  void stream.send(hello);
  await turns();
  assert.deepEqual(far.packets, ["invoke 1/1 /test.Peer/ChatStream", "message 1/2 hello", "message 1/3 hello"]);
  assert.equal(far.chunks.length, 1);
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

test("past the high-water mark the peer is stopped, and goes on when the consumer has caught up", async () => {
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
