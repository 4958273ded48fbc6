import assert from "node:assert/strict";
import { test } from "node:test";
import { settle, turns } from "../support/clock.ts";
import { deferred, namedConns, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

test("blocked conns are skipped but stay, and come again when they are free", async (t) => {
  const { pool } = pooled(t);
  const { a, b } = namedConns("a", "b");
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

test("a conn that flushes a cancelled RPC is waited for, is not asked meanwhile, and serves the waiter when it is free", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  const flushed = deferred();
  lease.conn.blockedUntil = flushed.promise;
  lease.release();
  const waiter = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual([waiter.state, dial.count, pool.stats().blocked], ["pending", 1, 1]);
  const { asked } = lease.conn;
  outcome(pool.acquire("k"));
  assert.equal(lease.conn.asked, asked, "it is not asked again before that");
  lease.conn.blockedUntil = undefined;
  flushed.resolve();
  await settle();
  assert.equal(waiter.value?.conn, lease.conn);
});

test("a conn that becomes free keeps the place that its give-back earned", async (t) => {
  const { pool } = pooled(t, { selection: "oldest" });
  const { a, b, c } = namedConns("a", "b", "c");
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

test("a conn may say that it must not be used before some time: until then it counts as blocked", async (t) => {
  const { pool, clock } = pooled(t);
  const { limited, other } = namedConns("limited", "other");
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

test("a conn that is blocked twice over is skipped until both are done", async (t) => {
  const conn = new ScriptedConn({ maxStreams: 2 });
  const flushed = deferred();
  const { pool } = pooled(t, { maxKeyConns: 1, reset: () => new Promise(() => {}), dial: () => conn });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  b.release();
  conn.blockedUntil = flushed.promise;
  const waiter = outcome(pool.acquire("k"));
  a.release(); // the last stream: a reset begins
  conn.blockedUntil = undefined;
  flushed.resolve();
  await settle();
  assert.equal(pool.stats("k").blocked, 1);
  assert.equal(waiter.state, "pending");
});

test("a conn whose unblocked() rejects is closed, and its place is the waiter's", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  lease.conn.blockedUntil = Promise.reject(new Error("reset"));
  lease.release();
  const next = await soon(pool.acquire("k"));
  assert.equal(next.conn, dial.conns[1]);
  assert.deepEqual([lease.conn.closes, dial.count, pool.stats().closed.blocked], [1, 2, 1]);
  next.release();
});

test("a conn that answers each question with a new promise does not starve the event loop", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  lease.conn.blockedUntil = Promise.resolve();
  lease.release();
  const stop = new AbortController();
  const waiter = outcome(pool.acquire("k", { signal: stop.signal }));
  await turns(20);
  assert.equal(waiter.state, "pending");
  stop.abort();
  await settle();
});

test("a conn that goes while it is asked, and says that it is blocked, is gone: what it says then is not heard", async (t) => {
  const { pool } = pooled(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  conn.unblocked = () => {
    pool.clear();
    return Promise.reject(new Error("too late"));
  };
  assert.equal(pool.tryAcquire("k"), undefined);
  await turns();
  assert.deepEqual([conn.closes, pool.stats().closed.cleared], [1, 1]);
});
