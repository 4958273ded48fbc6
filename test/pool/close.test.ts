import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

test("row 12: close closes idle conns, oldest first, across all keys", async (t) => {
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

test("row 12: and reports every close error together, even one alone", async (t) => {
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

test("row 12: those of conns that close within the grace, or at its end, are among them", async (t) => {
  const { pool, clock } = pooled(t);
  const errors = [new Error("released in time"), new Error("cut")];
  const leases = await Promise.all(
    errors.map((error) => pool.acquire("k", { dial: () => new ScriptedConn({ close: () => Promise.reject(error) }) })),
  );
  const closing = rejection(pool.close({ graceMs: 100 }));
  leases[0]?.release();
  await clock.advance(100);
  const thrown = await closing;
  assert.ok(thrown instanceof AggregateError);
  assert.deepEqual(thrown.errors, errors);
});

test("row 12: a close() that throws at once is one of them, and stops nothing", async (t) => {
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

test("row 12: a conn whose close() hangs counts as failed after 5 seconds", async (t) => {
  const { pool, clock } = pooled(t);
  const never = deferred();
  pool.put("k", new ScriptedConn({ close: () => never.promise }));
  pool.put("k", new ScriptedConn());
  const closing = pool.close();
  const state = outcome(closing);
  await clock.advance(4999);
  assert.equal(state.state, "pending");
  await clock.advance(1);
  const error = await rejection(closing);
  assert.ok(error instanceof AggregateError);
  assert.equal(error.errors.length, 1);
});

test("row 38: on close waiters fail with a typed error, at once, and so do later calls", async (t) => {
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
  assert.equal(dial.count, 1);
  held.release();
  await closing;
});

test("row 38: leases finish within the grace period, then everything closes", async (t) => {
  const { pool, clock } = pooled(t);
  const dial = scriptedDial({ maxStreams: 2 });
  const inTime = await pool.acquire("in time", { dial });
  await pool.acquire("too late", { dial });
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
});

test("row 38: the default grace is 30 seconds; 0 closes at once", async (t) => {
  const { pool, clock, lease } = pooled(t);
  const dial = scriptedDial();
  await lease("k", dial);
  const closing = outcome(pool.close());
  await clock.advance(29_999);
  assert.deepEqual([closing.state, dial.conns[0]?.closes], ["pending", 0]);
  await clock.advance(1);
  assert.deepEqual([closing.state, dial.conns[0]?.closes], ["resolved", 1]);

  const impatient = pooled(t);
  await impatient.lease("k", dial);
  await impatient.pool.close({ graceMs: 0 });
  assert.equal(dial.conns[1]?.closes, 1);
});

test("row 38: closing twice is one close, and a shorter grace then counts", async (t) => {
  const { pool, clock, lease } = pooled(t);
  const dial = scriptedDial();
  (await lease("idle", dial)).release();
  await lease("k", dial);
  const closings = [pool.close({ graceMs: 10_000 }), pool.close({ graceMs: 60_000 }), pool.close({ graceMs: 1000 })];
  await clock.advance(999);
  assert.deepEqual(
    dial.conns.map((conn) => conn.closes),
    [1, 0],
  );
  await clock.advance(1);
  await Promise.all(closings);
  assert.deepEqual(
    dial.conns.map((conn) => conn.closes),
    [1, 1],
  );
  await pool.close();
});

test("row 38: giving back after close closes the conn, once", async (t) => {
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

test("row 38: an RPC that runs when the pool closes finishes, and its caller gets the answer", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const running = call(pool.get("k", dial));
  await settle();
  const closing = pool.close();
  for (const one of dial.conns[0]?.calls ?? []) one.answer("in time");
  assert.equal(await running, "in time");
  await closing;
});

test("row 38: a dial that arrives after close is closed, and its late errors harm nobody", async (t) => {
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

test("row 45: await using closes the pool", async () => {
  const dial = scriptedDial();
  {
    await using pool = new Pool<string, ScriptedConn>({ clock: new FakeClock(), dial });
    const lease = await pool.acquire("k");
    lease.release();
  }
  assert.equal(dial.conns[0]?.closes, 1);
});
