import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { type ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

/** Callers of one key that take turns on its conns without end; counts what each turn hands off. */
function crowd(pool: Pool<string, ScriptedConn>, key: string, callers: number): { turns: number; stop: boolean } {
  const state = { turns: 0, stop: false };
  const call = async () => {
    while (!state.stop) {
      const lease = await pool.acquire(key);
      state.turns++;
      await new Promise((resolve) => setImmediate(resolve));
      lease.release();
    }
  };
  for (let caller = 0; caller < callers; caller++) call().catch(() => {}); // the pool is closed at the end of the test
  return state;
}

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 2000 && !condition(); turn++) await new Promise((resolve) => setImmediate(resolve));
}

test("rule: under maxConns a busy exclusive key gives up its place after at most 16 hand-offs", async () => {
  const pool = testPool({ dial: scriptedDial(), maxConns: 1 });
  const busy = crowd(pool, "busy", 4);
  await settle();
  const before = busy.turns;
  const waiter = outcome(pool.acquire("other"));
  await until(() => waiter.state !== "pending");
  assert.equal(waiter.state, "resolved");
  assert.ok(busy.turns - before <= 17, `${busy.turns - before} turns of the busy key came first`);
  assert.ok(busy.turns - before >= 8, "a place is not given up at the first release");
  busy.stop = true;
  waiter.value?.release();
  await settle();
});

test("rule: the key that gave up its place goes behind the one that it gave it to, and is served after that", async () => {
  const pool = testPool({ dial: scriptedDial(), maxConns: 1 });
  const one = crowd(pool, "one", 3);
  const two = crowd(pool, "two", 3);
  await until(() => one.turns + two.turns > 300);
  one.stop = true;
  two.stop = true;
  assert.ok(Math.abs(one.turns - two.turns) <= 40, `${one.turns} turns against ${two.turns}`);
  await until(() => pool.stats().streams === 0);
});

test("rule: three keys at two places all get on", async () => {
  const pool = testPool({ dial: scriptedDial(), maxConns: 2 });
  const keys = ["a", "b", "c"].map((key) => crowd(pool, key, 3));
  await until(() => keys.reduce((sum, { turns }) => sum + turns, 0) > 600);
  for (const key of keys) key.stop = true;
  for (const key of keys) assert.ok(key.turns > 100, `turns: ${keys.map(({ turns }) => turns)}`);
  await until(() => pool.stats().streams === 0);
});

test("rule: a multiplexed key gives up its place too: its conn drains, and takes no further stream", async () => {
  const dial = scriptedDial({ maxStreams: 4 });
  const pool = testPool({ dial, maxConns: 1 });
  const busy = crowd(pool, "busy", 12);
  await settle();
  const before = busy.turns;
  const waiter = outcome(pool.acquire("other"));
  await until(() => waiter.state !== "pending");
  assert.equal(waiter.state, "resolved");
  assert.ok(busy.turns - before <= 16 + 4, `${busy.turns - before} turns of the busy key came first`);
  assert.equal(dial.conns[0]?.closes, 1);
  busy.stop = true;
  waiter.value?.release();
  await settle();
});

test("rule: endless streams on conns that drain elsewhere do not make others wait for ever", async () => {
  const pool = testPool({ dial: scriptedDial(), maxConns: 4, limits: () => ({ maxKeyConns: 3 }) });
  const endless = await Promise.all([1, 2, 3].map(() => pool.acquire("endless")));
  pool.clear("endless");
  assert.equal(pool.stats().draining, 3);
  const busy = crowd(pool, "busy", 4);
  await settle();
  const before = busy.turns;
  const waiter = outcome(pool.acquire("other"));
  await until(() => waiter.state !== "pending" || busy.turns - before > 100);
  assert.equal(waiter.state, "resolved", `after ${busy.turns - before} turns of the busy key`);
  assert.ok(busy.turns - before <= 17);
  busy.stop = true;
  waiter.value?.release();
  for (const lease of endless) lease.release();
  await settle();
});

test("rule: the oldest of the waiters that maxConns holds back is served first, whatever its key", async () => {
  const pool = testPool({ dial: scriptedDial(), maxConns: 1 });
  const held = await pool.acquire("held");
  const order: string[] = [];
  const waits = ["c", "a", "b", "a", "c"].map(async (key, number) => {
    const lease = await pool.acquire(key);
    order.push(`${key}${number}`);
    lease.release();
  });
  held.release();
  await Promise.all(waits);
  assert.deepEqual(order.slice(0, 1), ["c0"]);
  const firsts = ["c0", "a1", "b2"].map((name) => order.indexOf(name));
  assert.deepEqual(
    firsts,
    firsts.toSorted((x, y) => x - y),
    `${order}`,
  );
});

test("rule: idle conns of other keys make way before anybody waits, and conns in use never do", async () => {
  const dial = scriptedDial({ maxStreams: 2 });
  const pool = testPool({ dial, maxConns: 2 });
  const used = await pool.acquire("used");
  (await pool.acquire("idle")).release();
  const other = await pool.acquire("other");
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [0, 1, 0],
  );
  const last = outcome(pool.acquire("last"));
  await settle();
  assert.equal(last.state, "pending");
  assert.equal(used.conn.closes + other.conn.closes, 0);
  used.release();
  await settle();
  assert.equal(last.state, "resolved");
});

test("rule: whoever waits for a place while nobody else does is not made to share", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial, maxConns: 1 });
  const busy = crowd(pool, "busy", 3);
  await until(() => busy.turns > 100);
  busy.stop = true;
  assert.equal(dial.count, 1, "no hand-off closes a conn where no other key waits");
  await until(() => pool.stats().streams === 0);
});

test("rule: a conn that makes way but never ends its last stream does not stand for the place that others wait for", async () => {
  const dial = scriptedDial<string>((key) => ({ maxStreams: key === "shared" ? 2 : 1 }));
  const pool = testPool({ dial, maxConns: 2, limits: () => ({ maxKeyConns: 1 }) });
  const endless = await pool.acquire("shared");
  const waiter = outcome(pool.acquire("other"));
  await settle();
  assert.equal(waiter.state, "resolved", "the second place was free");
  const next = outcome(pool.acquire("next"));
  for (let call = 0; call < 20; call++) pool.tryAcquire("shared")?.release();
  assert.equal(pool.stats("shared").draining, 1, "it made way, but its endless stream runs on");
  const busy = crowd(pool, "other", 3);
  waiter.value?.release();
  await until(() => next.state !== "pending" || busy.turns > 100);
  assert.equal(next.state, "resolved", `after ${busy.turns} turns of the busy key`);
  busy.stop = true;
  next.value?.release();
  endless.release();
  await settle();
});
