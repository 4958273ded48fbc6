import assert from "node:assert/strict";
import { test } from "node:test";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, soon } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

test("hazard 8: after a stall of the event loop, conns in use are not closed, and callers in time are served", async () => {
  const clock = new FakeClock();
  const dial = scriptedDial({ maxStreams: 2 });
  const pool = testPool({ clock, dial, expirationMs: 1000, maxLifetimeMs: 5000 });
  const lease = await pool.acquire("k");
  clock.stall(20_000);
  await clock.advance(1);
  assert.equal(lease.conn.closes, 0);
  lease.release();
  assert.equal(lease.conn.closes, 1, "its lifetime is over");
  await soon(pool.acquire("k"));
});

test("hazard 10: a queue longer than a batch is served in turns that let I/O in, and in order", async () => {
  const conn = new ScriptedConn({ maxStreams: 5000 });
  const pool = testPool({ dial: () => new Promise(() => {}), maxWaiters: 0 });
  const order: number[] = [];
  for (let caller = 0; caller < 5000; caller++) {
    pool.acquire("k").then(
      () => order.push(caller),
      () => {},
    );
  }
  let turns = 0;
  const count = () => {
    turns++;
    if (order.length < 5000) setImmediate(count);
  };
  setImmediate(count);
  pool.put("k", conn);
  const newcomer = pool.tryAcquire("k");
  assert.equal(newcomer, undefined, "it does not pass those who are about to be served");
  while (order.length < 5000) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(turns >= 4, `${turns} turns`);
  assert.deepEqual(
    order,
    Array.from({ length: 5000 }, (_, caller) => caller),
  );
});

test("hazard 10: a conn that answers each question with a new promise does not starve the event loop", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  lease.conn.blockedUntil = Promise.resolve();
  lease.release();
  const stop = new AbortController();
  const waiter = outcome(pool.acquire("k", { signal: stop.signal }));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve, 0));
  assert.equal(waiter.state, "pending");
  stop.abort();
  await settle();
});

test("hazard 10: listeners that throw or use the pool harm nobody", async () => {
  const pool = testPool({ dial: scriptedDial() });
  const warnings: Error[] = [];
  const hear = (warning: Error) => void warnings.push(warning);
  process.on("warning", hear);
  pool.on("leased", () => {
    throw new Error("thrown by a listener");
  });
  const off = pool.on("dialed", () => pool.clear());
  (await soon(pool.acquire("k"))).release();
  off();
  (await soon(pool.acquire("k"))).release();
  await settle();
  process.off("warning", hear);
  assert.ok(warnings.some(({ message }) => message.includes("thrown by a listener")));
});

test("hazard 11: the total cap evicts multiplexed conns that run nothing, and never one that runs a stream", async () => {
  const dial = scriptedDial({ maxStreams: 5 });
  const pool = testPool({ dial, maxConns: 2, capacity: 1 });
  const a = await pool.acquire("a");
  const more = await pool.acquire("a");
  const b = await pool.acquire("b");
  b.release();
  const c = outcome(pool.acquire("c"));
  await settle();
  assert.equal(b.conn.closes, 1);
  more.release();
  const d = outcome(pool.acquire("d"));
  await settle();
  assert.deepEqual([c.state, d.state, a.conn.closes], ["resolved", "pending", 0]);
  a.release();
  await settle();
  assert.deepEqual([d.state, a.conn.closes], ["resolved", 1]);
});

test("hazard 12: conns of one age do not all go at once, and a shared one drains", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, ScriptedConn>({ clock, maxLifetimeMs: 100_000 });
  const conns = Array.from({ length: 50 }, () => new ScriptedConn({ maxStreams: 2 }));
  for (const conn of conns) pool.put("k", conn);
  await clock.advance(98_750);
  const gone = conns.filter(({ closes }) => closes === 1).length;
  assert.ok(gone > 5 && gone < 45, `${gone} of 50 were gone after half of the jitter`);
  await clock.advance(1250);
  assert.ok(conns.every(({ closes }) => closes === 1));
});

test("hazard 13: double release, double close and a death in between each count once", async () => {
  const dial = scriptedDial({ maxStreams: 2 });
  const pool = testPool({ dial, capacity: 5 });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  a.release();
  a.release();
  assert.equal(pool.stats().streams, 1);
  b.conn.die();
  b.conn.die();
  await settle();
  b.release();
  b.release();
  const stats = pool.stats();
  assert.deepEqual([stats.open, stats.idle, stats.streams, stats.closed.died], [0, 0, 0, 1]);
  assert.equal(b.conn.closes, 0, "it has closed by itself");
  await Promise.all([pool.close(), pool.close()]);
});

test("hazard 14: keys that look alike are different peers", async () => {
  const dial = scriptedDial<unknown>();
  const pool = new Pool<unknown, ScriptedConn>({ dial, clock: new FakeClock() });
  const symbol = Symbol("k");
  const keys: unknown[] = ["1", 1, 1n, true, "true", null, "null", {}, {}, [], "", "__proto__", "constructor", symbol];
  for (const key of keys) (await pool.acquire(key)).release();
  assert.equal(dial.count, keys.length);
  for (const key of keys) (await pool.acquire(key)).release();
  assert.equal(dial.count, keys.length);
  (await pool.acquire(Number.NaN)).release();
  (await pool.acquire(Number.NaN)).release();
  (await pool.acquire(0)).release();
  (await pool.acquire(-0)).release();
  assert.equal(dial.count, keys.length + 2);
  await assert.rejects(pool.acquire(undefined), TypeError);
  assert.equal(Object.getPrototypeOf({}), Object.prototype);
});

test("hazard 14: with hashKey, a conn dialed for one identity is never handed to another", async () => {
  interface Peer {
    readonly address: string;
    readonly identity: string;
  }
  const dial = scriptedDial<Peer>(({ identity }) => ({ tags: { identity } }));
  const hashKey = ({ address, identity }: Peer) => JSON.stringify([address, identity]);
  const pool = new Pool<Peer, ScriptedConn>({ dial, hashKey, clock: new FakeClock() });
  const peers = ["a", "b", 'a","b', "a,b", "__proto__"].flatMap((address) =>
    ["x", "y", 'x"]', ""].map((identity) => ({ address, identity })),
  );
  for (let round = 0; round < 2; round++) {
    for (const peer of peers) {
      await pool.use({ ...peer }, async ({ tags }) => assert.equal(tags?.["identity"], peer.identity));
    }
  }
  assert.equal(dial.count, peers.length);
  assert.equal(pool.stats().keys, peers.length);
});
