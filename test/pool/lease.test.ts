import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";
import { pooled, single } from "../support/pool.ts";

nothingUnheard();

test("lease.conn is what dial returned, with its tags and whatever else it knows of its peer", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({ tags: { node: 7 } });
  const lease = await pool.acquire("k", { dial });
  assert.equal(lease.conn, dial.conns[0]);
  assert.equal(lease.conn.tags?.["node"], 7);
  lease.release();
  assert.equal(await pool.use("k", async (conn) => conn), dial.conns[0]);
});

test("a lease is given back once, however often it is released", (t) => {
  const { pool } = pooled(t);
  pool.put("k", new ScriptedConn({ maxStreams: 3 }));
  const [one, two] = [pool.tryAcquire("k"), pool.tryAcquire("k")];
  one?.release();
  one?.release();
  one?.[Symbol.dispose]();
  assert.equal(pool.stats().streams, 1);
  two?.release();
  assert.deepEqual([pool.stats().streams, pool.stats().idle], [0, 1]);
});

test("a release gives the slot back before it returns, and only once", async (t) => {
  const { pool, conn } = await single(t);
  const first = await pool.acquire("k");
  first.release();
  const second = pool.tryAcquire("k");
  assert.equal(second?.conn, conn);
  first.release();
  first[Symbol.dispose]();
  assert.equal(pool.tryAcquire("k"), undefined, "the second lease still holds the only slot");
  second?.release();
});

test("double release, double close and a death in between each count once", async (t) => {
  const dial = scriptedDial({ maxStreams: 2 });
  const { pool } = pooled(t, { dial, capacity: 5 });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  a.release();
  a.release();
  assert.equal(pool.stats().streams, 1);
  b.conn.die();
  b.conn.die();
  await settle();
  b.release();
  b.release();
  const stats = pool.stats();
  assert.deepEqual([stats.open, stats.idle, stats.streams, stats.closed.died], [0, 0, 0, 1]);
  assert.equal(b.conn.closes, 0, "it has closed by itself");
  await Promise.all([pool.close(), pool.close()]);
});

test("tryAcquire never dials and never waits", async (t) => {
  const { pool, lease } = pooled(t, { dial: scriptedDial() });
  assert.equal(pool.tryAcquire("k"), undefined); // no such key
  assert.deepEqual([...pool.keys()], []);
  const held = await lease("k");
  assert.equal(pool.tryAcquire("k"), undefined); // full
  assert.deepEqual([pool.stats().dials, pool.stats().waiting], [1, 0]);
  held.release();
  assert.equal(pool.tryAcquire("k")?.conn, held.conn);
});

test("choosing and counting are one step: no conn ever runs more streams than it has slots", async (t) => {
  let running = 0;
  let most = 0;
  const conn = new ScriptedConn({ maxStreams: 3 });
  const { pool } = pooled(t, { dial: () => conn, maxKeyConns: 1 });
  const held = deferred();
  const work = Array.from({ length: 30 }, (_, number) =>
    pool.use("k", async () => {
      most = Math.max(most, ++running);
      await (number < 3 ? held.promise : Promise.resolve());
      running--;
    }),
  );
  await settle();
  assert.equal(running, 3);
  held.resolve();
  await Promise.all(work);
  assert.equal(most, 3);
});

test("leases asked for in one synchronous stretch never share a slot", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  for (const lease of await Promise.all([1, 2, 3].map(() => pool.acquire("k")))) lease.release();
  const asked = [pool.acquire("k"), pool.acquire("k"), pool.acquire("k")];
  const tried = pool.tryAcquire("k");
  const leases = await Promise.all(asked);
  assert.equal(tried, undefined);
  assert.equal(new Set(leases.map(({ conn }) => conn)).size, 3);
});
