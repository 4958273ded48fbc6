import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { deferred, ScriptedConn } from "../support/conn.ts";
import { pooled } from "../support/pooled.ts";

/** Named conns of one key, given in this order. */
function named<T extends string>(...names: T[]): Record<T, ScriptedConn> {
  const conns: Record<string, ScriptedConn> = {};
  for (const name of names) conns[name] = new ScriptedConn({ tags: { name } });
  return conns as Record<T, ScriptedConn>;
}

test("row 6: choosing scans oldest first: the conn given back first is taken first", (t) => {
  const { pool } = pooled(t);
  const { a, b, c } = named("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  const check = (expected: ScriptedConn, why: string) => {
    const lease = pool.tryAcquire("k");
    assert.equal(lease?.conn, expected, why);
    lease?.release();
  };
  check(a, "put first");
  check(b, "a was given back just now");
  check(c, "so was b");
  check(a, "round again");
});

test("row 6: conns that run streams come before idle ones, the one longest with room first", (t) => {
  const { pool } = pooled(t);
  const [a, b, c] = [1, 2, 3].map(() => new ScriptedConn({ maxStreams: 2 }));
  for (const conn of [a, b, c]) if (conn !== undefined) pool.put("k", conn);
  const take = () => pool.tryAcquire("k")?.conn;
  assert.equal(take(), a); // all idle: the oldest
  assert.equal(take(), a); // it runs a stream and has room
  assert.equal(take(), b); // a is full
  assert.equal(take(), b);
  assert.equal(take(), c);
  assert.equal(take(), c);
  assert.equal(take(), undefined); // all full
});

test('row 6: selection "newest" is the same from the other end', (t) => {
  const { pool } = pooled(t, { selection: "newest" });
  const { a, b, c } = named("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  assert.equal(pool.tryAcquire("k")?.conn, c);
  assert.equal(pool.tryAcquire("k")?.conn, b);
  assert.equal(pool.tryAcquire("k")?.conn, a);
});

test("row 6: blocked conns are skipped but stay, and come again when they are free", async (t) => {
  const { pool } = pooled(t);
  const { a, b } = named("a", "b");
  for (const conn of [a, b]) pool.put("k", conn);
  pool.tryAcquire("k")?.release(); // a has run a stream: it is asked from now on
  pool.tryAcquire("k")?.release(); // and so has b
  const flushed = deferred();
  a.blockedUntil = flushed.promise;

  const lease = pool.tryAcquire("k");
  assert.equal(lease?.conn, b); // a was skipped
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.deepEqual([pool.stats().open, pool.stats().blocked, pool.stats().idle], [2, 1, 1]); // it stays
  const { asked } = a;
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(a.asked, asked); // and is not asked again until its promise settles
  a.blockedUntil = undefined;
  flushed.resolve();
  await settle();
  assert.equal(pool.stats().blocked, 0);
  assert.equal(pool.tryAcquire("k")?.conn, a);
  assert.equal(a.closes, 0);
});

test("row 6: a conn that becomes free keeps the place that its give-back earned", async (t) => {
  const { pool } = pooled(t);
  const { a, b, c } = named("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  for (let i = 0; i < 3; i++) pool.tryAcquire("k")?.release(); // a, b, c in turn
  const flushed = deferred();
  a.blockedUntil = flushed.promise;
  pool.tryAcquire("k")?.release(); // skips a, takes b: now c is older than b
  a.blockedUntil = undefined;
  flushed.resolve();
  await settle();
  assert.equal(pool.tryAcquire("k")?.conn, a); // the oldest give-back still
  assert.equal(pool.tryAcquire("k")?.conn, c);
  assert.equal(pool.tryAcquire("k")?.conn, b);
});

test("row 6: dead conns are dropped and the scan goes on; nothing dead is handed out", async (t) => {
  const { pool } = pooled(t);
  const { a, b, c } = named("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  a.die();
  b.die();
  await Promise.resolve(); // known to the pool one microtask later
  assert.equal(pool.tryAcquire("k")?.conn, c);
  assert.deepEqual([pool.stats().open, pool.stats().closed.died], [1, 2]);
  assert.deepEqual([a.closes, b.closes], [0, 0]); // what has closed is not closed again
});

test("row 6: a conn whose closed rejects is dead too", async (t) => {
  const { pool } = pooled<PoolConn>(t);
  const closed = deferred();
  pool.put("k", { close: () => assert.fail("it is closed already"), closed: closed.promise });
  closed.reject(new Error("ECONNRESET"));
  await settle();
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().open, 0);
});

test("row 7: giving back a dead conn drops it without closing it a second time", async (t) => {
  const { pool } = pooled(t);
  const { a } = named("a");
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

test("row 7: giving back a conn that dies in the same turn caches nothing", async (t) => {
  const { pool } = pooled(t);
  const { a } = named("a");
  pool.put("k", a);
  const lease = pool.tryAcquire("k");
  a.die();
  lease?.release(); // before the pool can know
  await settle();
  assert.equal(a.closes, 0);
  assert.deepEqual([...pool.keys()], []);
});

test("row 7: a lease is given back once, however often it is released", (t) => {
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

test("row 20: a conn may say that it must not be used before some time: until then it counts as blocked", async (t) => {
  const { pool, clock } = pooled(t);
  const { limited, other } = named("limited", "other");
  for (const conn of [limited, other]) pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  limited.blockedUntil = new Promise<void>((resolve) => {
    clock.setTimeout(() => {
      limited.blockedUntil = undefined;
      resolve();
    }, 1000);
  });
  const lease = pool.tryAcquire("k");
  assert.equal(lease?.conn, other);
  lease?.release();
  const again = pool.tryAcquire("k");
  assert.equal(again?.conn, other); // the limited one is older, and cooling down
  const waiting = pool.acquire("k", { filter: (_, { tags }) => tags?.["name"] === "limited" });
  await clock.advance(999);
  assert.equal(pool.stats().blocked, 1);
  await clock.advance(1);
  assert.equal((await waiting).conn, limited);
});

test("row 20: a conn whose unblocked() rejects is closed, and its waiter is dialed for", async (t) => {
  const { pool } = pooled(t);
  const { a, b } = named("a", "b");
  pool.put("k", a);
  pool.tryAcquire("k")?.release();
  a.blockedUntil = Promise.reject(new Error("flush failed"));
  const lease = await pool.acquire("k", { dial: () => b });
  assert.equal(lease.conn, b);
  await settle();
  assert.deepEqual([a.closes, pool.stats().closed.blocked], [1, 1]);
});
