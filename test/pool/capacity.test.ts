import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { pooled } from "../support/pool.ts";
import { questions } from "../support/questions.ts";

/** A pool with idle conns, put in this order; `check` says which are closed, in the order of their closing. */
function filled(
  t: Parameters<typeof pooled>[0],
  limits: { capacity?: number; keyCapacity?: number; selection?: "oldest" },
) {
  const { pool } = pooled(t, limits);
  const closed: string[] = [];
  const conns = new Map<string, ScriptedConn>();
  const put = (key: string, name: string) => {
    const conn = new ScriptedConn({ close: () => closed.push(name), tags: { name } });
    conns.set(name, conn);
    pool.put(key, conn);
  };
  const use = (key: string, name: string) => {
    const lease = pool.tryAcquire(key, { filter: (_, { tags }) => tags?.["name"] === name });
    assert.ok(lease !== undefined, `${name} is not there`);
    lease.release();
  };
  const check = (expected: string, why: string) => assert.equal(closed.join(" "), expected, why);
  return { pool, put, use, check, conns };
}

for (const limits of [{ capacity: -1 }, { keyCapacity: -1 }, { capacity: -5, keyCapacity: 3 }]) {
  test(`with ${JSON.stringify(limits)}, a conn given back that no waiter takes is closed at once`, async (t) => {
    const { pool, lease } = pooled(t, limits);
    const dial = scriptedDial();
    for (const expected of [1, 2, 3]) {
      const held = await lease("k", dial);
      assert.equal(dial.count, expected); // nothing was cached
      held.release();
      assert.equal(dial.conns.at(-1)?.closes, 1);
      assert.equal(pool.stats().open, 0);
    }
    assert.equal(pool.stats().closed.evicted, 3);
  });

  test(`with ${JSON.stringify(limits)}, a waiter still takes what is given back`, async (t) => {
    const { pool, lease } = pooled(t, { ...limits, maxConns: 1 });
    const dial = scriptedDial();
    const held = await lease("k", dial);
    const waiting = lease("k", dial);
    held.release();
    assert.equal((await waiting).conn, held.conn);
    assert.deepEqual([dial.count, pool.stats().closed.evicted], [1, 0]);
  });
}

test("a capacity of zero is unlimited", async (t) => {
  const { pool, lease } = pooled(t, { capacity: 0, keyCapacity: 0 });
  const dial = scriptedDial();
  const held = await Promise.all(Array.from({ length: 200 }, (_, i) => lease(`k${i % 2}`, dial)));
  for (const one of held) one.release();
  assert.deepEqual([dial.count, pool.stats().idle], [200, 200]);
});

test("at the key cap the oldest idle conn of that key is closed first", (t) => {
  const { put, check, pool } = filled(t, { keyCapacity: 2 });
  put("x", "x1");
  put("y", "y1");
  put("y", "y2");
  check("", "nobody is over");
  put("y", "y3");
  check("y1", "the oldest of its key, though x1 is older");
  put("x", "x2");
  put("x", "x3");
  check("y1 x1", "the other key's cap");
  assert.equal(pool.stats().idle, 4);
});

test("after the key cap comes the total cap, which closes the oldest given back of any key", (t) => {
  const { put, check, pool } = filled(t, { capacity: 3, keyCapacity: 2 });
  put("x", "x1");
  put("y", "y1");
  put("y", "y2");
  put("y", "y3");
  check("y1", "the key's cap comes first, and is enough");
  put("z", "z1");
  check("y1 x1", "the total: x1 is the oldest of all");
  put("z", "z2");
  check("y1 x1 y2", "and so on");
  assert.deepEqual([...pool.keys()], ["y", "z"]); // x has left no trace
});

test("the total cap closes the oldest of any key, also where keys have expirations of their own", (t) => {
  const { pool } = pooled(t, { capacity: 3, limits: (key) => ({ expirationMs: Number(key) }) });
  const closed: string[] = [];
  for (const key of ["20", "0", "10", "20", "10", "0"]) {
    pool.put(key, new ScriptedConn({ close: () => closed.push(key) }));
  }
  assert.deepEqual(closed, ["20", "0", "10"]);
});

test("blocked idle conns count, and can be evicted", async (t) => {
  const { put, use, check, conns, pool } = filled(t, { keyCapacity: 2, selection: "oldest" });
  put("x", "x1");
  put("x", "x2");
  use("x", "x1");
  use("x", "x2"); // x1 is the oldest
  const x1 = conns.get("x1");
  assert.ok(x1 !== undefined);
  x1.blockedUntil = new Promise(() => {});
  const lease = pool.tryAcquire("x"); // skips x1
  assert.equal(pool.stats().blocked, 1);
  put("x", "x3");
  check("", "x1 blocked and x3: two idle ones");
  lease?.release();
  check("x1", "x1, x2, x3: the blocked one is the oldest");
  assert.deepEqual([pool.stats().blocked, pool.stats().idle], [0, 2]);
});

test("blocked idle conns count towards the total as well", (t) => {
  const { put, use, check, conns, pool } = filled(t, { capacity: 2 });
  put("x", "x1");
  use("x", "x1");
  const x1 = conns.get("x1");
  assert.ok(x1 !== undefined);
  x1.blockedUntil = new Promise(() => {});
  assert.equal(pool.tryAcquire("x"), undefined);
  put("y", "y1");
  put("z", "z1");
  check("x1", "the oldest, blocked or not");
});

test("a conn that runs streams is never evicted, and one that runs none is, multiplexed or not", async (t) => {
  const { pool, lease } = pooled(t, { capacity: 1 });
  const dial = scriptedDial({ maxStreams: 4 });
  const [a, b, c] = [await lease("a", dial), await lease("b", dial), await lease("c", dial)];
  const second = await lease("a", dial);
  assert.equal(pool.stats().open, 3); // all run: the cap is for idle ones
  a.release();
  b.release();
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [0, 0, 0],
  ); // a runs one stream still; b is the one idle
  c.release();
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [0, 1, 0],
  );
  second.release();
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [0, 1, 1],
  );
});

test("giving back refreshes age in the total order: k1, k2, k1, k3 at capacity 2 closes k2's", (t) => {
  const { put, use, check } = filled(t, { capacity: 2 });
  put("k1", "k1's");
  put("k2", "k2's");
  use("k1", "k1's");
  put("k3", "k3's");
  check("k2's", "k1's was given back after it");
});

test("giving back refreshes age in the key's order: a, b, a, c at key capacity 2 closes b", (t) => {
  const { put, use, check } = filled(t, { keyCapacity: 2 });
  put("k", "a");
  put("k", "b");
  use("k", "a");
  put("k", "c");
  check("b", "a was given back after it");
});

test("a give-back of one of several streams refreshes nothing: the conn was not idle", (t) => {
  const { pool } = pooled(t, { capacity: 2 });
  const [shared, other, third] = [1, 2, 3].map(() => new ScriptedConn({ maxStreams: 2 }));
  assert.ok(shared !== undefined && other !== undefined && third !== undefined);
  pool.put("s", shared);
  const [one, two] = [pool.tryAcquire("s"), pool.tryAcquire("s")];
  one?.release();
  two?.release();
  pool.put("o", other);
  pool.put("t", third);
  assert.deepEqual([shared.closes, other.closes, third.closes], [1, 0, 0]);
});

test("at capacity 1, giving back a second conn of the same key closes the first and orphans none", async (t) => {
  const { pool, lease } = pooled(t, { capacity: 1 });
  const dial = scriptedDial();
  const [one, two] = [await lease("k", dial), await lease("k", dial)];
  one.release();
  two.release();
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [1, 0],
  );
  for (let i = 0; i < 3; i++) {
    const again = await lease("k", dial);
    assert.equal(again.conn, two.conn);
    again.release();
  }
  assert.deepEqual([dial.count, pool.stats().open], [2, 1]);
});

test("among hundreds of keys in use, those evicted are the ones given back longest ago", (t) => {
  const key = fc.integer({ min: 0, max: 599 });
  fc.assert(
    fc.property(fc.array(key, { maxLength: 2000 }), fc.integer({ min: 1, max: 599 }), (uses, capacity) => {
      const { pool } = pooled(t, { expirationMs: 1e6 });
      const order = new Set<number>();
      for (let k = 0; k < 600; k++) {
        pool.put(String(k), new ScriptedConn());
        order.add(k);
      }
      for (const k of uses) {
        pool.tryAcquire(String(k))?.release();
        order.delete(k);
        order.add(k);
      }
      pool.configure({ capacity });
      const youngest = [...order].slice(-capacity).map(String);
      assert.deepEqual([...pool.keys()].toSorted(), youngest.toSorted());
    }),
    { numRuns: 20 },
  );
});

test('with selection "fastest", too, the oldest given back is evicted at the key cap', (t) => {
  const { pool } = pooled(t, { selection: "fastest", keyCapacity: 20 });
  const conns = Array.from({ length: 22 }, () => new ScriptedConn());
  for (const conn of conns.slice(0, 20)) pool.put("k", conn);
  const lease = pool.tryAcquire("k"); // some are compared, and go behind
  lease?.release();
  for (const conn of conns.slice(20)) pool.put("k", conn);
  const closed = conns.filter(({ closes }) => closes > 0);
  assert.deepEqual(closed, conns.filter((conn) => conn !== lease?.conn).slice(0, 2));
});

test("at the key cap the oldest conn goes, though a search had set it aside as due for validation", async (t) => {
  const { validate } = questions(true);
  const { pool, clock } = pooled(t, { validate, keyCapacity: 3 });
  const conns = Array.from({ length: 6 }, () => new ScriptedConn());
  for (const conn of conns.slice(0, 3)) {
    pool.put("k", conn);
    await clock.advance(10);
  }
  await clock.advance(500);
  assert.equal(pool.tryAcquire("k"), undefined); // all three are due
  for (const conn of conns.slice(3)) pool.put("k", conn);
  assert.deepEqual(
    conns.map(({ closes }) => closes),
    [1, 1, 1, 0, 0, 0],
  );
});
