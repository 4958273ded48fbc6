import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome, soon } from "../support/outcome.ts";
import { pooled, useOnce } from "../support/pool.ts";

test("minIdle conns are kept ready for a key in use, refilled in the background", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, minIdle: 2 });
  assert.equal(dial.count, 0); // no key is in use
  const lease = await pool.acquire("k");
  await settle();
  assert.deepEqual([dial.count, pool.stats().idle, pool.stats().leased], [3, 2, 1]);
  lease.release();
  await settle();
  assert.deepEqual([dial.count, pool.stats().idle], [3, 3]); // more than that is not closed
  for (const conn of dial.conns.slice(0, 2)) conn.die();
  await settle();
  assert.deepEqual([dial.count, pool.stats().idle], [4, 2]);
});

test("a call that comes while the refill is dialed takes what it brings, and starts no dial of its own", async (t) => {
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const { pool } = pooled(t, { dial, minIdle: 1 });
  const first = pool.acquire("k");
  dial.pending[0]?.arrive();
  await first;
  await settle();
  assert.equal(dial.count, 2);
  const second = outcome(pool.acquire("k"));
  await settle();
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive();
  await settle();
  assert.deepEqual([second.state, dial.count], ["resolved", 3]); // and the next is on its way
});

for (const [limits, idle] of [
  [{ keyCapacity: 2 }, 2],
  [{ capacity: 1 }, 1],
  [{ maxKeyConns: 3 }, 2], // one is leased
  [{ maxConns: 4 }, 3],
  [{ keyCapacity: -1 }, 0],
  [{ capacity: -1 }, 0],
] as const) {
  test(`the refill never passes the limits: ${JSON.stringify(limits)}`, async (t) => {
    const dial = scriptedDial();
    const { pool } = pooled(t, { dial, minIdle: 5, ...limits });
    const lease = await pool.acquire("k");
    await settle();
    assert.equal(pool.stats().idle, idle);
    const { count } = dial;
    lease.release();
    await settle();
    for (let i = 0; i < 3; i++) await useOnce(pool);
    await settle();
    assert.ok(dial.count <= count + 3, `${dial.count - count} dials for 3 uses`);
    assert.ok(pool.stats().idle <= Math.max(idle, 4) && pool.stats().dialing === 0);
  });
}

test("maxKeyDials bounds the refill's dials, too", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool } = pooled(t, { dial, minIdle: 5, maxKeyDials: 2 });
  const first = pool.acquire("k");
  dial.pending[0]?.arrive();
  await first;
  await settle();
  for (let i = 1; i < 6; i++) {
    assert.ok(pool.stats().dialing <= 2);
    dial.pending[i]?.arrive();
    await settle();
  }
  assert.deepEqual([pool.stats().idle, pool.stats().dialing], [5, 0]);
});

test("a refill that found no place under maxConns is dialed when there is one, and takes it from no caller", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, limits: (key) => ({ minIdle: key === "k" ? 1 : 0 }), maxConns: 2 });
  const other = await pool.acquire("other");
  const own = await pool.acquire("k");
  const waiting = outcome(pool.acquire("third"));
  await settle();
  assert.deepEqual([dial.count, pool.stats("k").idle], [2, 0]);
  dial.conns[0]?.die();
  await settle();
  assert.deepEqual([waiting.state, pool.stats("k").idle], ["resolved", 0]); // the caller first
  dial.conns[2]?.die();
  await settle();
  assert.equal(pool.stats("k").idle, 1);
  for (const lease of [other, own]) lease.release();
});

test("a failed refill is tried again by itself: after 50 ms to 1 s, or when the backoff says so", async (t) => {
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const { pool, clock } = pooled(t, { dial, minIdle: 1 });
  const first = pool.acquire("k");
  dial.pending[0]?.arrive();
  const lease = await first;
  await settle();
  dial.pending[1]?.fail(new Error("ECONNREFUSED"));
  await settle();
  assert.equal(dial.count, 2);
  await clock.advance(50);
  assert.equal(dial.count, 3);
  lease.release();
  dial.pending[2]?.fail(new Error("ECONNREFUSED"));
  await settle();
  pool.configure({ backoff: { baseMs: 100, maxMs: 100, maxAttempts: 4 } });
  await clock.advance(100);
  const again = await pool.acquire("k");
  await settle();
  for (const expected of [4, 5]) {
    assert.equal(dial.count, expected);
    dial.pending[expected - 1]?.fail(new Error("ECONNREFUSED"));
    await clock.advance(100);
  }
  await clock.advance(10_000);
  assert.equal(dial.count, 5); // four failed in a row: that was maxAttempts
  again.release();
});

test("idle conns do not expire while their key is used within expirationMs, and are not kept after that", async (t) => {
  const dial = scriptedDial();
  const { pool, clock } = pooled(t, { dial, minIdle: 2, expirationMs: 1000 });
  await useOnce(pool);
  for (let i = 0; i < 20; i++) {
    await clock.advance(900);
    assert.ok(pool.stats().idle >= 2);
    await useOnce(pool);
  }
  await clock.advance(999);
  assert.ok(pool.stats().idle >= 2);
  await clock.advance(251);
  assert.deepEqual([pool.stats().idle, [...pool.keys()]], [0, []]);
  const { count } = dial;
  await clock.advance(60_000);
  assert.equal(dial.count, count); // not refilled
  await useOnce(pool);
  await settle();
  assert.ok(pool.stats().idle >= 2); // and from the next use on, it is
});

test("idle conns stay though their own time is over while the key is used, then they go with it", async (t) => {
  for (let heldMs = 5000; heldMs < 6000; heldMs += 100) {
    const dial = scriptedDial();
    const { pool, clock } = pooled(t, { dial, minIdle: 2, expirationMs: 1000 });
    const lease = await pool.acquire("k"); // one long stream: the key is in use
    await clock.advance(heldMs);
    assert.deepEqual([dial.count, pool.stats().idle, pool.stats().closed.expired], [3, 2, 0]);
    lease.release();
    await clock.advance(999);
    assert.ok(pool.stats().idle >= 2);
    await clock.advance(251);
    assert.deepEqual([dial.count, pool.stats().open, pool.stats().closed.expired], [3, 0, 3], `held ${heldMs} ms`);
  }
});

test("when a key is kept no longer, a conn that came late still has its own time", async (t) => {
  const { pool, clock } = pooled(t, { dial: scriptedDial(), minIdle: 3, expirationMs: 1000 });
  await useOnce(pool);
  await clock.advance(900);
  const late = new ScriptedConn();
  pool.put("k", late);
  await clock.advance(500);
  assert.equal(late.closes, 0);
  await clock.advance(750);
  assert.deepEqual([late.closes, pool.stats().open], [1, 0]);
});

test("without an expiration a key is kept for a minute after its last use; its conns stay", async (t) => {
  const dial = scriptedDial();
  const { pool, clock } = pooled(t, { dial, minIdle: 1 });
  await useOnce(pool);
  await clock.advance(59_000);
  dial.conns[0]?.die();
  await settle();
  assert.equal(dial.count, 2);
  await clock.advance(1000);
  assert.equal(pool.stats().idle, 1);
  dial.conns[1]?.die();
  await settle();
  assert.deepEqual([dial.count, [...pool.keys()]], [2, []]);
});

test("a key whose conns were evicted for others is refilled on its next use, not before", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, limits: (key) => ({ minIdle: key === "k" ? 2 : 0 }), maxConns: 3 });
  const lease = await pool.acquire("k");
  await settle();
  assert.deepEqual([pool.stats("k").open, dial.count], [3, 3]);
  const other = await soon(pool.acquire("other"));
  await settle();
  assert.deepEqual([pool.stats("k").idle, dial.count], [1, 4]);
  dial.conns[3]?.die(); // there is a place again
  await settle();
  assert.deepEqual([pool.stats("k").idle, dial.count], [1, 4]);
  lease.release();
  await useOnce(pool);
  await settle();
  assert.deepEqual([pool.stats("k").idle, dial.count], [3, 5]);
  other.release();
});

test("a conn that is taken leaves a gap that is filled; closing the pool fills none", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, minIdle: 1 });
  await useOnce(pool);
  await settle();
  assert.deepEqual([pool.take("k") !== undefined, pool.take("k") !== undefined, dial.count], [true, true, 3]);
  await settle();
  assert.equal(dial.count, 3);
  await pool.close();
  assert.equal(dial.count, 3);
});
