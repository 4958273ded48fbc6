import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test("a lease that is discarded closes its conn instead of giving it back, and the next caller gets another", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  const events: unknown[] = [];
  pool.on("closed", ({ reason, cause }) => events.push([reason, cause]));
  const broken = await pool.acquire("k");
  const why = new Error("half a reply");
  broken.discard(why);
  broken.discard();
  broken.release();
  assert.equal(broken.conn.closes, 1);
  const next = await pool.acquire("k");
  assert.notEqual(next.conn, broken.conn);
  await settle();
  assert.deepEqual(events, [["discarded", why]]);
  assert.equal(pool.stats().closed.discarded, 1);
  next.release();
  next.discard(); // too late: it is somebody else's
  assert.equal(next.conn.closes, 0);
});

test("a discarded conn that runs other streams takes no new ones, and is closed after its last", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial({ maxStreams: 2 }) });
  const [one, two] = [await pool.acquire("k"), await pool.acquire("k")];
  assert.equal(one.conn, two.conn);
  one.discard();
  assert.deepEqual([one.conn.closes, pool.stats().draining, pool.tryAcquire("k")], [0, 1, undefined]);
  two.release();
  assert.equal(one.conn.closes, 1);
});

test("use with discardOnError closes a conn on which its function rejected; by default it is given back", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  const fail = async () => {
    throw new Error("half a reply");
  };
  await rejection(pool.use("k", fail));
  assert.equal(pool.stats().idle, 1);
  await rejection(pool.use("k", fail, { discardOnError: true }));
  assert.deepEqual([pool.stats().open, pool.stats().closed.discarded], [0, 1]);
  await pool.use("k", async () => {}, { discardOnError: true });
  assert.equal(pool.stats().idle, 1);
});

test("a conn whose end has begun is not handed on, though it could not say so through closed yet", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial });
  const lease = await pool.acquire("k");
  lease.conn.draining = true; // its user has ended it, in this very tick
  lease.release();
  const next = await pool.acquire("k");
  assert.notEqual(next.conn, lease.conn);
  next.release();
  assert.ok(dial.conns[1] instanceof ScriptedConn);
});
