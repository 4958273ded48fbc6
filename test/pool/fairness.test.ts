import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pooled.ts";

test("row 42: under a total limit, another key's idle conn makes way, the oldest given back first", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 3 });
  const dial = scriptedDial();
  for (const key of ["a", "b", "c"]) (await lease(key, dial)).release();
  pool.tryAcquire("a")?.release(); // b is the oldest now
  const closes = () => dial.conns.map((conn) => conn.closes);
  await lease("d", dial);
  assert.deepEqual(closes(), [0, 1, 0, 0]);
  await lease("e", dial);
  assert.deepEqual(closes(), [0, 1, 1, 0, 0]);
  assert.deepEqual([pool.stats().open, pool.stats().closed.evicted], [3, 2]);
});

test("row 42: a conn that runs a stream makes way for nobody", async (t) => {
  const { lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial({ maxStreams: 2 });
  const [one, two] = [await lease("a", dial), await lease("a", dial)];
  const other = outcome(lease("b", dial));
  one.release();
  await settle();
  assert.deepEqual([other.state, dial.conns[0]?.closes], ["pending", 0]);
  two.release();
  await settle();
  assert.deepEqual([other.state, dial.conns[0]?.closes], ["resolved", 1]);
});

test("row 42: an idle conn of the caller's own key is used, not evicted", async (t) => {
  const { lease, pool } = pooled(t, { maxConns: 2 });
  const dial = scriptedDial();
  (await lease("a", dial)).release();
  (await lease("b", dial)).release();
  (await lease("a", dial)).release();
  (await lease("b", dial)).release();
  assert.deepEqual([dial.count, pool.stats().closed.evicted], [2, 0]);
});

test("row 42: dialing and draining conns count: open conns never exceed maxConns", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 2 });
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const asked = ["a", "b", "c"].map((key) => outcome(lease(key, dial)));
  assert.deepEqual(
    dial.pending.map(({ key }) => key),
    ["a", "b"],
  );
  dial.pending[0]?.fail(new Error("refused")); // frees a place
  await settle();
  assert.deepEqual(
    dial.pending.map(({ key }) => key),
    ["a", "b", "c"],
  );
  assert.equal(pool.stats().dialing, 2);
  for (const pending of dial.pending.slice(1)) pending.arrive();
  await settle();
  assert.deepEqual(
    asked.map(({ state }) => state),
    ["rejected", "resolved", "resolved"],
  );
});

test("row 42: the keys that wait get places in the order of their oldest waiters", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  const held = await lease("a", dial);
  const served: string[] = [];
  const asked = ["c", "b", "d", "c", "b"].map(async (key) => {
    const one = await lease(key, dial);
    served.push(key);
    await settle();
    one.release();
  });
  held.release();
  await Promise.all(asked);
  assert.deepEqual([...new Set(served)], ["c", "b", "d"]);
  assert.equal(served.length, 5);
  assert.equal(pool.stats().open, 1);
});

test("row 42: a busy key yields: the oldest waiter elsewhere has a place after at most 16 hand-offs", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  let current = await lease("busy", dial);
  const starving = outcome(lease("starving", dial));
  let handOffs = 0;
  while (starving.state === "pending" && handOffs < 100) {
    const next = lease("busy", dial); // there is always one waiting
    next.catch(() => {});
    current.release();
    await settle();
    if (starving.state === "pending") {
      current = await next;
      handOffs++;
    }
  }
  assert.equal(starving.state, "resolved");
  assert.ok(handOffs <= 16, `${handOffs} hand-offs`);
  assert.equal(pool.stats().closed.evicted, 1);
});

test("row 42: a full pool of one hundred busy keys serves every one of them", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 10 });
  const dial = scriptedDial();
  let most = 0;
  const served = await Promise.all(
    Array.from({ length: 1000 }, async (_, i) => {
      const one = await lease(`k${i % 100}`, dial);
      most = Math.max(most, pool.stats().open + pool.stats().dialing);
      await Promise.resolve();
      one.release();
      return i % 100;
    }),
  );
  assert.equal(new Set(served).size, 100);
  assert.equal(most, 10);
  assert.deepEqual([pool.stats().waiting, pool.stats().streams], [0, 0]);
});

test("row 42: a blocked idle conn of another key makes way too", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const blocked = new ScriptedConn();
  pool.put("a", blocked);
  pool.tryAcquire("a")?.release();
  blocked.blockedUntil = new Promise(() => {});
  assert.equal(pool.tryAcquire("a"), undefined);
  const dial = scriptedDial();
  assert.equal((await lease("b", dial)).conn, dial.conns[0]);
  assert.equal(blocked.closes, 1);
});
