import assert from "node:assert/strict";
import { test } from "node:test";
import type { Dial, Lease, PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

/** A pool with one exclusive conn, which is leased; what follows waits. */
async function busy(): Promise<{ pool: Pool<string, ScriptedConn>; lease: Lease<ScriptedConn>; conn: ScriptedConn }> {
  const pool = testPool({ dial: scriptedDial(), maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  return { pool, lease, conn: lease.conn };
}

test("rule: waiters of one key are served in the order in which they came", async () => {
  const { pool, lease } = await busy();
  const order: number[] = [];
  const waits = Array.from({ length: 50 }, async (_, number) => {
    const next = await pool.acquire("k");
    order.push(number);
    next.release();
  });
  lease.release();
  await Promise.all(waits);
  assert.deepEqual(
    order,
    Array.from({ length: 50 }, (_, number) => number),
  );
});

test("rule: a newcomer never passes a waiter of its key, not even in the callbacks of a release", async () => {
  const { pool, lease } = await busy();
  const waiter = outcome(pool.acquire("k"));
  lease.release();
  assert.equal(pool.tryAcquire("k"), undefined, "the slot is the waiter's from the moment of the release");
  const newcomer = outcome(pool.acquire("k"));
  await settle();
  assert.equal(waiter.state, "resolved");
  assert.equal(newcomer.state, "pending");
  waiter.value?.release();
  await settle();
  assert.equal(newcomer.state, "resolved");
});

test("rule: a newcomer with a filter that matches does not pass an older waiter that has none", async () => {
  const { pool, lease } = await busy();
  const waiter = outcome(pool.acquire("k"));
  const newcomer = outcome(pool.acquire("k", { filter: () => true }));
  lease.release();
  await settle();
  assert.deepEqual([waiter.state, newcomer.state], ["resolved", "pending"]);
});

test("rule: a filtered waiter that nothing matches holds up nobody behind it, and keeps its place", async () => {
  const { pool, lease, conn } = await busy();
  let open = false;
  const filtered = outcome(pool.acquire("k", { filter: (one) => open && one === conn }));
  const second = outcome(pool.acquire("k"));
  const third = outcome(pool.acquire("k"));
  lease.release();
  await settle();
  assert.deepEqual([filtered.state, second.state, third.state], ["pending", "resolved", "pending"]);
  open = true;
  second.value?.release();
  await settle();
  assert.deepEqual([filtered.state, third.state], ["resolved", "pending"], "it came before the third");
});

test("rule: waiters between filtered ones that match different conns are served first come, first served", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial, maxKeyConns: 2 });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  const order: string[] = [];
  const wait = async (name: string, only?: ScriptedConn) => {
    const filter = only === undefined ? undefined : (one: ScriptedConn) => one === only;
    const lease = await pool.acquire("k", { filter });
    order.push(name);
    lease.release();
  };
  const waits = [wait("1a", a.conn), wait("2b", b.conn), wait("3"), wait("4a", a.conn), wait("5b", b.conn)];
  b.release();
  await settle();
  assert.deepEqual(order, ["2b", "3", "5b"]);
  a.release();
  await Promise.all(waits);
  assert.deepEqual(order, ["2b", "3", "5b", "1a", "4a"]);
});

class Silent implements PoolConn {
  maxStreams = 1;
  readonly closed = new Promise<void>(() => {});
  close(): void {}
}

test("rule: a raised limit that the pool was not told of goes to the oldest waiter, not to the newcomer", async () => {
  for (let raised = 0; raised < 40; raised++) {
    const conns = Array.from({ length: 40 }, () => new Silent());
    const left = [...conns];
    const dial: Dial<string, Silent> = () => left.pop() ?? new Silent();
    const pool = new Pool<string, Silent>({ dial, maxKeyConns: 40, clock: new FakeClock() });
    for (let count = 0; count < 40; count++) await pool.acquire("k");
    const waiter = outcome(pool.acquire("k"));
    for (const conn of conns.slice(raised, raised + 1)) conn.maxStreams = 2;
    for (let newcomer = 0; newcomer < 10; newcomer++) {
      const lease = pool.tryAcquire("k");
      await Promise.resolve();
      assert.ok(lease === undefined, `newcomer ${newcomer} got the slot that conn ${raised} has gained`);
    }
    await settle();
    assert.equal(waiter.state, "resolved");
    await pool.close({ graceMs: 0 });
  }
});

test("rule: the waiter that leaves from the middle leaves no hole", async () => {
  const { pool, lease } = await busy();
  const middle = new AbortController();
  const first = outcome(pool.acquire("k"));
  const second = outcome(pool.acquire("k", { signal: middle.signal }));
  const third = outcome(pool.acquire("k"));
  middle.abort(new Error("gone"));
  lease.release();
  await settle();
  first.value?.release();
  await settle();
  assert.deepEqual([first.state, second.state, third.state], ["resolved", "rejected", "resolved"]);
});

test("rule: choosing and counting are one step: no conn ever runs more streams than it has slots", async () => {
  let running = 0;
  let most = 0;
  const conn = new ScriptedConn({ maxStreams: 3 });
  const pool = testPool({ dial: () => conn, maxKeyConns: 1 });
  const held = deferred();
  const work = Array.from({ length: 30 }, (_, number) =>
    pool.use("k", async () => {
      most = Math.max(most, ++running);
      await (number < 3 ? held.promise : Promise.resolve());
      running--;
    }),
  );
  await settle();
  assert.equal(running, 3);
  held.resolve();
  await Promise.all(work);
  assert.equal(most, 3);
});

test("rule: leases asked for in one synchronous stretch never share a slot", async () => {
  const pool = testPool({ dial: scriptedDial() });
  for (const lease of await Promise.all([1, 2, 3].map(() => pool.acquire("k")))) lease.release();
  const asked = [pool.acquire("k"), pool.acquire("k"), pool.acquire("k")];
  const tried = pool.tryAcquire("k");
  const leases = await Promise.all(asked);
  assert.equal(tried, undefined);
  assert.equal(new Set(leases.map(({ conn }) => conn)).size, 3);
});
