import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { namedConns, scriptedDial } from "../support/conn.ts";
import { fullKey, pooled } from "../support/pool.ts";

test("dead conns are dropped and the scan goes on; nothing dead is handed out", async (t) => {
  const { pool } = pooled(t);
  const { a, b, c } = namedConns("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  a.die();
  b.die();
  await Promise.resolve(); // known to the pool one microtask later
  assert.equal(pool.tryAcquire("k")?.conn, c);
  assert.deepEqual([pool.stats().open, pool.stats().closed.died], [1, 2]);
  assert.deepEqual([a.closes, b.closes], [0, 0]); // what has closed is not closed again
});

test("giving back a dead conn drops it without closing it a second time", async (t) => {
  const { pool } = pooled(t);
  const { a } = namedConns("a");
  pool.put("k", a);
  const lease = pool.tryAcquire("k");
  a.die();
  await settle();
  assert.deepEqual([...pool.keys()], []); // gone at once, not at its give-back
  lease?.release();
  await settle();
  assert.equal(a.closes, 0);
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().closed.died, 1);
});

test("giving back a conn that dies in the same turn caches nothing", async (t) => {
  const { pool } = pooled(t);
  const { a } = namedConns("a");
  pool.put("k", a);
  const lease = pool.tryAcquire("k");
  a.die();
  lease?.release(); // before the pool can know
  await settle();
  assert.equal(a.closes, 0);
  assert.deepEqual([...pool.keys()], []);
});

test("a death frees a place: one waiter has a conn dialed, and only one", async (t) => {
  const { pool, ask, dial, served } = fullKey(t);
  await ask("held");
  const waiting = [ask("one"), ask("two")];
  await settle();
  dial.conns[0]?.die();
  await settle();
  assert.deepEqual([dial.count, served], [2, ["held", "one"]]);
  assert.deepEqual([pool.stats().open, pool.stats().waiting], [1, 1]);
  (await waiting[0])?.release();
  (await waiting[1])?.release();
  assert.equal(dial.count, 2);
});

test("one conn serves many callers, and its death moves those still waiting for it to another", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial({ maxStreams: 2 });
  const held = [await lease("k", dial), await lease("k", dial)];
  assert.equal(held[0]?.conn, held[1]?.conn);
  const waiting = [lease("k", dial), lease("k", dial)];
  await settle();
  dial.conns[0]?.die();
  const moved = await Promise.all(waiting);
  assert.deepEqual(
    moved.map(({ conn }) => conn),
    [dial.conns[1], dial.conns[1]],
  );
  assert.deepEqual([dial.count, pool.stats().closed.died], [2, 1]);
});

test("a conn that died is dialed again for a waiter, and so is one that was retired", async (t) => {
  const { pool, clock, lease } = pooled(t, { maxKeyConns: 1, maxLifetimeMs: 1000 });
  const dial = scriptedDial();
  const first = await lease("k", dial);
  const second = lease("k", dial);
  dial.conns[0]?.die();
  assert.equal((await second).conn, dial.conns[1]); // the dead one's place is free
  const third = lease("k", dial);
  await clock.advance(1000);
  assert.equal((await third).conn, dial.conns[2]); // a draining conn does not count towards maxKeyConns
  assert.deepEqual([dial.count, dial.conns[1]?.closes], [3, 0]);
  first.release();
  (await second).release();
  await settle();
  assert.equal(dial.conns[1]?.closes, 1);
  assert.equal(pool.stats().open, 1);
});
