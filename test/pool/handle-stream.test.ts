import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallOptions, Conn, Rpc, Stream } from "../../src/contract.ts";
import { isPoolError } from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

const answered = { answer: () => "world" };

/** Ways in which a caller learns that a stream has ended. */
const ends: Record<string, (stream: Stream<string, string>) => Promise<unknown>> = {
  "its closed settles": (stream) => {
    void stream.close();
    return stream.closed;
  },
  "its close() resolves": (stream) => stream.close(),
  "it is disposed of": async (stream) => stream[Symbol.asyncDispose](),
  "its iterator returns": async (stream) => stream[Symbol.asyncIterator]().return?.(),
  "the loop over its responses ends": async (stream) => {
    setImmediate(() => void stream.close());
    for await (const message of stream) assert.fail(message);
  },
};

for (const [way, end] of Object.entries(ends)) {
  test(`row 4: when ${way}, the conn is back already: call again, and nothing is dialed`, async (t) => {
    const { pool } = pooled<Conn>(t);
    const dial = scriptedDial(answered);
    const handle = pool.get("a", dial);
    const stream = await handle.newStream(echo);
    assert.equal(pool.stats().streams, 1);
    assert.equal(pool.tryAcquire("a"), undefined); // the slot is the stream's
    await end(stream);
    const lease = pool.tryAcquire("a"); // synchronous: nothing may be left to happen
    assert.notEqual(lease, undefined);
    lease?.release();
    await call(handle);
    assert.equal(dial.count, 1);
  });
}

/** Its streams end, and their `closed` settles a few microtasks later. */
class Lagging extends ScriptedConn {
  override async newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    const stream = await super.newStream<I, O>(rpc, options);
    let { closed } = stream;
    for (let i = 0; i < 20; i++) closed = closed.then(() => {});
    return Object.assign(stream, { closed });
  }
}

for (const [way, end] of Object.entries(ends)) {
  test(`row 4: when ${way}, the conn is back, even where the transport takes its time`, async (t) => {
    const { pool } = pooled<Conn>(t);
    const handle = pool.get("a", () => new Lagging(answered));
    await end(await handle.newStream(echo));
    assert.notEqual(pool.tryAcquire("a"), undefined);
  });
}

test("row 4: a stream that fails gives its conn back before its iterator throws, and its closed resolves", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const stream = await pool.get("a", dial).newStream(echo);
  const next = stream[Symbol.asyncIterator]().next();
  const seen = next.then(
    () => "no error",
    (error: Error) => `${error.message}, ${pool.stats().streams} streams`,
  );
  for (const running of dial.conns[0]?.calls ?? []) running.fail(new Error("broken"));
  assert.equal(await seen, "broken, 0 streams");
  await stream.closed;
  assert.equal(pool.stats().idle, 1);
});

test("row 4: a stream holds one slot for its whole life, and gives it back once", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial({ maxStreams: 3 });
  const handle = pool.get("a", dial);
  const streams = [await handle.newStream(echo), await handle.newStream(echo)];
  assert.equal(pool.stats().streams, 2);
  for (let i = 0; i < 3; i++) await streams[0]?.close();
  assert.equal(pool.stats().streams, 1);
  await streams[1]?.close();
  assert.deepEqual([pool.stats().streams, pool.stats().idle, dial.count], [0, 1, 1]);
});

test("row 5: a handle's close stops later calls on it and leaves what runs, other handles and conns alone", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const [one, other] = [pool.get("a", dial), pool.get("a", dial)];
  const running = call(one);
  await settle();
  await one.close();
  await one.close(); // idempotent
  await one.closed;
  for (const refused of [call(one), one.newStream(echo)]) {
    const error = await rejection(refused);
    assert.ok(isPoolError(error) && "reason" in error && "sent" in error);
    assert.deepEqual([error.code, error.reason, error.sent], ["ERR_POOL_CONN_CLOSED", "handle", false]);
  }
  const conn = dial.conns[0];
  assert.equal(conn?.closes, 0);
  for (const call of conn?.calls ?? []) call.answer("finished");
  assert.equal(await running, "finished"); // what ran goes on
  const again = call(other);
  await settle();
  for (const call of conn?.calls ?? []) call.answer("other");
  assert.equal(await again, "other"); // on the same conn
  assert.equal(dial.count, 1);
});

test("row 5: a call that waits when its handle is closed goes on: it began before", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true });
  const handle = pool.get("a", dial);
  const waiting = call(handle);
  await handle.close();
  dial.pending[0]?.arrive();
  assert.equal(await waiting, "world");
});

test("row 5: a handle is never blocked, even where its key's conns are", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered);
  const handle = pool.get("a", dial);
  assert.equal(handle.unblocked(), undefined);
  await call(handle);
  for (const conn of dial.conns) conn.blockedUntil = new Promise(() => {});
  await call(handle);
  assert.equal(dial.count, 2); // the blocked one was skipped
  assert.equal(handle.unblocked(), undefined);
});
