import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

test("a conn is exclusive unless it says otherwise; the cap is the smaller of the pool's and the conn's", async (t) => {
  const rows: [own: number | undefined, cap: number, slots: number][] = [
    [undefined, 0, 1],
    [1, 0, 1],
    [5, 0, 5],
    [5, 3, 3],
    [3, 5, 3],
    [Number.POSITIVE_INFINITY, 7, 7],
    [undefined, 9, 1],
  ];
  for (const [own, maxStreams, slots] of rows) {
    const { pool } = pooled(t, { maxStreams });
    pool.put("k", new ScriptedConn({ maxStreams: own }));
    let taken = 0;
    while (taken < 20 && pool.tryAcquire("k") !== undefined) taken++;
    assert.equal(taken, slots, `own ${own}, cap ${maxStreams}`);
  }
});

test("a new conn is dialed only when all slots are taken", async (t) => {
  const { lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 3 });
  for (const expected of [1, 1, 1, 2, 2, 2, 3]) {
    await lease("k", dial);
    assert.equal(dial.count, expected);
  }
});

test("at most as many conns are dialed as the limits say: the rest wait for slots", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 2 });
  const dial = scriptedDial({ maxStreams: 3 });
  const asked = Array.from({ length: 10 }, () => lease("k", dial));
  await settle();
  assert.deepEqual([dial.count, pool.stats().streams, pool.stats().waiting], [2, 6, 4]);
  for (const one of asked) (await one).release();
  assert.deepEqual([dial.count, pool.stats().idle], [2, 2]);
});

test("1,000 calls at 100 slots are 10 dials, not 1,000, and fill every slot", async (t) => {
  for (const announced of [{ maxStreams: 100 }, {}]) {
    const { pool } = pooled<Conn>(t);
    const dial = scriptedDial({ maxStreams: 100 }, announced);
    const handle = pool.get("k", dial);
    const calls = Array.from({ length: 1000 }, () => call(handle));
    await settle();
    assert.equal(dial.count, 10, JSON.stringify(announced));
    assert.deepEqual(
      dial.conns.map((conn) => conn.calls.size),
      Array(10).fill(100),
    );
    for (const conn of dial.conns) for (const running of conn.calls) running.answer("done");
    await Promise.all(calls);
    assert.equal(pool.stats().idle, 10);
  }
});

test("1,000 concurrent calls at 100 slots are 10 dials in flight, where the dial announces its slots", async () => {
  const dial = scriptedDial({ maxStreams: 100, answer: (request) => request }, { manual: true, maxStreams: 100 });
  await using pool = new Pool();
  const handle = pool.get("host:1", dial);
  const calls = Array.from({ length: 1000 }, (_, index) => handle.invoke(echo, String(index)));
  assert.equal(dial.count, 10); // at once
  await settle();
  assert.equal(dial.count, 10);
  for (const pending of dial.pending) pending.arrive();
  assert.deepEqual(
    await Promise.all(calls),
    Array.from({ length: 1000 }, (_, index) => String(index)),
  );
  assert.equal(dial.count, 10);
  assert.equal(Math.max(...dial.conns.map(({ started }) => started)), 100);
});

test("1,000 concurrent calls at 100 slots are 10 dials, too, where nothing is known of the key before its first conn", async () => {
  const dial = scriptedDial({ maxStreams: 100 }, { manual: true });
  await using pool = new Pool();
  const handle = pool.get("host:1", dial);
  const calls = Array.from({ length: 1000 }, () => handle.invoke(echo, "hello"));
  await settle();
  assert.equal(dial.count, 1, "one dial at a time");
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(dial.count, 10);
  for (const pending of dial.pending.slice(1)) pending.arrive();
  await settle();
  assert.deepEqual(new Set(dial.conns.map(({ calls: running }) => running.size)), new Set([100]));
  for (const conn of dial.conns) for (const call of conn.calls) call.answer("hello");
  await Promise.all(calls);
  assert.equal(dial.count, 10);
});

test("a limit that the peer raises wakes waiters", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial({ maxStreams: 1 });
  await lease("k", dial);
  const waiting = [lease("k", dial), lease("k", dial), lease("k", dial)].map(outcome);
  await settle();
  const conn = dial.conns[0];
  assert.ok(conn !== undefined);
  conn.maxStreams = 3;
  conn.changed();
  await settle();
  assert.deepEqual(
    waiting.map(({ state }) => state),
    ["resolved", "resolved", "pending"],
  );
  assert.deepEqual([pool.stats().streams, dial.count, conn.subscriptions], [3, 1, 1]);
});

test("a lowered limit is obeyed, and 0 means none now: what runs goes on", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 3 });
  const held = [await lease("k", dial), await lease("k", dial)];
  const conn = dial.conns[0];
  assert.ok(conn !== undefined);
  for (const lowered of [1, 0]) {
    conn.maxStreams = lowered;
    conn.changed();
    assert.equal(pool.tryAcquire("k"), undefined, `at ${lowered}`);
  }
  held[0]?.release();
  assert.equal(pool.tryAcquire("k"), undefined); // one runs, none may begin
  held[1]?.release();
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.deepEqual([conn.closes, pool.stats().open], [0, 1]);
  conn.maxStreams = 1;
  conn.changed();
  assert.equal(pool.tryAcquire("k")?.conn, conn);
});

test("maxStreams is read again at each acquire, from conns that cannot say that it changed, too", async (t) => {
  const { pool } = pooled<PoolConn>(t);
  const conn = { maxStreams: 1, close: () => {}, closed: new Promise<void>(() => {}) };
  pool.put("k", conn);
  const one = pool.tryAcquire("k");
  assert.equal(pool.tryAcquire("k"), undefined);
  conn.maxStreams = 2;
  const two = pool.tryAcquire("k");
  assert.equal(two?.conn, conn); // raised
  conn.maxStreams = 1;
  one?.release();
  assert.equal(pool.tryAcquire("k"), undefined); // lowered
  two?.release();
  conn.maxStreams = 0;
  assert.equal(pool.tryAcquire("k"), undefined); // idle, and none now
  conn.maxStreams = 2;
  assert.notEqual(pool.tryAcquire("k"), undefined); // one runs, and there is room
  conn.maxStreams = 1;
  assert.equal(pool.tryAcquire("k"), undefined); // not any more
});
