import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, PoolConn } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { call, pooled } from "../support/pooled.ts";

test("row 39: 1,000 calls at 100 slots: 10 dials, not 1,000", async (t) => {
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

test("row 39: a new conn only when all slots are taken", async (t) => {
  const { lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 3 });
  for (const expected of [1, 1, 1, 2, 2, 2, 3]) {
    await lease("k", dial);
    assert.equal(dial.count, expected);
  }
});

test("row 39: at most what the limits say: the rest wait for slots", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 2 });
  const dial = scriptedDial({ maxStreams: 3 });
  const asked = Array.from({ length: 10 }, () => lease("k", dial));
  await settle();
  assert.deepEqual([dial.count, pool.stats().streams, pool.stats().waiting], [2, 6, 4]);
  for (const one of asked) (await one).release();
  assert.deepEqual([dial.count, pool.stats().idle], [2, 2]);
});

test("row 39: dials in flight are shared by everyone waiting; while nothing is known of a key, one at a time", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 4 }, { manual: true });
  const asked = Array.from({ length: 10 }, () => lease("k", dial));
  await settle();
  assert.equal(dial.count, 1); // it may bring a thousand slots
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(dial.count, 3); // it brought four: six are left, two more serve them
  assert.equal(pool.stats().waiting, 6);
  for (const pending of dial.pending.slice(1)) pending.arrive();
  await Promise.all(asked);
  assert.equal(pool.stats().open, 3);
});

test("row 39: maxKeyDials bounds the dials in flight of a key", async (t) => {
  const { lease, pool } = pooled(t, { maxKeyDials: 2 });
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const asked = Array.from({ length: 5 }, () => lease("k", dial));
  for (const expected of [2, 3, 4, 5, 5]) {
    assert.equal(dial.pending.length, expected);
    assert.ok(pool.stats().dialing <= 2);
    dial.pending.find((_, i) => i === dial.conns.length)?.arrive();
    await settle();
  }
  await Promise.all(asked);
});

test("row 25: exclusive unless the conn says otherwise; the cap is the smaller of the pool's and the conn's", async (t) => {
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

test("row 25: a limit that the peer raises wakes waiters", async (t) => {
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

test("row 25: a lowered limit is obeyed, and 0 means none now: what runs goes on", async (t) => {
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

test("row 25: n is read anew at each acquire, from conns that cannot say that it changed, too", async (t) => {
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

test("row 17: one conn serves many callers, and its death moves those still waiting for it to another", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial({ maxStreams: 2 });
  const held = [await lease("k", dial), await lease("k", dial)];
  assert.equal(held[0]?.conn, held[1]?.conn);
  const waiting = [lease("k", dial), lease("k", dial)];
  await settle();
  dial.conns[0]?.die();
  const moved = await Promise.all(waiting);
  assert.deepEqual(
    moved.map(({ conn }) => conn),
    [dial.conns[1], dial.conns[1]],
  );
  assert.deepEqual([dial.count, pool.stats().closed.died], [2, 1]);
});

test("row 17: calls that wait for an expiring conn move to another eligible one, and no call fails", async (t) => {
  const { pool, clock, lease } = pooled(t, { maxKeyConns: 1, maxLifetimeMs: 1000 });
  const dial = scriptedDial({ maxStreams: 2 });
  const held = [await lease("k", dial), await lease("k", dial)];
  const waiting = [lease("k", dial), lease("k", dial), lease("k", dial)];
  await settle();
  await clock.advance(1000);
  const [first, second] = [await waiting[0], await waiting[1]];
  assert.deepEqual([first?.conn, second?.conn], [dial.conns[1], dial.conns[1]]);
  for (const one of held) one.release(); // those on the old one finished there
  assert.equal(dial.conns[0]?.closes, 1);
  first?.release();
  assert.equal((await waiting[2])?.conn, dial.conns[1]);
  assert.equal(pool.stats().dials, 2);
});
