import assert from "node:assert/strict";
import { test } from "node:test";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { PlainConn } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

/** Processor time in milliseconds. */
async function cost(work: () => Promise<void> | void): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

test("10,000 keys with expirations of their own share few queues, and none stays when they have gone", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, PlainConn>({
    clock,
    dial: () => new PlainConn(),
    capacity: 5000,
    limits: () => ({ expirationMs: 60_000 + Math.floor(Math.random() * 30_000) }),
  });
  const ms = await cost(async () => {
    for (let i = 0; i < 10_000; i++) (await pool.acquire(`k${i}`)).release();
  });
  assert.equal(pool.stats().closed.evicted, 5000);
  await clock.advance(120_000);
  assert.deepEqual([pool.stats().open, clock.timers, [...pool.keys()]], [0, 0, []]);
  console.log(`${Math.round(ms)} ms`);
});

test("40,000 keys in line for a place join it without a walk each", async (t) => {
  const { pool } = pooled<PlainConn>(t, { dial: () => new PlainConn(), maxConns: 1 });
  const holder = await pool.acquire("holder");
  const waiting: Promise<unknown>[] = [];
  const ms = await cost(() => {
    for (let i = 0; i < 40_000; i++) {
      const served = pool.acquire(`k${i}`);
      waiting.push(served.then((lease) => lease.release()));
    }
  });
  assert.equal(pool.stats().waiting, 40_000);
  holder.release();
  await Promise.all(waiting);
  console.log(`${Math.round(ms)} ms`);
});

test('for "least-loaded" a conn with 40,000 streams costs no walk over what it left behind', async (t) => {
  class Wide extends PlainConn {
    readonly maxStreams = 1e6;
  }
  const { pool } = pooled<Wide>(t, { dial: () => new Wide(), selection: "least-loaded" });
  const leases = [await pool.acquire("k")];
  const ms = await cost(() => {
    for (let i = 0; i < 40_000; i++) {
      const lease = pool.tryAcquire("k");
      if (lease !== undefined) leases.push(lease);
    }
    for (const lease of leases) lease.release();
  });
  assert.equal(leases.length, 40_001);
  console.log(`${Math.round(ms)} ms`);
});

test("a total limit on dials holds: 50 keys that are down are dialed three at a time, and all get their turn", async (t) => {
  let most = 0;
  const dialed = new Set<string>();
  const { pool, clock } = pooled<PlainConn>(t, {
    maxDials: 3,
    dial: async (key) => {
      dialed.add(key);
      most = Math.max(most, pool.stats().dialing);
      await new Promise((resolve) => clock.setTimeout(() => resolve(undefined), 10));
      throw new Error("refused");
    },
  });
  const all = Array.from({ length: 50 }, (_, i) =>
    outcome(pool.acquire(`k${i}`, { waitForReady: true, timeoutMs: 2000 })),
  );
  await settle();
  assert.equal(pool.stats().dialing, 3);
  await clock.advance(2000);
  assert.ok(all.every(({ state }) => state === "rejected"));
  assert.deepEqual([most, dialed.size], [3, 50]);
});

test("redials that the pool starts by itself are paced: 50 keys down for two seconds cost at most 20 dials each", async (t) => {
  let down = true;
  const dials = new Map<string, number>();
  const { pool, clock } = pooled<PlainConn>(t, {
    dial: async (key) => {
      dials.set(key, (dials.get(key) ?? 0) + 1);
      if (down) throw new Error("refused");
      return new PlainConn();
    },
  });
  const all = Array.from({ length: 50 }, (_, i) => outcome(pool.acquire(`k${i}`, { waitForReady: true })));
  await clock.advance(2000);
  down = false;
  await clock.advance(1200);
  assert.ok(
    all.every(({ state }) => state === "resolved"),
    "all are served within 1.2 s of the peers' return",
  );
  assert.ok(Math.max(...dials.values()) <= 20, `${Math.max(...dials.values())} dials of one key`);
  for (const { value } of all) value?.release();
});
