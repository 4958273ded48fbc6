import assert from "node:assert/strict";
import { test } from "node:test";
import type { Named, PoolEvents } from "../../src/pool/events.ts";
import type { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn } from "../support/conn.ts";
import { collectGarbage } from "../support/gc.ts";
import { rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

type Leaked = Named<PoolEvents<string, ScriptedConn>["leaked"]>;

/** What is reported until the test ends: events and warnings. */
function reports(t: { after(fn: () => void): void }, pool: Pool<string, ScriptedConn>) {
  const events: Leaked[] = [];
  const warnings: string[] = [];
  const warn = (warning: Error & { code?: string }) => {
    if (warning.code === "RPC_CONN_POOL_LEAK") warnings.push(warning.message);
  };
  pool.on("leaked", (event) => void events.push(event));
  process.on("warning", warn);
  t.after(() => void process.off("warning", warn));
  return { events, warnings };
}

function takenByTheCulprit(pool: Pool<string, ScriptedConn>) {
  return pool.tryAcquire("k");
}

async function takenByTheOtherCulprit(pool: Pool<string, ScriptedConn>) {
  return pool.acquire("k");
}

test("a lease that is not released within leakAfterMs is reported once, with the place where it was taken", async (t) => {
  const { pool, clock } = pooled(t, { leakAfterMs: 1000 });
  const { events, warnings } = reports(t, pool);
  const conn = new ScriptedConn({ maxStreams: 3 });
  pool.put("k", conn);
  const first = takenByTheCulprit(pool);
  const second = await takenByTheOtherCulprit(pool);
  const third = pool.tryAcquire("k");
  await clock.advance(999);
  third?.release();
  third?.release();
  assert.deepEqual([events, warnings], [[], []]);
  await clock.advance(1);
  assert.deepEqual(
    events.map(({ key, conn, ms, collected, pool }) => [key, conn, ms, collected, pool]),
    [1, 2].map(() => ["k", conn, 1000, false, "pool"]),
  );
  assert.match(events[0]?.stack ?? "", /^ +at takenByTheCulprit/);
  assert.match(events[1]?.stack ?? "", /^ +at takenByTheOtherCulprit/);
  assert.match(warnings[0] ?? "", /^a lease for "k", taken 1000 ms ago, has not been released.*takenByTheCulprit/s);
  await clock.advance(60_000);
  assert.equal(events.length, 2);
  assert.equal(pool.stats().streams, 2); // only reported
  first?.release();
  second.release();
  assert.equal(pool.stats().streams, 0);
});

test("a lease that is collected as garbage is reported, though its time is not over", async (t) => {
  const { pool } = pooled(t, { leakAfterMs: 3600_000 });
  const { events, warnings } = reports(t, pool);
  pool.put("k", new ScriptedConn());
  takenByTheCulprit(pool);
  for (let turn = 0; turn < 50 && events.length === 0; turn++) {
    collectGarbage();
    await settle();
  }
  assert.deepEqual([events.length, events[0]?.collected], [1, true]);
  assert.match(warnings[0] ?? "", /collected as garbage/);
});

test("leaks are not looked for unless asked, nor where the pool releases by itself, nor once it is closed", async (t) => {
  for (const leakAfterMs of [undefined, 0, 100]) {
    const { pool, clock } = pooled(t, { leakAfterMs });
    const { events } = reports(t, pool);
    pool.put("k", new ScriptedConn({ maxStreams: 2 }));
    void pool.use("k", () => new Promise(() => {}));
    await settle();
    if (leakAfterMs === 100) await pool.close({ graceMs: 0 });
    else pool.tryAcquire("k");
    await clock.advance(60_000);
    assert.deepEqual(events, []);
  }
  const { pool } = pooled(t);
  assert.equal((await rejection(pool.acquire("k"))).name, "NoConnError");
  assert.throws(() => pooled(t, { leakAfterMs: -1 }), { code: "ERR_POOL_ARGUMENT" });
});
