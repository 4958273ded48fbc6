import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallOptions, Conn, Rpc, Stream } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { answered, deferred, echo, running, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";
import { call, pooled, single } from "../support/pool.ts";

nothingUnheard();

/** Each way in which a caller learns that a stream has ended. */
const ends: Record<string, (stream: Stream<string, string>, conn: ScriptedConn) => PromiseLike<unknown> | undefined> = {
  "its closed settles after a close": (stream) => {
    void stream.close();
    return stream.closed;
  },
  "its closed settles after a failure": (stream, conn) => {
    running(conn).fail(new Error("no"));
    return stream.closed;
  },
  "its close() resolves": (stream) => stream.close(),
  "it is disposed of": (stream) => stream[Symbol.asyncDispose](),
  "its iterator returns": (stream) => stream[Symbol.asyncIterator]().return?.(),
  "its iterator ends": (stream, conn) => {
    const next = stream[Symbol.asyncIterator]().next();
    running(conn).answer(undefined);
    return next;
  },
  "its iterator throws": (stream, conn) => {
    const next = stream[Symbol.asyncIterator]().next();
    running(conn).fail(new Error("no"));
    return next;
  },
  "the loop over its responses ends": async (stream) => {
    setImmediate(() => void stream.close());
    for await (const message of stream) assert.fail(message);
  },
};

for (const [way, end] of Object.entries(ends)) {
  test(`when ${way}, the slot is free: whoever calls again at that moment dials nothing`, async (t) => {
    const { pool, conn, dial, handle } = await single(t);
    const stream = await handle.newStream(echo);
    assert.equal(pool.stats().streams, 1);
    assert.equal(pool.tryAcquire("k"), undefined); // the slot is the stream's
    const learnt: string[] = [];
    const learn = (how: string) => {
      learnt.push(how);
      const lease = pool.tryAcquire("k"); // synchronous: nothing may be left to happen
      assert.equal(lease?.conn, conn);
      lease?.release();
    };
    await end(stream, conn)?.then(
      () => learn("it has ended"),
      () => learn("it has failed"),
    );
    assert.deepEqual(learnt, [way === "its iterator throws" ? "it has failed" : "it has ended"]);
    await settle();
    assert.deepEqual([pool.stats().streams, dial.count, conn.closes], [0, 1, 0]);
    const again = call(handle);
    running(conn).answer("y");
    assert.equal(await again, "y");
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
  test(`when ${way}, the slot is free, even where the transport takes its time`, async (t) => {
    const { pool } = pooled<Conn>(t);
    const conn = new Lagging();
    const stream = await pool.get("a", () => conn).newStream(echo);
    await end(stream, conn)?.then(undefined, () => {});
    assert.notEqual(pool.tryAcquire("a"), undefined);
  });
}

/** A stream whose `closed` settles so many microtasks after its iterator has ended with `end`. */
function late(end: () => Promise<IteratorResult<never, undefined>>, microtasks: number): Stream<never, never> {
  const closed = deferred();
  const next = () => {
    let left = microtasks;
    const step = () => (left-- > 0 ? queueMicrotask(step) : closed.resolve());
    step();
    return end();
  };
  const none = async () => {};
  return {
    closed: closed.promise,
    send: none,
    closeSend: none,
    close: none,
    [Symbol.asyncDispose]: none,
    [Symbol.asyncIterator]: () => ({ next }),
  };
}

test("the slot is free when the iterator throws or ends, though the stream's closed comes later", async (t) => {
  const { pool, conn, handle } = await single(t);
  const free: boolean[] = [];
  const learn = () => void free.push(pool.stats().streams === 0);
  for (const end of [
    () => Promise.reject(new Error("no")),
    () => Promise.resolve({ done: true as const, value: undefined }),
  ]) {
    Object.assign(conn, { newStream: async () => late(end, 20) });
    const stream = await handle.newStream(echo);
    await stream[Symbol.asyncIterator]().next().then(learn, learn);
    await settle();
  }
  assert.deepEqual(free, [true, true]);
});

test("a stream that fails gives its conn back before its iterator throws, and its closed resolves", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const stream = await pool.get("a", dial).newStream(echo);
  const next = stream[Symbol.asyncIterator]().next();
  const seen = next.then(
    () => "no error",
    (error: Error) => `${error.message}, ${pool.stats().streams} streams`,
  );
  running(dial.conns[0]).fail(new Error("broken"));
  assert.equal(await seen, "broken, 0 streams");
  await stream.closed;
  assert.equal(pool.stats().idle, 1);
});

test("a stream holds one slot for its whole life, and gives it back once", async (t) => {
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

test("a stream that ends in several ways at once gives its slot back once", async (t) => {
  const { pool, conn, handle } = await single(t);
  const stream: Stream<string, string> = await handle.newStream(echo);
  const iterator = stream[Symbol.asyncIterator]();
  const next = iterator.next();
  const all = Promise.allSettled([next, stream.close(), stream.closed, iterator.return?.(), stream.close()]);
  await all;
  const held = await pool.acquire("k");
  await stream.close();
  await settle();
  assert.equal(pool.stats().streams, 1, "the next stream's slot is its own");
  assert.equal(held.conn, conn);
  held.release();
});

test("a failed newStream gives its conn back before it rejects", async (t) => {
  const { pool } = pooled<Conn>(t);
  class NoStreams extends ScriptedConn {
    override newStream<I, O>(_rpc: Rpc<I, O>): Promise<Stream<I, O>> {
      return Promise.reject(new Error("no streams"));
    }
  }
  const conns: ScriptedConn[] = [];
  const handle = pool.get("a", () => {
    const conn = new NoStreams(answered);
    conns.push(conn);
    return conn;
  });
  await call(handle);
  const free = await handle.newStream(echo).catch((error: Error) => {
    assert.equal(error.message, "no streams");
    assert.equal(pool.stats().streams, 0);
    const lease = pool.tryAcquire("a");
    lease?.release();
    return lease !== undefined;
  });
  assert.equal(free, true);
  assert.equal(pool.stats().idle, 1);
  await rejection(handle.newStream(echo));
  await call(handle);
  assert.equal(conns.length, 1);
});

test("a conn whose newStream brings no stream fails that call, and keeps no slot", async (t) => {
  const { conn, pool, handle } = await single(t);
  conn.newStream = () => Promise.resolve(undefined as never);
  assert.equal((await rejection(handle.newStream(echo))).name, "TypeError");
  assert.deepEqual([pool.stats().streams, pool.stats().idle], [0, 1]);
});
