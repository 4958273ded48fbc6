import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { pooled } from "../support/pooled.ts";

/** Never early, and at most a quarter late. */
const late = 0.25;

test("row 11: expiration starts at each give-back: never early, at most a quarter late", async (t) => {
  const { pool, clock, lease } = pooled(t, { expirationMs: 1000 });
  const dial = scriptedDial();
  for (const pause of [0, 1, 33, 500, 777]) {
    await clock.advance(pause); // wherever the pool's timer stands
    const held = await lease("k", dial);
    await clock.advance(100);
    held.release();
    const conn = dial.conns.at(-1);
    await clock.advance(999);
    assert.equal(conn?.closes, 0, `early, after a pause of ${pause}`);
    await clock.advance(1 + 1000 * late);
    assert.equal(conn?.closes, 1, `late, after a pause of ${pause}`);
  }
  assert.equal(pool.stats().closed.expired, 5);
  assert.deepEqual([...pool.keys()], []);
  assert.equal(clock.mostTimers, 1);
});

test("row 11: each give-back starts the time anew", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  for (let i = 0; i < 20; i++) {
    await clock.advance(700);
    pool.tryAcquire("k")?.release();
    assert.equal(conn.closes, 0);
  }
  await clock.advance(999);
  assert.equal(conn.closes, 0);
  await clock.advance(1 + 1000 * late);
  assert.equal(conn.closes, 1);
});

test("row 11: it stops at each take: what runs a stream does not expire, however long", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const conn = new ScriptedConn({ maxStreams: 2 });
  pool.put("k", conn);
  await clock.advance(990);
  const [one, two] = [pool.tryAcquire("k"), pool.tryAcquire("k")];
  await clock.advance(100_000);
  one?.release();
  await clock.advance(100_000); // the second stream runs on
  assert.equal(conn.closes, 0);
  two?.release();
  await clock.advance(999);
  assert.equal(conn.closes, 0);
  await clock.advance(1 + 1000 * late);
  assert.equal(conn.closes, 1);
});

test("row 11: conns of many keys expire each in its own time, oldest first", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const closed: string[] = [];
  for (const name of ["a", "b", "c", "d"]) {
    pool.put(name, new ScriptedConn({ close: () => closed.push(name) }));
    await clock.advance(300);
  }
  assert.deepEqual(closed, ["a"]); // 1200 after a, 900 after b
  await clock.advance(50);
  assert.deepEqual(closed, ["a"]); // never early
  await clock.advance(300);
  assert.deepEqual(closed, ["a", "b"]);
  await clock.advance(1000);
  assert.deepEqual(closed, ["a", "b", "c", "d"]);
});

test("row 11: zero means never, and a negative expiration is refused", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 0 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  await clock.advance(10 * 24 * 3600_000);
  assert.equal(conn.closes, 0);
  assert.equal(clock.mostTimers, 0);
  assert.throws(() => pool.configure({ expirationMs: -1 }), { code: "ERR_POOL_ARGUMENT" });
});

test("row 11: each conn is closed exactly once, whoever wins: expiry, eviction, death, clear or the pool's close", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000, capacity: 1 });
  const make = () => new ScriptedConn();
  const [evicted, died, cleared, taken, last] = [make(), make(), make(), make(), make()];
  const past = () => clock.advance(5000);
  pool.put("k", evicted);
  pool.put("k", died); // evicts the first
  await past();
  assert.deepEqual([evicted.closes, died.closes], [1, 1]); // the second has expired
  pool.put("k", cleared);
  pool.clear();
  await past();
  assert.equal(cleared.closes, 1);
  pool.put("k", taken);
  assert.equal(pool.take("k"), taken);
  await past();
  assert.equal(taken.closes, 0); // the caller's, not the pool's
  const dead = make();
  pool.put("k", dead);
  dead.die();
  await past();
  assert.equal(dead.closes, 0);
  pool.put("k", last);
  const closing = pool.close();
  await past();
  await closing;
  assert.equal(last.closes, 1);
  const { closed } = pool.stats();
  assert.deepEqual([closed.evicted, closed.expired, closed.cleared, closed.died, closed.pool], [1, 1, 1, 1, 1]);
});

test("row 11: an expiry whose time has come finds a conn that was taken in the same turn, and leaves it alone", async (t) => {
  const { pool, clock, lease } = pooled(t, { expirationMs: 1000 });
  const dial = scriptedDial();
  (await lease("k", dial)).release();
  let held = pool.tryAcquire("k");
  held?.release();
  clock.setTimeout(() => {
    held = pool.tryAcquire("k");
  }, 1000);
  await clock.advance(10_000);
  assert.ok(held !== undefined);
  assert.equal(dial.conns[0]?.closes, 0);
  held.release();
});

test("row 13, defects: an expiry that races a slow close removes nothing twice", async (t) => {
  const slow = deferred();
  const { pool, clock } = pooled(t, { expirationMs: 1000, capacity: 2 });
  const [a, b, c] = [1, 2, 3].map(() => new ScriptedConn({ close: () => slow.promise }));
  for (const conn of [a, b, c]) if (conn !== undefined) pool.put("k", conn); // evicts a, whose close hangs
  await clock.advance(3000); // b and c expire, and hang too
  slow.resolve();
  await settle();
  assert.deepEqual([a?.closes, b?.closes, c?.closes], [1, 1, 1]);
  const { open, idle, keys, closed } = pool.stats();
  assert.deepEqual([open, idle, keys, closed.evicted, closed.expired], [0, 0, 0, 1, 2]);
});

test("row 11: one timer, however many keys, and none when nothing is idle", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  for (let i = 0; i < 2000; i++) pool.put(`k${i}`, new ScriptedConn());
  assert.equal(clock.timers, 1);
  await clock.advance(1300);
  assert.deepEqual([pool.stats().open, pool.stats().keys, clock.timers, clock.mostTimers], [0, 0, 0, 1]);
});

test("row 11: a key of its own expiration has it", async (t) => {
  const { pool, clock } = pooled(t, {
    expirationMs: 1000,
    limits: (key) => (key === "long" ? { expirationMs: 10_000 } : undefined),
  });
  const [long, short] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("long", long);
  pool.put("short", short);
  await clock.advance(1250);
  assert.deepEqual([long.closes, short.closes], [0, 1]);
  await clock.advance(8749);
  assert.equal(long.closes, 0);
  await clock.advance(2501);
  assert.equal(long.closes, 1);
});
