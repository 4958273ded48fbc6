import assert from "node:assert/strict";
import { test } from "node:test";
import { DialError, WaitTimeoutError } from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome, rejection, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test("warm resolves when as many conns are ready, and prefers those that are there", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool } = pooled(t, { dial });
  pool.put("k", new ScriptedConn());
  await soon(pool.warm("k"));
  assert.equal(dial.count, 0);
  const warm = outcome(pool.warm("k", 3));
  await settle();
  assert.equal(dial.count, 2);
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(warm.state, "pending");
  dial.pending[1]?.arrive();
  await settle();
  assert.deepEqual([warm.state, pool.stats().idle], ["resolved", 3]);
  const lease = await pool.acquire("k");
  await soon(pool.warm("k", 3)); // one in use is warm, too
  assert.equal(dial.count, 2);
  lease.release();
});

test("warm takes a dial of its own; a count of zero or less warms nothing", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial();
  await soon(pool.warm("k", 2, { dial }));
  assert.equal(dial.count, 2);
  await soon(pool.warm("other", 0, { dial }));
  await soon(pool.warm("other", -1, { dial }));
  assert.deepEqual([dial.count, [...pool.keys()]], [2, ["k"]]);
});

test("warm rejects with the last error, at once, or with waitForReady when its time is up", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial, backoff: { baseMs: 100, maxMs: 100 } });
  const impatient = rejection(pool.warm("k", 2));
  const patient = rejection(pool.warm("k", 2, { waitForReady: true, timeoutMs: 500 }));
  await settle();
  const cause = new Error("ECONNREFUSED");
  dial.pending[0]?.fail(cause);
  assert.deepEqual([(await impatient).name, (await impatient).cause], ["DialError", cause]);
  assert.equal((await rejection(pool.warm("k"))).cause, cause); // while the backoff runs, at once
  await clock.advance(500);
  const late = await patient;
  assert.ok(late instanceof WaitTimeoutError && late.cause instanceof DialError && late.cause.cause === cause);
  assert.deepEqual([late.askedMs, late.waitedMs], [500, 500]);
  assert.equal(pool.stats().dialing, 0); // nobody wants the conns any more
  await clock.advance(100);
  assert.deepEqual([...pool.keys()], []);
});

test("warm with waitForReady outlives failed dials, but no final one", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial });
  const warm = outcome(pool.warm("k", 1, { waitForReady: true }));
  await settle();
  dial.pending[0]?.fail(new Error("ECONNREFUSED"));
  await clock.advance(50);
  assert.deepEqual([warm.state, dial.count], ["pending", 2]);
  dial.pending[1]?.fail(Object.assign(new Error("no such key"), { final: true }));
  await settle();
  assert.deepEqual([warm.state, dial.count, [...pool.keys()]], ["rejected", 2, []]);
});

test("warm dials at most maxAttempts times in a row", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial, backoff: { baseMs: 10, maxMs: 10, maxAttempts: 3 } });
  const warm = outcome(pool.warm("k", 1, { waitForReady: true }));
  await settle();
  for (let i = 0; i < 3; i++) {
    dial.pending[i]?.fail(new Error("ECONNREFUSED"));
    await clock.advance(10);
  }
  await clock.advance(1000);
  assert.deepEqual([warm.state, dial.count], ["rejected", 3]);
});

test("an abort or a timeout ends warm, and abandons the dials that nobody else wants", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial });
  const caller = new AbortController();
  const aborted = rejection(pool.warm("k", 3, { signal: caller.signal }));
  const shorter = rejection(pool.warm("k", 1, { timeoutMs: 100 }));
  await settle();
  assert.equal(dial.count, 3);
  caller.abort(new Error("gone"));
  assert.equal((await aborted).message, "gone");
  assert.deepEqual(
    dial.pending.map(({ signal }) => signal.aborted),
    [false, true, true],
  );
  await clock.advance(100);
  assert.equal((await shorter).name, "WaitTimeoutError");
  assert.deepEqual([dial.pending[0]?.signal.aborted, [...pool.keys()]], [true, []]);
  await assert.rejects(pool.warm("k", 1, { signal: AbortSignal.abort(new Error("before")) }), { message: "before" });
});

test("a call that waits keeps the dial that warm has left", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool } = pooled(t, { dial });
  const caller = new AbortController();
  const warm = rejection(pool.warm("k", 1, { signal: caller.signal }));
  await settle();
  const lease = outcome(pool.acquire("k"));
  await settle();
  assert.equal(dial.count, 1);
  caller.abort(new Error("gone"));
  await warm;
  dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([lease.state, dial.count], ["resolved", 1]);
});

for (const limits of [{ maxKeyConns: 2 }, { maxConns: 2 }, { keyCapacity: 2 }, { capacity: 2 }]) {
  test(`warm dials as many as the limits allow: ${JSON.stringify(limits)}`, async (t) => {
    const dial = scriptedDial();
    const { pool } = pooled(t, { dial, ...limits });
    await soon(pool.warm("k", 5));
    assert.deepEqual([dial.count, pool.stats().idle], [2, 2]);
  });
}

test("where other keys hold the places, warm waits for one", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxConns: 1 });
  const lease = await pool.acquire("other");
  const warm = outcome(pool.warm("k"));
  await settle();
  assert.deepEqual([warm.state, dial.count], ["pending", 1]);
  dial.conns[0]?.die();
  await settle();
  assert.deepEqual([warm.state, pool.stats("k").idle], ["resolved", 1]);
  lease.release();
});

test("warm evicts no idle conn of another key: it resolves with as many conns as are left", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxConns: 2 });
  await Promise.all([soon(pool.warm("a", 2)), soon(pool.warm("b", 2))]);
  assert.deepEqual([pool.stats("a").idle, pool.stats("b").open, pool.stats().closed.evicted], [2, 0, 0]);
});

test("warm that waits for a place resolves when the last of them has become idle elsewhere", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxConns: 2 });
  const leases = [await pool.acquire("a"), await pool.acquire("b")];
  const warm = outcome(pool.warm("k"));
  leases[0]?.release();
  await settle();
  assert.equal(warm.state, "pending");
  leases[1]?.release();
  await settle();
  assert.deepEqual([warm.state, pool.stats().keys], ["resolved", 2]);
});

test("warm without a dial is NoConnError; with a filter that refuses what is dialed it is NoMatchError, after one dial", async (t) => {
  const { pool } = pooled(t);
  assert.equal((await rejection(pool.warm("k"))).name, "NoConnError");
  const dial = scriptedDial({ tags: { zone: "west" } });
  const filter = (_: unknown, info: { tags: unknown }) => JSON.stringify(info.tags) === '{"zone":"east"}';
  assert.equal((await rejection(pool.warm("k", 1, { dial, filter }))).name, "NoMatchError");
  await settle();
  assert.equal(dial.count, 1);
});

test("closing the pool rejects warm", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial({}, { manual: true }) });
  const warm = rejection(pool.warm("k"));
  await settle();
  void pool.close();
  assert.equal((await warm).name, "PoolClosedError");
});
