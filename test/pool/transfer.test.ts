import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test("put adopts a conn that the pool did not dial: it counts, is handed out and closed like any other", async (t) => {
  const { pool, lease } = pooled(t, { capacity: 1 });
  const dial = scriptedDial();
  const inbound = new ScriptedConn({ tags: { inbound: true } });
  assert.equal(pool.put("k", inbound), true);
  assert.deepEqual([pool.stats().open, pool.stats().idle, pool.stats().dials], [1, 1, 0]);
  const held = await lease("k", dial);
  assert.deepEqual([held.conn, dial.count], [inbound, 0]);
  held.release();
  pool.put("other", new ScriptedConn());
  assert.deepEqual([inbound.closes, pool.stats().closed.evicted], [1, 1]);
});

test("what is put goes to waiters before the cache, oldest first", async (t) => {
  const { pool } = pooled(t, { maxKeyDials: -1 });
  const dial = scriptedDial();
  const [one, two] = [pool.acquire("k", { dial }), pool.acquire("k", { dial })];
  const [a, b, c] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
  for (const conn of [a, b, c]) pool.put("k", conn);
  assert.deepEqual([(await one).conn, (await two).conn], [a, b]);
  assert.deepEqual([pool.stats().idle, dial.count], [1, 0]);
});

test("a conn that is put serves the waiter, and the dial that nobody needs any more is abandoned", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const waiting = pool.acquire("k", { dial });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  assert.equal((await waiting).conn, conn);
  assert.equal(dial.pending[0]?.signal.aborted, true);
  const late = dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([late?.closes, pool.stats().open], [1, 1]);
});

test("at an open limit an idle conn is evicted for what is put; where none is, this one is closed: false", async (t) => {
  for (const limits of [{ maxKeyConns: 1 }, { maxConns: 1 }]) {
    const { pool } = pooled(t, limits);
    const [first, second, third] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
    assert.equal(pool.put("k", first), true);
    assert.equal(pool.put("k", second), true);
    assert.deepEqual([first.closes, second.closes], [1, 0]);
    const lease = pool.tryAcquire("k");
    assert.equal(pool.put("k", third), false);
    assert.deepEqual([second.closes, third.closes], [0, 1]);
    lease?.release();
    assert.equal(pool.stats().open, 1);
  }
});

test("at a total limit what is put takes the place of a dial in flight, not that of another key's idle conn", async (t) => {
  const { pool } = pooled(t, { maxConns: 2 });
  const idle = new ScriptedConn();
  pool.put("other", idle);
  const dial = scriptedDial({}, { manual: true });
  const waiting = pool.acquire("k", { dial });
  const conn = new ScriptedConn();
  assert.equal(pool.put("k", conn), true);
  assert.deepEqual([dial.pending[0]?.signal.aborted, idle.closes], [true, 0]);
  const lease = await waiting;
  assert.equal(lease.conn, conn);
  lease.release();
});

test("put refuses a conn that the pool holds already, idle, leased or draining, under any key", async (t) => {
  const { pool } = pooled(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const refused = (key: string) => assert.throws(() => pool.put(key, conn), { code: "ERR_POOL_ARGUMENT" });
  refused("k");
  refused("other");
  const lease = pool.tryAcquire("k");
  refused("k");
  pool.clear();
  refused("k");
  const closing = pool.close();
  refused("k"); // it finishes its stream, as the pool's close lets it
  assert.deepEqual([[...pool.keys()], conn.closes], [["k"], 0]);
  lease?.release();
  await closing;
  assert.equal(conn.closes, 1);
});

test("a conn that has died or was closed is not adopted again", async (t) => {
  const { pool } = pooled(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  conn.die();
  await settle();
  assert.equal(pool.put("k", conn), false);
  const dead = new ScriptedConn();
  dead.die();
  pool.put("k", dead);
  await settle();
  assert.deepEqual([...pool.keys()], []);
  assert.equal(pool.stats().open, 0);
});

test("a conn that is put while it drains is closed: false", async (t) => {
  const { pool } = pooled(t);
  const conn = Object.assign(new ScriptedConn(), { draining: true });
  assert.equal(pool.put("k", conn), false);
  assert.deepEqual([conn.closes, pool.stats().closed.goaway, [...pool.keys()]], [1, 1, []]);
});

test("a conn that was in other hands is asked whether it is blocked before its first stream", async (t) => {
  const { pool } = pooled(t);
  const free = deferred();
  let answer: Promise<void> | undefined = free.promise;
  const conn = Object.assign(new ScriptedConn(), { unblocked: () => answer });
  assert.equal(pool.put("k", conn), true);
  assert.deepEqual([pool.tryAcquire("k"), pool.take("k"), pool.stats().blocked], [undefined, undefined, 1]);
  answer = undefined;
  free.resolve();
  await settle();
  assert.equal(pool.tryAcquire("k")?.conn, conn);
});

test("take hands over an idle conn, the oldest, which the pool then neither counts nor closes", async (t) => {
  const { pool } = pooled(t, { maxConns: 2, expirationMs: 1000 });
  const [a, b] = [new ScriptedConn(), new ScriptedConn()];
  for (const conn of [a, b]) pool.put("k", conn);
  assert.equal(pool.take("k"), a);
  assert.equal(pool.stats().open, 1);
  assert.equal(pool.take("k"), b);
  assert.equal(pool.take("k"), undefined);
  assert.deepEqual([...pool.keys()], []);
  pool.clear();
  await pool.close();
  assert.deepEqual([a.closes, b.closes], [0, 0]);
});

test("take leaves conns alone that run a stream or are blocked", async (t) => {
  const { pool } = pooled(t);
  const [leased, blocked] = [new ScriptedConn({ maxStreams: 2 }), new ScriptedConn()];
  pool.put("k", leased);
  const lease = pool.tryAcquire("k");
  pool.put("k", blocked);
  const full = pool.tryAcquire("k");
  const last = pool.tryAcquire("k");
  assert.deepEqual([full?.conn, last?.conn], [leased, blocked]);
  last?.release();
  blocked.blockedUntil = new Promise(() => {});
  assert.equal(pool.take("k"), undefined);
  assert.equal(pool.stats().open, 2);
  full?.release();
  lease?.release();
});

test("what take took and is put back keeps its uses and its age", async (t) => {
  const { pool, clock } = pooled(t, { maxUses: 3, maxLifetimeMs: 10_000 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  pool.tryAcquire("k")?.release();
  await clock.advance(4000);
  assert.equal(pool.take("k"), conn);
  await clock.advance(1000);
  assert.equal(pool.put("k", conn), true);
  const [info] = pool.stats("k").conns ?? [];
  assert.deepEqual([info?.uses, info?.ageMs], [2, 5000]);
  await clock.advance(5000);
  assert.equal(conn.closes, 1); // ten seconds since it was opened, not since it came back
  const other = new ScriptedConn();
  pool.put("k", other);
  for (let i = 0; i < 2; i++) pool.tryAcquire("k")?.release();
  pool.take("k");
  pool.put("k", other);
  pool.tryAcquire("k")?.release(); // the third use
  assert.equal(other.closes, 1);
  assert.equal(other.subscriptions, 1); // watched once per conn and pool
});

test("what take took and is put back is watched as before: it leaves when it says so, and counts once when it dies", async (t) => {
  const { pool } = pooled(t);
  const [leaving, dying] = [new ScriptedConn(), new ScriptedConn()];
  for (const [key, conn] of [
    ["a", leaving],
    ["b", dying],
  ] as const) {
    assert.equal(pool.put(key, conn), true);
    assert.equal(pool.take(key), conn);
    assert.equal(pool.put(key, conn), true);
  }
  leaving.draining = true;
  leaving.changed();
  dying.die();
  await settle();
  const { open, closed } = pool.stats();
  assert.deepEqual([open, closed.goaway, closed.died, leaving.closes], [0, 1, 1, 1]);
});

test("what take took keeps its generation: it is closed when it is put back after a clear", async (t) => {
  for (const cleared of ["k", undefined]) {
    const { pool } = pooled(t);
    const [old, other] = [new ScriptedConn(), new ScriptedConn()];
    pool.put("k", old);
    pool.put("other", other);
    pool.take("k");
    pool.take("other");
    if (cleared === undefined) pool.clear();
    else pool.clear(cleared);
    assert.equal(pool.put("k", old), false);
    assert.deepEqual([...pool.keys()], []); // what was refused has left no key
    assert.equal(pool.put("other", other), cleared !== undefined); // another key's is not touched by clear("k")
    assert.deepEqual([old.closes, other.closes], [1, cleared === undefined ? 1 : 0]);
    const young = new ScriptedConn();
    assert.equal(pool.put("k", young), true);
  }
});

test("a conn given back or put after close() is closed, not cached", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial();
  const held = await lease("k", dial);
  const taken = new ScriptedConn({ close: () => Promise.reject(new Error("nobody hears it")) });
  pool.put("t", taken);
  pool.take("t");
  const closing = pool.close();
  held.release();
  assert.equal(dial.conns[0]?.closes, 1);
  assert.equal(pool.put("t", taken), false);
  assert.equal(taken.closes, 1);
  await closing;
  assert.deepEqual([pool.stats().open, pool.stats().keys], [0, 0]);
  assert.equal((await rejection(lease("k", dial))).name, "PoolClosedError");
});
