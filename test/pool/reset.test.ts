import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { type Deferred, deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test("a conn is reset on give-back, at once where reset is not async", async (t) => {
  const done: ScriptedConn[] = [];
  const { pool } = pooled(t, { reset: (conn) => void done.push(conn) });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  assert.deepEqual(done, []); // it has not been used
  const lease = pool.tryAcquire("k");
  assert.deepEqual(done, []);
  lease?.release();
  assert.deepEqual(done, [conn]);
  assert.equal(pool.tryAcquire("k")?.conn, conn);
});

test("while a conn is being reset it counts as blocked, and nobody gets it; then the waiter does", async (t) => {
  const reset = deferred();
  const { pool } = pooled(t, { reset: () => reset.promise, maxKeyConns: 1 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const lease = pool.tryAcquire("k");
  const waiting = outcome(pool.acquire("k", { dial: scriptedDial() }));
  lease?.release();
  await settle();
  assert.equal(waiting.state, "pending");
  const { blocked, idle, open } = pool.stats();
  assert.deepEqual([blocked, idle, open], [1, 1, 1]);
  assert.deepEqual([pool.tryAcquire("k"), pool.take("k")], [undefined, undefined]);
  reset.resolve();
  await settle();
  assert.equal(waiting.value?.conn, conn);
});

test("a conn of many streams is reset when the last of them has ended", async (t) => {
  let resets = 0;
  const { pool } = pooled(t, { reset: () => void resets++ });
  pool.put("k", new ScriptedConn({ maxStreams: 3 }));
  const leases = [1, 2, 3].map(() => pool.tryAcquire("k"));
  for (const [i, lease] of leases.entries()) {
    assert.equal(resets, 0, `${3 - i} streams run`);
    lease?.release();
  }
  assert.equal(resets, 1);
});

for (const [how, fail] of [
  ["throws", () => assert.fail("broken reset")],
  ["rejects", () => Promise.reject(new Error("broken reset"))],
] as const) {
  test(`a conn whose reset ${how} is closed, and its place given to a waiter`, async (t) => {
    const { pool } = pooled(t, { reset: fail, maxKeyConns: 1 });
    const conn = new ScriptedConn();
    pool.put("k", conn);
    const lease = pool.tryAcquire("k");
    const dial = scriptedDial();
    const waiting = pool.acquire("k", { dial });
    await settle();
    lease?.release();
    assert.equal((await soon(waiting)).conn, dial.conns[0]);
    assert.deepEqual([conn.closes, pool.stats().closed.reset, dial.count], [1, 1, 1]);
  });
}

test("a reset that hangs is a failure after dialTimeoutMs, and holds no other key up before", async (t) => {
  const { pool, clock } = pooled(t, { reset: () => new Promise(() => {}), maxConns: 1, dialTimeoutMs: 1000 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  const own = outcome(pool.acquire("k", { dial: scriptedDial() }));
  await clock.advance(999);
  assert.equal(own.state, "pending");
  await clock.advance(1);
  assert.deepEqual([own.state, conn.closes, pool.stats().closed.reset], ["resolved", 1, 1]);
  own.value?.release(); // its reset hangs, too
  const other = await soon(pool.acquire("other", { dial: scriptedDial() }));
  assert.equal(pool.stats().closed.evicted, 1);
  other.release();
});

test("a conn that dies, is cleared or evicted while it is reset is closed once, whatever reset says then", async (t) => {
  const resets: Deferred<void>[] = [];
  const { pool } = pooled(t, {
    keyCapacity: 1,
    reset: () => {
      const reset = deferred();
      resets.push(reset);
      return reset.promise;
    },
  });
  const [dying, cleared, evicted] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
  const giveBack = (key: string, conn: ScriptedConn) => {
    pool.put(key, conn);
    pool.tryAcquire(key)?.release();
  };
  giveBack("a", dying);
  giveBack("b", cleared);
  giveBack("c", evicted);
  dying.die();
  pool.clear("b");
  pool.put("c", new ScriptedConn());
  await settle();
  for (const reset of resets) reset.reject(new Error("too late"));
  await settle();
  assert.deepEqual([dying.closes, cleared.closes, evicted.closes], [0, 1, 1]);
  const { died, cleared: c, evicted: e, reset } = pool.stats().closed;
  assert.deepEqual([died, c, e, reset, pool.stats().open], [1, 1, 1, 0, 1]);
});

test("what was validated and not used needs no reset", async (t) => {
  let resets = 0;
  const { pool, clock } = pooled(t, { validate: async () => true, reset: () => void resets++ });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  await clock.advance(500);
  const lease = await pool.acquire("k");
  assert.equal(resets, 0);
  lease.release();
  assert.equal(resets, 1);
});

test("a reset may use the pool", async (t) => {
  const { pool } = pooled(t, { reset: (): void => pool.tryAcquire("k")?.release(), keyCapacity: 1 });
  for (let i = 0; i < 3; i++) pool.put("k", new ScriptedConn());
  const lease = pool.tryAcquire("k");
  pool.put("k", new ScriptedConn());
  lease?.release();
  await settle();
  assert.deepEqual([pool.stats().idle, pool.stats().streams], [1, 0]);
});
