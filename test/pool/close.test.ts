import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, rejection, soon } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

nothingUnheard();

const failing = (message: string) => () => Promise.reject(new Error(message));
const never = new Promise<void>(() => {});

function messages(error: unknown): string[] {
  assert.ok(error instanceof AggregateError);
  return error.errors.map((one) => (one as Error).message);
}

test("close closes idle conns, oldest first, across all keys", async (t) => {
  const { pool } = pooled(t);
  const closed: string[] = [];
  for (const name of ["x1", "y1", "x2", "z1"]) {
    pool.put(name.slice(0, 1), new ScriptedConn({ close: () => closed.push(name) }));
  }
  pool.tryAcquire("y")?.release(); // now y1 is the youngest
  await pool.close();
  assert.deepEqual(closed, ["x1", "x2", "z1", "y1"]);
  assert.equal(pool.stats().closed.pool, 4);
});

test("an RPC that runs when the pool closes finishes, and its caller gets the answer", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const running = call(pool.get("k", dial));
  await settle();
  const closing = pool.close();
  for (const one of dial.conns[0]?.calls ?? []) one.answer("in time");
  assert.equal(await running, "in time");
  await closing;
});

test("on close waiters fail with a typed error, at once, and so do later calls", async (t) => {
  const { pool } = pooled<Conn>(t, { maxKeyConns: 1 });
  const dial = scriptedDial();
  const handle = pool.get("k", dial);
  const held = await pool.acquire("k", { dial });
  const waiting = [call(handle), pool.acquire("k", { dial }), pool.use("k", async () => "never", { dial })];
  const dialing = scriptedDial({}, { manual: true });
  const forDial = pool.acquire("other", { dial: dialing });
  const closing = pool.close();
  for (const waiter of [...waiting, forDial]) {
    const error = await rejection(waiter);
    assert.deepEqual([error.name, "code" in error && error.code], ["PoolClosedError", "ERR_POOL_CLOSED"]);
  }
  assert.equal(dialing.pending[0]?.signal.aborted, true);
  const later = [call(handle), pool.acquire("k"), pool.use("k", async () => "never"), call(pool.get("new", dial))];
  for (const caller of later) assert.equal((await rejection(caller)).name, "PoolClosedError");
  assert.throws(() => pool.tryAcquire("k"), { code: "ERR_POOL_CLOSED" });
  assert.equal(pool.take("k"), undefined);
  assert.equal(dial.count, 1);
  held.release();
  await closing;
});

test("leases finish within the grace period, which idle conns do not wait for; then everything closes", async (t) => {
  const { pool, clock } = pooled(t);
  const dial = scriptedDial({ maxStreams: 2 });
  const inTime = await pool.acquire("in time", { dial });
  const tooLate = await pool.acquire("too late", { dial });
  const idle = await pool.acquire("idle", { dial });
  idle.release();
  const closing = pool.close({ graceMs: 1000 });
  const state = outcome(closing);
  const closes = () => dial.conns.map((conn) => conn.closes);
  assert.deepEqual(closes(), [0, 0, 1]); // what runs goes on
  assert.equal(pool.stats().draining, 2);
  await clock.advance(500);
  inTime.release();
  assert.deepEqual(closes(), [1, 0, 1]);
  await clock.advance(499);
  assert.deepEqual([closes(), state.state], [[1, 0, 1], "pending"]);
  await clock.advance(1);
  assert.deepEqual([closes(), state.state], [[1, 1, 1], "resolved"]);
  tooLate.release();
  assert.deepEqual([closes(), clock.timers], [[1, 1, 1], 0]);
});

test("the grace is 30 s unless told otherwise; 0 is at once; a second, shorter one counts", async (t) => {
  for (const [grace, second, ms] of [
    [undefined, undefined, 30_000],
    [0, undefined, 0],
    [undefined, 100, 100],
    [100, 5000, 100],
    [500, 0, 0],
  ] as const) {
    const { pool, clock } = pooled(t, { dial: scriptedDial() });
    const { conn } = await pool.acquire("k");
    const closing = pool.close(grace === undefined ? {} : { graceMs: grace });
    if (second !== undefined) assert.equal(pool.close({ graceMs: second }), closing, "closing twice is one close");
    const state = outcome(closing);
    if (ms > 0) {
      await clock.advance(ms - 1);
      assert.deepEqual([state.state, conn.closes], ["pending", 0], `${grace} ${second}`);
      await clock.advance(1);
    }
    assert.equal(conn.closes, 1, `${grace} ${second}`);
    await soon(closing);
    await pool.close(); // again, when all is over
    assert.equal(conn.closes, 1);
  }
});

test("giving back after close closes the conn, once", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 2 });
  const [one, two] = [await lease("k", dial), await lease("k", dial)];
  const closing = pool.close();
  one.release();
  assert.equal(dial.conns[0]?.closes, 0);
  two.release();
  two.release();
  assert.equal(dial.conns[0]?.closes, 1);
  await closing;
  assert.deepEqual([pool.stats().open, [...pool.keys()]], [0, []]);
});

test("a dial that arrives after close is closed, and its late errors harm nobody", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({ close: () => Promise.reject(new Error("ignored")) }, { manual: true, maxStreams: 1 });
  const asked = [pool.acquire("k", { dial }), pool.acquire("k", { dial })];
  const closing = pool.close();
  for (const one of asked) await rejection(one);
  await closing;
  const conn = dial.pending[0]?.arrive();
  dial.pending[1]?.fail(new Error("late"));
  await settle();
  assert.equal(conn?.closes, 1);
});

test("close reports every close error together, even one alone", async (t) => {
  for (const failing of [1, 3]) {
    const { pool } = pooled(t);
    const errors = Array.from({ length: failing }, (_, i) => new Error(`failure ${i}`));
    for (const error of errors) {
      pool.put("k", new ScriptedConn({ close: () => Promise.reject(error) }));
      pool.put("k", new ScriptedConn());
    }
    const thrown = await rejection(pool.close());
    assert.ok(thrown instanceof AggregateError);
    assert.deepEqual(thrown.errors, errors);
    assert.equal(pool.stats().open, 0); // all are closed nevertheless
  }
});

test("the errors of conns that close within the grace, or at its end, are among those that close reports", async (t) => {
  const { pool, clock } = pooled(t);
  const errors = [new Error("released in time"), new Error("cut")];
  const leases = await Promise.all(
    errors.map((error) => pool.acquire("k", { dial: () => new ScriptedConn({ close: () => Promise.reject(error) }) })),
  );
  const closing = pool.close({ graceMs: 100 });
  const state = outcome(closing);
  leases[0]?.release();
  await clock.advance(99);
  assert.equal(state.state, "pending");
  await clock.advance(1);
  const thrown = await rejection(closing);
  assert.ok(thrown instanceof AggregateError);
  assert.deepEqual(thrown.errors, errors);
});

test("a close() that throws at once is among the reported errors, and stops nothing", async (t) => {
  const { pool } = pooled<{ close(): unknown; closed: Promise<void> }>(t);
  const error = new Error("thrown");
  let others = 0;
  const closed = new Promise<void>(() => {});
  const failing = {
    closed,
    close: () => {
      throw error;
    },
  };
  pool.put("k", failing);
  pool.put("k", { closed, close: () => others++ });
  const thrown = await rejection(pool.close());
  assert.ok(thrown instanceof AggregateError);
  assert.deepEqual([thrown.errors, others], [[error], 1]);
});

test("what was evicted before is not among the reported errors, nor is its pending close() waited for", async (t) => {
  const { pool } = pooled(t, { capacity: 1 });
  pool.put("a", new ScriptedConn({ close: failing("before") }));
  pool.put("b", new ScriptedConn({ close: () => never }));
  pool.put("c", new ScriptedConn());
  await settle();
  await soon(pool.close());
});

test("a conn whose close() is still pending after 5 s counts as failed, and the others do not wait longer", async (t) => {
  const { pool, clock } = pooled(t);
  pool.put("a", new ScriptedConn({ close: () => never }));
  pool.put("b", new ScriptedConn());
  const closing = outcome(pool.close());
  await clock.advance(4999);
  assert.equal(closing.state, "pending");
  await clock.advance(1);
  await settle();
  assert.equal(messages(closing.error).length, 1);
  assert.match(messages(closing.error)[0] ?? "", /5000|5 s/);
  assert.equal(clock.timers, 0);
});

test("the patience of 5 s begins with each conn's close(), not with the pool's", async (t) => {
  const { pool, clock } = pooled(t);
  pool.put("a", new ScriptedConn({ close: () => never }));
  const lease = await pool.acquire("a");
  const closing = outcome(pool.close({ graceMs: 60_000 }));
  await clock.advance(20_000);
  lease.release();
  await clock.advance(4999);
  assert.equal(closing.state, "pending");
  await clock.advance(1);
  await settle();
  assert.equal(closing.state, "rejected");
});

test("a close() that comes back after its 5 s, with an error, is heard by nobody and harms nobody", async (t) => {
  const { pool, clock } = pooled(t);
  let fail: (error: unknown) => void = () => {};
  pool.put("a", new ScriptedConn({ close: () => new Promise((_, reject) => (fail = reject)) }));
  const closing = outcome(pool.close());
  await clock.advance(5000);
  await settle();
  fail(new Error("too late"));
  await settle();
  assert.equal(messages(closing.error).length, 1);
});

test("a conn that dies while its close() is pending is closed once, and is no error", async (t) => {
  const { pool } = pooled(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const closing = pool.close();
  conn.die();
  await soon(closing);
  assert.equal(conn.closes, 1);
  assert.equal(pool.stats().closed.pool, 1);
});

test("await using closes the pool", async () => {
  const dial = scriptedDial();
  {
    await using pool = new Pool<string, ScriptedConn>({ clock: new FakeClock(), dial });
    const lease = await pool.acquire("k");
    lease.release();
  }
  assert.equal(dial.conns[0]?.closes, 1);
});
