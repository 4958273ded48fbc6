import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

test("clear drains every conn of before: idle ones close at once, the others after their streams", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 2 });
  const running = await lease("a", dial);
  (await lease("b", dial)).release();
  pool.clear();
  const closes = () => dial.conns.map((conn) => conn.closes);
  assert.deepEqual([closes(), pool.stats().draining], [[0, 1], 1]);
  const young = await lease("a", dial); // though the old one has a slot
  assert.equal(young.conn, dial.conns[2]);
  running.release();
  assert.deepEqual([closes(), pool.stats().closed.cleared], [[1, 1, 0], 2]);
  young.release();
  assert.equal(pool.tryAcquire("a")?.conn, young.conn); // what is dialed later is new
});

test("clear(key) leaves the other keys alone", async (t) => {
  const { pool } = pooled(t);
  const [a, b] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("a", a);
  pool.put("b", b);
  pool.clear("a");
  pool.clear("no such key");
  assert.deepEqual([a.closes, b.closes, [...pool.keys()]], [1, 0, ["b"]]);
});

test("clear abandons a dial of before; its waiters stay and get a new dial", async (t) => {
  for (const cleared of ["k", undefined]) {
    const { pool, lease } = pooled(t);
    const dial = manualDial(2);
    const waiting = [lease("k", dial), lease("k", dial)];
    if (cleared === undefined) pool.clear();
    else pool.clear(cleared);
    assert.equal(dial.pending[0]?.signal.aborted, true);
    assert.equal(dial.count, 2);
    const stale = dial.pending[0]?.arrive();
    await settle();
    assert.equal(stale?.closes, 1); // it may lead to where the outage was
    assert.deepEqual(
      waiting.map((one) => outcome(one).state),
      ["pending", "pending"],
    );
    const young = dial.pending[1]?.arrive();
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ conn }) => conn),
      [young, young],
    );
  }
});

test("what was dialed before a clear is not handed out after it, though its dial ends in the same turn", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial });
  const waiter = outcome(pool.acquire("k"));
  const stale = dial.pending[0]?.arrive();
  pool.clear("k");
  await settle();
  assert.deepEqual([waiter.state, stale?.closes, dial.count], ["pending", 1, 2]);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(waiter.state, "resolved");
});

test("a caller served from inside a clear gets no conn of before", async (t) => {
  const { pool } = pooled(t);
  const old = [new ScriptedConn(), new ScriptedConn()];
  let lease: unknown = "none";
  Object.assign(old[0] ?? {}, {
    close: async () => {
      lease = pool.tryAcquire("k");
      old[0]?.die();
    },
  });
  for (const conn of old) pool.put("k", conn);
  pool.clear("k");
  assert.equal(lease, undefined);
  assert.equal(pool.stats().draining, 0);
});

test("clear ends a running backoff: an outage that is over is over at once", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  const dial = manualDial();
  const waiting = pool.acquire("k", { dial, waitForReady: true });
  for (let i = 0; i < 5; i++) {
    dial.pending[i]?.fail(new Error("outage"));
    await settle();
    assert.equal(dial.count, i + 1); // it pauses
    pool.clear("k");
    assert.equal(dial.count, i + 2); // and does not
  }
  dial.pending[5]?.arrive();
  (await waiting).release();
  assert.equal(clock.now(), 1000);
});

test("clear ends a backoff also for those who came while it ran", async (t) => {
  const dial = manualDial();
  const { pool } = pooled(t, { dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  pool.clear("k");
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(patient.state, "resolved");
});

test("of very many keys that were cleared one by one, the first are forgotten on the safe side: what is out is not wanted back", async (t) => {
  const { pool } = pooled(t);
  const [early, late, other] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
  pool.put("early", early);
  pool.put("other", other);
  assert.deepEqual([pool.take("early"), pool.take("other")], [early, other]);
  pool.clear("early");
  for (let i = 0; i < 1000; i++) pool.clear(`key ${i}`);
  pool.put("late", late);
  assert.equal(pool.take("late"), late);
  assert.deepEqual([pool.put("early", early), pool.put("other", other), pool.put("late", late)], [false, false, true]);
  assert.deepEqual([early.closes, other.closes, late.closes], [1, 1, 0]);
});
