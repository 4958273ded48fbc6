import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { type ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

test("draining is one state: no new streams, what runs finishes, then it closes, with the first reason", async (t) => {
  const causes: Record<string, (pool: Pool<string, ScriptedConn>, conn: ScriptedConn) => void> = {
    goaway: (_, conn) => {
      conn.draining = true;
      conn.changed();
    },
    cleared: (pool) => pool.clear(),
    configured: (pool) => pool.configure({ maxKeyConns: -1 }),
    retired: () => {}, // the uses below
    pool: (pool) => void pool.close(),
  };
  for (const [reason, cause] of Object.entries(causes)) {
    const { pool, lease } = pooled(t, reason === "retired" ? { maxUses: 2 } : {});
    const dial = scriptedDial({ maxStreams: 3 });
    const [one, two] = [await lease("k", dial), await lease("k", dial)];
    const conn = dial.conns[0];
    assert.ok(conn !== undefined);
    cause(pool, conn);
    pool.clear(); // a second cause changes nothing
    const { draining, leased, streams, idle } = pool.stats();
    assert.deepEqual([draining, leased, streams, idle], [1, 0, 2, 0], reason);
    assert.equal(pool.stats("k").conns?.[0]?.state, "draining", reason);
    if (reason !== "pool") assert.equal(pool.tryAcquire("k"), undefined, reason);
    assert.equal(pool.take("k"), undefined, reason);
    one.release();
    assert.equal(conn.closes, 0, reason);
    two.release();
    assert.equal(conn.closes, 1, reason);
    assert.deepEqual(
      Object.entries(pool.stats().closed).filter(([, count]) => count > 0),
      [[reason, 1]],
    );
    assert.deepEqual([...pool.keys()], [], reason);
  }
});

test("an idle conn whose peer sent GOAWAY is not used, whether or not it can say so by itself", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 2 });
  (await lease("k", dial)).release();
  const [silent] = dial.conns;
  assert.ok(silent !== undefined);
  silent.draining = true; // no call of its onChange listener
  const next = await lease("k", dial);
  assert.deepEqual([next.conn, silent.closes], [dial.conns[1], 1]);
  assert.equal(pool.stats().closed.goaway, 1);
  assert.deepEqual([...pool.keys()], ["k"]); // the last conn of a key went, and the key is known all the same
  next.release();
  assert.equal(pool.tryAcquire("k")?.conn, next.conn);
});

test("a conn in use whose peer sent GOAWAY is unselected, finishes what runs, and is closed once", async (t) => {
  const dial = scriptedDial({ maxStreams: 2 });
  const { pool } = pooled(t, { dial });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  a.release();
  Object.assign(b.conn, { draining: true });
  const c = await pool.acquire("k");
  assert.notEqual(c.conn, b.conn, "though it told nobody");
  assert.equal(b.conn.closes, 0);
  b.conn.changed();
  b.release();
  assert.deepEqual([b.conn.closes, pool.stats().closed.goaway], [1, 1]);
  c.release();
});

test("a draining conn counts under maxConns, and not under maxKeyConns", async (t) => {
  const counts = async (limits: { maxConns?: number; maxKeyConns?: number }) => {
    const { pool, lease } = pooled(t, limits);
    const dial = scriptedDial();
    await lease("k", dial);
    pool.clear();
    const next = outcome(lease("k", dial));
    await settle();
    return next.state;
  };
  assert.equal(await counts({ maxKeyConns: 1 }), "resolved");
  assert.equal(await counts({ maxConns: 1 }), "pending");
});

test("the release of the last stream of a draining conn frees its place under maxConns", async (t) => {
  const { pool } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  const held = await pool.acquire("k", { dial });
  const waiting = pool.acquire("k", { dial });
  pool.clear("k");
  await settle();
  assert.equal(dial.count, 1); // it drains, and counts
  held.release();
  assert.equal((await waiting).conn, dial.conns[1]);
  assert.equal(dial.conns[0]?.closes, 1);
});

test("a draining conn that dies is dropped, and its leases are released in vain", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial();
  const held = await lease("k", dial);
  pool.clear();
  dial.conns[0]?.die();
  await settle();
  assert.deepEqual([...pool.keys()], []);
  held.release();
  assert.deepEqual([dial.conns[0]?.closes, pool.stats().closed.cleared], [0, 1]);
});

test("a conn that drains with several streams tells once that it has drained, when the last has ended", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 3 });
  const leases = [await lease("k", dial), await lease("k", dial), await lease("k", dial)];
  const heard: string[] = [];
  for (const name of ["drained", "closed"] as const) pool.on(name, () => heard.push(name));
  pool.clear();
  for (const one of leases) {
    assert.deepEqual(heard, []);
    one.release();
    await settle();
  }
  assert.deepEqual(heard, ["drained", "closed"]);
});
