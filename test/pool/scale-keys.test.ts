import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "../support/clock.ts";
import { PlainConn, type ScriptedConn } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

test("one timer serves 10,000 keys, each used once; nothing is left of them when they have expired", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 60_000, maxLifetimeMs: 3600_000, dialTimeoutMs: 1000 });
  const closed = new Promise<void>(() => {});
  let open = 0;
  const dial = () => {
    open++;
    return { close: () => void open--, closed } as unknown as ScriptedConn;
  };
  for (let i = 0; i < 10_000; i++) (await pool.acquire(`k${i}`, { dial })).release();
  assert.deepEqual([pool.stats().keys, clock.timers], [10_000, 1]);
  await clock.advance(75_000);
  assert.deepEqual([pool.stats().keys, open, clock.mostTimers, clock.timers], [0, 0, 1, 0]);
});

test("20,000 idle conns that expire together are closed in batches, and I/O gets its turn in between", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, PoolConn>({ expirationMs: 1000, clock });
  let closed = 0;
  let most = 0;
  for (let key = 0; key < 20_000; key++) {
    const conn = new PlainConn();
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
