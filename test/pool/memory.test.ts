import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { PlainConn, ScriptedConn } from "../support/conn.ts";
import { collectGarbage } from "../support/gc.ts";
import { nothingUnheard } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

/** Bytes in use once everything that can go has gone. */
async function heap(): Promise<number> {
  for (let round = 0; round < 2; round++) {
    await settle();
    collectGarbage();
  }
  return process.memoryUsage().heapUsed;
}

test("100,000 keys used once leave no key, no timer and no memory behind, and need one timer at a time", async () => {
  const clock = new FakeClock();
  const dial = Object.assign(() => new PlainConn(), { maxStreams: 1 });
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

test("a conn whose put fails is not remembered by the pool", async (t) => {
  let looks = 0;
  const { pool } = pooled(t, {
    maxKeyConns: 1,
    limits: () => {
      if (++looks > 1) throw new Error("limits does not answer");
      return undefined;
    },
  });
  pool.put("k", new ScriptedConn());
  const put = () => {
    const conn = new ScriptedConn();
    assert.throws(() => pool.put("k", conn), /limits does not answer/);
    return new WeakRef(conn);
  };
  const ref = put();
  await settle();
  collectGarbage();
  await settle();
  assert.equal(ref.deref(), undefined);
});

test("a conn that was taken does not keep its key's record", async () => {
  const pool = new Pool<object, ScriptedConn>({ clock: new FakeClock() });
  const takeOne = () => {
    const key = {};
    pool.put(key, new ScriptedConn());
    return { conn: pool.take(key), ref: new WeakRef(key) };
  };
  takeOne();
  const { conn, ref } = takeOne();
  await settle();
  collectGarbage();
  await settle();
  assert.equal(ref.deref(), undefined);
  assert.equal(conn?.closes, 0);
});
