import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, echo, scriptedDial } from "../support/conn.ts";

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

/** Bytes in use once everything that can go has gone. */
async function heap(): Promise<number> {
  for (let round = 0; round < 2; round++) {
    await settle();
    collectGarbage();
  }
  return process.memoryUsage().heapUsed;
}

/** A conn that costs next to nothing. */
function plainConn(): PoolConn & { die(): void } {
  const closed = deferred();
  const end = (): void => closed.resolve();
  return { closed: closed.promise, close: end, die: end };
}

test("39: 1,000 concurrent calls at 100 slots: 10 dials, where the dial announces its slots", async () => {
  const dial = scriptedDial({ maxStreams: 100, answer: (request) => request }, { manual: true, maxStreams: 100 });
  await using pool = new Pool();
  const handle = pool.get("host:1", dial);
  const calls = Array.from({ length: 1000 }, (_, index) => handle.invoke(echo, String(index)));
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

test("39: the same where nothing is known of the key before its first conn", async () => {
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

test("45: 100,000 keys used once leave no key, no timer and no memory behind, and need one timer at a time", async () => {
  const clock = new FakeClock();
  const dial = Object.assign(() => plainConn(), { maxStreams: 1 });
  const pool = new Pool<string, PoolConn>({ expirationMs: 1000, capacity: 200_000, clock, dial });
  const useKeys = async (from: number, to: number) => {
    for (let key = from; key < to; key++) await pool.use(`key ${key}`, async () => {});
  };
  // Code, caches and hidden classes are there before the measurement.
  await useKeys(0, 2000);
  await clock.advance(2000);
  const before = await heap();

  await useKeys(0, 100_000);
  assert.equal(pool.stats().keys, 100_000);
  const used = (await heap()) - before;
  await clock.advance(1500);
  const { keys, open, idle, closed } = pool.stats();
  assert.deepEqual({ keys, open, idle, expired: closed.expired }, { keys: 0, open: 0, idle: 0, expired: 102_000 });
  assert.equal([...pool.keys()].length, 0);
  assert.equal(clock.mostTimers, 1);
  assert.equal(clock.timers, 0);
  const left = (await heap()) - before;
  assert.ok(left < used / 20, `${left} bytes are left of ${used}`);
  await pool.close();
});

/** Whether `run` takes time in proportion to its argument: the processor's time, the least of some rounds. */
async function growth(run: (count: number) => Promise<number>): Promise<number> {
  const least = async (count: number): Promise<number> => {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 3; round++) best = Math.min(best, await run(count));
    return best;
  };
  await run(2000); // to warm up
  let ratio = Number.POSITIVE_INFINITY;
  // A busy machine may spoil a measurement; what is quadratic is so every time.
  for (let tries = 0; tries < 3 && ratio >= 32; tries++)
    ratio = Math.min(ratio, (await least(16_000)) / (await least(2000)));
  return ratio;
}

const cpuMs = (): number => process.cpuUsage().user / 1000;

test("n conns of one key that die are dropped in O(n)", async () => {
  const ratio = await growth(async (count) => {
    const pool = new Pool<string, PoolConn & { die(): void }>();
    const conns = Array.from({ length: count }, plainConn);
    for (const conn of conns) pool.put("host:1", conn);
    await settle();
    const start = cpuMs();
    for (const conn of conns) conn.die();
    await settle();
    assert.equal(pool.tryAcquire("host:1"), undefined);
    const took = cpuMs() - start;
    assert.equal(pool.stats().closed.died, count);
    assert.equal(pool.stats().keys, 0);
    await pool.close();
    return took;
  });
  assert.ok(ratio < 32, `8 times the conns took ${ratio.toFixed(1)} times as long`); // quadratic: 64
});

test("n conns of one key found draining in one search are dropped in O(n)", async () => {
  const ratio = await growth(async (count) => {
    const pool = new Pool<string, PoolConn & { draining: boolean }>();
    const conns = Array.from({ length: count }, () => ({ ...plainConn(), draining: false }));
    for (const conn of conns) pool.put("host:1", conn);
    for (const conn of conns) conn.draining = true;
    const start = cpuMs();
    assert.equal(pool.tryAcquire("host:1"), undefined);
    const took = cpuMs() - start;
    assert.equal(pool.stats().open, 0);
    await pool.close();
    return took;
  });
  assert.ok(ratio < 32, `8 times the conns took ${ratio.toFixed(1)} times as long`);
});

test("45: 20,000 idle conns that expire together are closed in batches, and I/O gets its turn in between", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, PoolConn>({ expirationMs: 1000, clock });
  let closed = 0;
  let most = 0;
  for (let key = 0; key < 20_000; key++) {
    const conn = plainConn();
    pool.put(`key ${key}`, { closed: conn.closed, close: () => void closed++ });
  }
  let last = 0;
  const watch = (): void => {
    most = Math.max(most, closed - last);
    last = closed;
    if (closed < 20_000) setImmediate(watch);
  };
  setImmediate(watch);
  await clock.advance(1500);
  assert.equal(pool.stats().open, 0);
  assert.ok(most <= 500, `${most} conns were closed in one turn`);
  await pool.close();
});
