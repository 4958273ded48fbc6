import assert from "node:assert/strict";
import { test } from "node:test";
import { QueueFullError } from "../../src/errors.ts";
import type { Queueing } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

const conns = 10;
const serviceMs = 20;
const budgetMs = 500;

/** Seconds of calls at a multiple of what the conns can do, evenly spread: the waits of those that got a conn, and how the others ended. */
async function load(t: Parameters<typeof pooled>[0], queue: Queueing, times: number, seconds: number) {
  const { pool, clock } = pooled(t, { dial: scriptedDial(), maxKeyConns: conns, queue, waitTimeoutMs: budgetMs });
  const good: number[] = [];
  const failed = new Map<string, number>();
  const running: { readonly end: number; readonly release: () => void }[] = [];
  let calls = 0;
  const end = clock.now() + seconds * 1000;
  for (let now = clock.now(); now < end || pool.stats().streams > 0; now = clock.now()) {
    while (now < end && calls < ((now - end + seconds * 1000) / serviceMs) * conns * times) {
      calls++;
      pool.acquire("k").then(
        (lease) => {
          good.push(clock.now() - now + serviceMs);
          running.push({ end: clock.now() + serviceMs, release: () => lease.release() });
        },
        ({ name }: Error) => failed.set(name, (failed.get(name) ?? 0) + 1),
      );
    }
    await settle();
    await clock.advance(1);
    while (running[0] !== undefined && running[0].end <= clock.now()) running.shift()?.release();
    await settle();
  }
  good.sort((a, b) => a - b);
  const possible = ((seconds * 1000) / serviceMs) * conns;
  const medianMs = good[Math.floor(good.length / 2)] ?? Number.NaN;
  return { share: good.length / possible, medianMs, failed, pool };
}

test("at 1.5 times the capacity, controlled delay keeps the capacity busy with callers who are served soon", async (t) => {
  const { share, medianMs, failed, pool } = await load(t, "codel", 1.5, 5);
  assert.ok(share >= 0.98, `${share} of the capacity`);
  assert.ok(medianMs <= 3 * serviceMs, `a median of ${medianMs} ms`);
  assert.deepEqual([...failed.keys()], ["QueueFullError"]);
  assert.equal(pool.stats().refused, failed.get("QueueFullError"));
});

test("first come, first served: half of them use up their time in the queue", async (t) => {
  const { medianMs, failed } = await load(t, "fifo", 1.5, 5);
  assert.ok(medianMs > 15 * serviceMs, `a median of ${medianMs} ms`);
  assert.deepEqual([...failed.keys()], ["WaitTimeoutError"]);
});

test("under its capacity nobody is refused, and the order is first come, first served", async (t) => {
  const { failed } = await load(t, "codel", 0.9, 3);
  assert.equal(failed.size, 0);
});

test("controlled delay: the newest first, until nobody waits; who waited too long is refused with what is so", async (t) => {
  const dial = scriptedDial();
  const { pool, clock } = pooled(t, { dial, maxKeyConns: 1, queue: { targetMs: 10, intervalMs: 100 } });
  let lease = await pool.acquire("k");
  const first = outcome(pool.acquire("k"));
  await clock.advance(95);
  const second = outcome(pool.acquire("k"));
  const third = outcome(pool.acquire("k"));
  await clock.advance(6);
  lease.release();
  await settle();
  assert.ok(first.error instanceof QueueFullError);
  assert.match(first.error.message, /waited 101 ms.*within 10 ms for over 100 ms/);
  assert.deepEqual([second.state, third.state], ["pending", "resolved"]);
  third.value?.release();
  await settle();
  assert.equal(second.state, "resolved");
  assert.ok(second.value !== undefined);
  lease = second.value;
  const fourth = outcome(pool.acquire("k"));
  const fifth = outcome(pool.acquire("k"));
  lease.release();
  await settle();
  assert.deepEqual([fourth.state, fifth.state], ["resolved", "pending"]); // nobody had waited in between
  fourth.value?.release();
  await settle();
  fifth.value?.release();
});

test("when nobody waits any more the overload is over, though a dial is still in flight", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial, maxKeyConns: 2, queue: { targetMs: 10, intervalMs: 100 } });
  const asked = pool.acquire("k");
  dial.pending[0]?.arrive();
  const lease = await asked;
  const warm = outcome(pool.warm("k", 2)); // its dial hangs
  const late = outcome(pool.acquire("k"));
  await clock.advance(101);
  lease.release();
  await settle();
  assert.ok(late.error instanceof QueueFullError);
  const again = pool.tryAcquire("k");
  const first = outcome(pool.acquire("k"));
  const second = outcome(pool.acquire("k"));
  again?.release();
  await settle();
  assert.deepEqual([first.state, second.state], ["resolved", "pending"]);
  first.value?.release();
  await settle();
  second.value?.release();
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(warm.state, "resolved");
});

test("a key where somebody always waits is not overloaded as long as one of them is served within the target", async (t) => {
  const { pool, clock } = pooled(t, {
    dial: scriptedDial(),
    maxKeyConns: 1,
    queue: { targetMs: 10, intervalMs: 25 },
  });
  let lease = await pool.acquire("k");
  let next = outcome(pool.acquire("k"));
  for (let i = 0; i < 5; i++) {
    await clock.advance(10); // as long as it may be, and no longer
    const behind = outcome(pool.acquire("k"));
    lease.release();
    await settle();
    assert.deepEqual([next.state, behind.state], ["resolved", "pending"]);
    assert.ok(next.value !== undefined);
    lease = next.value;
    next = behind;
  }
  lease.release();
  await settle();
  next.value?.release();
});

test("a queue is overloaded when the interval is over, not before; who has waited for the target is not refused yet", async (t) => {
  for (const [heldMs, newestFirst] of [
    [100, false],
    [101, true],
  ] as const) {
    const { pool, clock } = pooled(t, {
      dial: scriptedDial(),
      maxKeyConns: 1,
      queue: { targetMs: 10, intervalMs: 100 },
    });
    const lease = await pool.acquire("k");
    const first = outcome(pool.acquire("k"));
    await clock.advance(heldMs - 10);
    const second = outcome(pool.acquire("k"));
    await clock.advance(10);
    const third = outcome(pool.acquire("k"));
    lease.release();
    await settle();
    const expected = newestFirst ? ["rejected", "pending", "resolved"] : ["resolved", "pending", "pending"];
    assert.deepEqual([first.state, second.state, third.state], expected);
    for (const outcome of [third, first, second, third]) {
      outcome.value?.release();
      await settle();
    }
  }
});

test("queue options that mean nothing are refused", () => {
  for (const queue of ["lifo", { targetMs: 0 }, { intervalMs: -1 }, { target: 5 }])
    assert.throws(() => pooledWith(queue), { code: "ERR_POOL_ARGUMENT" });
});

function pooledWith(queue: unknown): unknown {
  return Reflect.construct(Pool, [{ queue, dial: () => new ScriptedConn() }]);
}
