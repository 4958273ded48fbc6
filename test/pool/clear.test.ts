import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pooled.ts";

test("row 35: clear drains every conn of before: idle ones close at once, the others after their streams", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 2 });
  const running = await lease("a", dial);
  (await lease("b", dial)).release();
  pool.clear();
  const closes = () => dial.conns.map((conn) => conn.closes);
  assert.deepEqual([closes(), pool.stats().draining], [[0, 1], 1]);
  const young = await lease("a", dial); // though the old one has a slot
  assert.equal(young.conn, dial.conns[2]);
  running.release();
  assert.deepEqual([closes(), pool.stats().closed.cleared], [[1, 1, 0], 2]);
  young.release();
  assert.equal(pool.tryAcquire("a")?.conn, young.conn); // what is dialed later is new
});

test("row 35: clear(key) leaves the other keys alone", async (t) => {
  const { pool } = pooled(t);
  const [a, b] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("a", a);
  pool.put("b", b);
  pool.clear("a");
  pool.clear("no such key");
  assert.deepEqual([a.closes, b.closes, [...pool.keys()]], [1, 0, ["b"]]);
});

test("row 35: a dial of before is abandoned, its waiters stay and are dialed anew", async (t) => {
  for (const cleared of ["k", undefined]) {
    const { pool, lease } = pooled(t);
    const dial = scriptedDial({ maxStreams: 2 }, { manual: true, maxStreams: 2 });
    const waiting = [lease("k", dial), lease("k", dial)];
    if (cleared === undefined) pool.clear();
    else pool.clear(cleared);
    assert.equal(dial.pending[0]?.signal.aborted, true);
    assert.equal(dial.count, 2);
    const stale = dial.pending[0]?.arrive();
    await settle();
    assert.equal(stale?.closes, 1); // it may lead to where the outage was
    assert.deepEqual(
      waiting.map((one) => outcome(one).state),
      ["pending", "pending"],
    );
    const young = dial.pending[1]?.arrive();
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ conn }) => conn),
      [young, young],
    );
  }
});

test("row 35: clear ends a running backoff: an outage that is over is over at once", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  const dial = scriptedDial({}, { manual: true });
  const waiting = pool.acquire("k", { dial, waitForReady: true });
  for (let i = 0; i < 5; i++) {
    dial.pending[i]?.fail(new Error("outage"));
    await settle();
    assert.equal(dial.count, i + 1); // it pauses
    pool.clear("k");
    assert.equal(dial.count, i + 2); // and does not
  }
  dial.pending[5]?.arrive();
  (await waiting).release();
  assert.equal(clock.now(), 1000);
});

test("row 41: draining is one state: no new streams, what runs finishes, then it closes, with the first reason", async (t) => {
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
  }
});

test("row 41: a conn whose peer sent GOAWAY is not used, whether or not it can say so by itself", async (t) => {
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

test("row 41: a draining conn counts under maxConns, and not under maxKeyConns", async (t) => {
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

test("row 41: a draining conn that dies is dropped, and its leases are released in vain", async (t) => {
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
