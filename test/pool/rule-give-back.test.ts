import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, Stream } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, echo, type ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

/** A pool with one exclusive conn, and how many streams it runs. */
async function single(): Promise<{ pool: Pool<string, Conn>; conn: ScriptedConn; dials: () => number; handle: Conn }> {
  const dial = scriptedDial();
  const pool = new Pool<string, Conn>({ dial, clock: new FakeClock() });
  (await pool.acquire("k")).release();
  const conn = dial.conns[0];
  assert.ok(conn !== undefined);
  return { pool, conn, dials: () => dial.count, handle: pool.get("k") };
}

type Call = Parameters<ScriptedConn["ended"]>[0] & { answer(value: unknown): void; fail(error: unknown): void };

function running(conn: ScriptedConn): Call {
  const [call] = conn.calls;
  assert.ok(call !== undefined && conn.calls.size === 1);
  return call;
}

/** Each way in which a caller learns that its RPC has ended; `free` is asked at that very moment. */
const ends: Record<string, (handle: Conn, conn: ScriptedConn, learn: () => void) => Promise<void>> = {
  "invoke resolves": async (handle, conn, learn) => {
    const call = handle.invoke(echo, "x").then(learn);
    running(conn).answer("y");
    await call;
  },
  "invoke rejects": async (handle, conn, learn) => {
    const call = handle.invoke(echo, "x").catch(learn);
    running(conn).fail(new Error("no"));
    await call;
  },
  "a stream's closed settles": async (handle, conn, learn) => {
    const stream = await handle.newStream(echo);
    const end = stream.closed.then(learn);
    running(conn).fail(new Error("no"));
    await end;
  },
  "a stream's iterator ends": async (handle, conn, learn) => {
    const stream = await handle.newStream(echo);
    const next = stream[Symbol.asyncIterator]().next().then(learn);
    running(conn).answer(undefined);
    await next;
  },
  "a stream's iterator throws": async (handle, conn, learn) => {
    const stream = await handle.newStream(echo);
    const next = stream[Symbol.asyncIterator]().next().catch(learn);
    running(conn).fail(new Error("no"));
    await next;
  },
  "the loop over a stream is left": async (handle, _conn, learn) => {
    const stream = await handle.newStream(echo);
    await stream[Symbol.asyncIterator]().return?.().then(learn);
  },
  "a stream's close() resolves": async (handle, _conn, learn) => {
    const stream = await handle.newStream(echo);
    await stream.close().then(learn);
  },
  "a stream is disposed of": async (handle, _conn, learn) => {
    const stream = await handle.newStream(echo);
    await stream[Symbol.asyncDispose]().then(learn);
  },
};

for (const [what, end] of Object.entries(ends)) {
  test(`rule: the slot is free when ${what}: whoever calls again at that moment dials nothing`, async () => {
    const { pool, conn, dials, handle } = await single();
    let learnt = 0;
    await end(handle, conn, () => {
      learnt++;
      const lease = pool.tryAcquire("k");
      assert.equal(lease?.conn, conn);
      lease?.release();
    });
    assert.equal(learnt, 1);
    await settle();
    assert.deepEqual([pool.stats().streams, dials(), conn.closes], [0, 1, 0]);
    const again = handle.invoke(echo, "x");
    running(conn).answer("y");
    assert.equal(await again, "y");
    assert.equal(dials(), 1);
  });
}

/** A stream whose `closed` settles `turns` microtasks after its iterator has ended with `end`. */
function late(end: () => Promise<IteratorResult<never, undefined>>, turns: number): Stream<never, never> {
  const closed = deferred();
  const next = () => {
    let left = turns;
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

test("rule: the slot is free when the iterator throws or ends, though the stream's closed comes later", async () => {
  const { pool, conn, handle } = await single();
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

test("rule: the slot is free when newStream rejects", async () => {
  const { pool, conn, handle } = await single();
  conn.newStream = () => Promise.reject(new Error("refused"));
  await handle.newStream(echo).catch(() => assert.equal(pool.stats().streams, 0));
  assert.equal(pool.stats().idle, 1);
});

for (const method of ["invoke", "newStream"] as const) {
  test(`rule: a conn whose ${method} throws, or brings what is none, keeps no slot`, async () => {
    const { pool, conn, handle } = await single();
    const misdeeds: (() => unknown)[] = [
      () => {
        throw new Error("thrown");
      },
      () => undefined,
      () => Promise.resolve(undefined),
      () => Promise.resolve({ closed: 1 }),
    ];
    for (const misdeed of misdeeds) {
      Object.assign(conn, { [method]: misdeed });
      await handle[method](echo, "x" as never).catch(() => {});
      await settle();
      assert.equal(pool.stats().streams, 0);
    }
  });
}

test("rule: a stream that ends in several ways at once gives its slot back once", async () => {
  const { pool, conn, handle } = await single();
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

test("rule: a release gives the slot back before it returns, and only once", async () => {
  const { pool, conn } = await single();
  const first = await pool.acquire("k");
  first.release();
  const second = pool.tryAcquire("k");
  assert.equal(second?.conn, conn);
  first.release();
  first[Symbol.dispose]();
  assert.equal(pool.tryAcquire("k"), undefined, "the second lease still holds the only slot");
  second?.release();
});

test("rule: use gives the slot back whether its function returns, throws or rejects", async () => {
  const { pool } = await single();
  const free = () => pool.stats().streams === 0;
  assert.equal(await pool.use("k", async () => 1), 1);
  assert.ok(free());
  await assert.rejects(
    pool.use("k", () => Promise.reject(new Error("no"))).catch((e) => Promise.reject(free() ? e : 0)),
    /no/,
  );
  await assert.rejects(
    pool.use("k", () => {
      throw new Error("thrown");
    }),
    /thrown/,
  );
  assert.ok(free());
});
