import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { test } from "node:test";
import fc from "fast-check";
import type { PoolStats } from "../../src/pool/stats.ts";
import { settle } from "../support/clock.ts";
import { scriptedDial } from "../support/conn.ts";
import { rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

function addsUp(stats: PoolStats): void {
  const { open, idle, leased, draining, dials, dialed, dialErrors, abandoned, dialing } = stats;
  assert.equal(open, idle + leased + draining);
  assert.equal(dials, dialed + dialErrors + abandoned + dialing);
  const { misses, served, timeouts, refused, aborted, failed, empty, waiting } = stats;
  assert.equal(misses, served + timeouts + refused + aborted + failed + empty + waiting);
}

const steps = fc.array(
  fc.tuple(
    fc.constantFrom("acquire", "patient", "try", "abort", "arrive", "fail", "release", "advance", "clear", "die"),
    fc.nat(5),
  ),
  { maxLength: 60 },
);

test("every dial and every caller ends in exactly one counter and one event: stats add up after every step", async (t) => {
  const property = fc.asyncProperty(steps, fc.constantFrom(0, 1, 2), async (script, maxKeyConns) => {
    const dial = scriptedDial({}, { manual: true });
    const { pool, clock } = pooled(t, { dial, maxKeyConns, maxWaiters: 3, dialTimeoutMs: 50 });
    const ends: Record<string, number> = {};
    for (const name of [
      "dialed",
      "dialFailed",
      "abandoned",
      "served",
      "timedOut",
      "refused",
      "aborted",
      "failed",
    ] as const)
      pool.on(name, () => {
        ends[name] = (ends[name] ?? 0) + 1;
      });
    const leases: { release(): void }[] = [];
    const aborts: AbortController[] = [];
    const acquire = (waitForReady: boolean, timeoutMs: number) => {
      const abort = new AbortController();
      aborts.push(abort);
      const lease = pool.acquire("k", { waitForReady, timeoutMs, signal: abort.signal });
      lease.then((got) => leases.push(got)).catch(() => {});
    };
    for (const [name, n] of script) {
      if (name === "acquire") acquire(false, 30);
      if (name === "patient") acquire(true, 200);
      if (name === "try") leases.push(...[pool.tryAcquire("k")].filter((lease) => lease !== undefined));
      if (name === "abort") aborts[n]?.abort();
      if (name === "arrive") dial.pending[dial.count - 1 - n]?.arrive();
      if (name === "fail") dial.pending[dial.count - 1 - n]?.fail(new Error("refused"));
      if (name === "release") leases.splice(n, 1)[0]?.release();
      if (name === "advance") await clock.advance(n * 20);
      if (name === "clear") pool.clear();
      if (name === "die") dial.conns[n]?.die();
      await settle();
      addsUp(pool.stats());
    }
    await pool.close({ graceMs: 0 });
    await settle();
    const stats = pool.stats();
    addsUp(stats);
    assert.deepEqual([stats.waiting, stats.dialing, stats.open], [0, 0, 0]);
    for (const [event, count] of [
      ["dialed", stats.dialed],
      ["dialFailed", stats.dialErrors],
      ["abandoned", stats.abandoned],
      ["served", stats.served],
      ["timedOut", stats.timeouts],
      ["refused", stats.refused],
      ["aborted", stats.aborted],
      ["failed", stats.failed],
    ] as const)
      assert.equal(ends[event] ?? 0, count, event);
  });
  await fc.assert(property, { numRuns: 150 });
});

test("stats carry the limits in force, as the options say them", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxConns: 5, maxKeyConns: -1, backoff: true });
  assert.equal(pool.stats().limits.maxConns, 5);
  assert.equal(pool.stats().limits.maxKeyConns, -1);
  assert.equal(pool.stats().limits.capacity, 0);
  const backoff = { baseMs: 100, maxMs: 10_000, factor: 2, jitter: "full", maxAttempts: 0 };
  assert.deepEqual(pool.stats().limits.backoff, backoff);
  pool.configure({ maxKeyConns: 2 }, "k");
  (await pool.acquire("k")).release();
  assert.deepEqual([pool.stats("k").limits.maxKeyConns, pool.stats().limits.maxKeyConns], [2, -1]);
});

test("events and dials run in no caller's async context", async (t) => {
  const store = new AsyncLocalStorage<string>();
  const seen: (string | undefined)[] = [];
  const dial = scriptedDial();
  const { pool } = pooled(t, {
    maxKeyConns: 1,
    dial: Object.assign((key: string, options: { signal: AbortSignal }) => {
      seen.push(store.getStore());
      return dial(key, options);
    }),
  });
  for (const name of ["dialed", "leased", "released", "waiting", "served", "aborted"] as const)
    pool.on(name, () => seen.push(store.getStore()));
  const abort = new AbortController();
  const lease = await store.run("one", () => pool.acquire("k"));
  const second = store.run("two", () => pool.acquire("k"));
  const third = store.run("three", () => pool.acquire("k", { signal: abort.signal }));
  store.run("one", () => lease.release());
  store.run("four", () => abort.abort());
  await rejection(third);
  (await second).release();
  await settle();
  assert.ok(seen.length >= 8);
  assert.deepEqual([...new Set(seen)], [undefined]);
});
