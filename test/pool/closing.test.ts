import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

/** A conn whose socket goes only when the test says so. */
class Lingering extends ScriptedConn {
  readonly gone = deferred();
  override get closed(): Promise<void> {
    return this.gone.promise;
  }
  override async close(): Promise<void> {
    this.closes++;
    await this.gone.promise;
  }
}

test("a conn counts towards maxConns until its socket is gone: never more sockets than told", async (t) => {
  const conns: Lingering[] = [];
  const dial = () => {
    const conn = new Lingering();
    conns.push(conn);
    return conn;
  };
  const { pool, clock } = pooled<Lingering>(t, { dial, maxConns: 1 });
  (await pool.acquire("a")).release();
  const b = outcome(pool.acquire("b"));
  await settle();
  assert.deepEqual([conns.length, conns[0]?.closes, b.state], [1, 1, "pending"]);
  conns[0]?.gone.resolve();
  await settle();
  assert.deepEqual([conns.length, b.state], [2, "resolved"]);
  b.value?.release();
  conns[1]?.changed();
  const c = outcome(pool.acquire("c"));
  await clock.advance(4999);
  assert.equal(c.state, "pending");
  await clock.advance(1); // a close that hangs does not hold up others for ever
  assert.equal(c.state, "resolved");
  c.value?.release();
  for (const conn of conns) conn.gone.resolve();
});

test("one conn is evicted for each key that waits for a place, and not all of them for the first", async (t) => {
  const conns: Lingering[] = [];
  const dial = () => {
    const conn = new Lingering();
    conns.push(conn);
    return conn;
  };
  const { pool } = pooled<Lingering>(t, { dial, maxConns: 4 });
  for (const key of ["a", "b", "c", "d"]) (await pool.acquire(key)).release();
  const e = outcome(pool.acquire("e"));
  await settle();
  assert.deepEqual([pool.stats().idle, pool.stats().closed.evicted], [3, 1]);
  const f = outcome(pool.acquire("f"));
  await settle();
  assert.deepEqual([pool.stats().idle, pool.stats().closed.evicted], [2, 2]);
  for (const conn of conns) conn.gone.resolve();
  await settle();
  assert.deepEqual([e.state, f.state, pool.stats().closed.evicted], ["resolved", "resolved", 2]);
  e.value?.release();
  f.value?.release();
});

test("a peer that says GOAWAY and never closes costs no second socket under maxConns: 1", async (t) => {
  const conns: Lingering[] = [];
  const dial = () => {
    const conn = new Lingering();
    conns.push(conn);
    return conn;
  };
  const { pool } = pooled<Lingering>(t, { dial, maxConns: 1 });
  for (let i = 0; i < 20; i++) {
    const lease = outcome(pool.acquire("k"));
    await settle();
    const conn = conns.at(-1);
    if (lease.value === undefined || conn === undefined) continue;
    lease.value.release();
    conn.draining = true;
    conn.changed();
  }
  assert.equal(conns.length, 1);
  for (const conn of conns) conn.gone.resolve();
  await pool.close({ graceMs: 0 });
});

test("conns that are cleared together count until each is closed: a dial from the first close() takes no place of the second", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxConns: 2 });
  const dials: number[] = [];
  const close = () => {
    void pool.acquire("c").then((lease) => lease.release());
    dials.push(dial.count);
  };
  for (const key of ["a", "b"]) pool.put(key, new ScriptedConn({ close }));
  pool.clear();
  assert.deepEqual(dials, [0, 0]);
  await settle();
  assert.equal(dial.count, 2);
});
