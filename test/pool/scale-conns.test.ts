import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { PlainConn } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

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
    const pool = new Pool<string, PlainConn>();
    const conns = Array.from({ length: count }, () => new PlainConn());
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
    const pool = new Pool<string, PlainConn & { draining: boolean }>();
    const conns = Array.from({ length: count }, () => Object.assign(new PlainConn(), { draining: false }));
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

const never = new Promise<void>(() => {});

for (const selection of ["oldest", "newest", "least-loaded", "fastest"] as const) {
  test(`with selection "${selection}" choosing among 10,000 conns takes hardly longer than among 100`, (t) => {
    const { pool } = pooled<PoolConn>(t, { selection });
    const time = (n: number) => {
      for (let i = 0; i < n; i++) pool.put(`${n}`, { close() {}, closed: never, maxStreams: 2 });
      for (let i = 0; i < n / 2; i++) pool.tryAcquire(`${n}`);
      let best = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 5; round++) {
        const start = performance.now();
        for (let i = 0; i < 200; i++) pool.tryAcquire(`${n}`)?.release();
        best = Math.min(best, performance.now() - start);
      }
      return best;
    };
    time(50);
    const few = time(100);
    const many = time(10_000);
    assert.ok(many < few * 20, `${many} ms among 10,000, ${few} ms among 100`); // linear would be 100 times
  });
}

test("with validation on, choosing among 10,000 conns that are due costs no more than among 10", async (t) => {
  let reads = 0;
  const closed = new Promise<void>(() => {});
  const counted = () => ({
    close() {},
    closed,
    get maxStreams() {
      reads++;
      return 1;
    },
  });
  const { pool, clock } = pooled<PoolConn>(t, { validate: async () => true });
  const cost = async (n: number) => {
    for (let i = 0; i < n; i++) pool.put(`${n}`, counted());
    await clock.advance(500);
    (await pool.acquire(`${n}`)).release();
    reads = 0;
    clock.readings = 0;
    for (let i = 0; i < 50; i++) (await pool.acquire(`${n}`)).release();
    return reads + clock.readings;
  };
  const few = await cost(10);
  const many = await cost(10_000);
  assert.ok(many <= few * 2, `${many} steps among 10,000, ${few} among 10`);
});
