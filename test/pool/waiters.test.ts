import assert from "node:assert/strict";
import { test } from "node:test";
import { type Linked, List } from "../../src/runtime/list.ts";
import { settle } from "../support/clock.ts";
import { scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled, rejection } from "../support/pooled.ts";

/** A key at its limit of one exclusive conn, and leases that are asked for in the order of their names. */
function full(t: Parameters<typeof pooled>[0], options: { maxWaiters?: number; waitTimeoutMs?: number } = {}) {
  const { pool, clock } = pooled(t, { maxKeyConns: 1, ...options });
  const dial = scriptedDial();
  const served: string[] = [];
  const ask = async (name: string, request: { signal?: AbortSignal; timeoutMs?: number } = {}) => {
    const lease = await pool.acquire("k", { dial, ...request });
    served.push(name);
    return lease;
  };
  return { pool, clock, dial, served, ask };
}

test("row 14: a full key queues its waiters and serves them first in, first out", async (t) => {
  const { served, ask, pool, dial } = full(t);
  const leases = ["a", "b", "c", "d"].map((name) => ask(name));
  await settle();
  assert.equal(pool.stats("k").waiting, 3);
  for (const lease of leases) (await lease).release();
  assert.deepEqual(served, ["a", "b", "c", "d"]);
  assert.deepEqual([dial.count, pool.stats().waiting], [1, 0]);
});

test("row 14: a slot goes to the next waiter by direct hand-off: nobody who comes meanwhile steals it", async (t) => {
  const { served, ask, pool } = full(t);
  const held = await ask("first");
  const waiting = ask("waiter");
  await settle();
  held.release();
  assert.equal(pool.tryAcquire("k"), undefined); // in the same turn: too late
  const late = ask("newcomer");
  const handed = await waiting;
  assert.deepEqual(served, ["first", "waiter"]);
  handed.release();
  (await late).release();
  assert.deepEqual(served, ["first", "waiter", "newcomer"]);
});

test("row 14: up to maxWaiters wait, then callers are refused at once", async (t) => {
  const { ask, pool, clock } = full(t, { maxWaiters: 2 });
  const held = await ask("held");
  const waiting = [ask("one"), ask("two")];
  for (let i = 0; i < 3; i++) {
    const error = await rejection(ask("too many"));
    assert.deepEqual([error.name, "code" in error && error.code], ["QueueFullError", "ERR_POOL_QUEUE_FULL"]);
  }
  assert.equal(clock.now(), 1000); // no time has passed
  assert.equal(pool.stats().waiting, 2);
  held.release();
  const first = await waiting[0];
  const third = ask("three"); // there is a place again
  await settle();
  assert.equal(pool.stats().waiting, 2);
  first?.release();
  (await waiting[1])?.release();
  (await third).release();
});

test("row 14: those whom a dial in flight will serve do not count towards maxWaiters", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1, maxWaiters: 1 });
  const dial = scriptedDial({ maxStreams: 3 }, { manual: true, maxStreams: 3 });
  const ask = () => pool.acquire("k", { dial });
  const served = [ask(), ask(), ask()];
  const held = ask(); // the one that waits
  assert.equal((await rejection(ask())).name, "QueueFullError");
  dial.pending[0]?.arrive();
  for (const lease of await Promise.all(served)) lease.release();
  (await held).release();
});

test("row 14: maxWaiters 0 is unlimited, negative is none; the default is 1000", async (t) => {
  const unlimited = full(t, { maxWaiters: 0 });
  const none = full(t, { maxWaiters: -1 });
  const standard = full(t);
  const held = [await unlimited.ask("x"), await none.ask("x"), await standard.ask("x")];
  const many = Array.from({ length: 3000 }, () => unlimited.ask("y"));
  assert.equal(unlimited.pool.stats().waiting, 3000);
  assert.equal((await rejection(none.ask("y"))).name, "QueueFullError");
  const thousand = Array.from({ length: 1000 }, () => standard.ask("y"));
  assert.equal((await rejection(standard.ask("y"))).name, "QueueFullError");
  for (const lease of held) lease.release();
  for (const lease of [...many, ...thousand]) (await lease).release();
});

test("row 14: a waiter that aborts or times out leaves from the middle; the next free slot goes to the next live one", async (t) => {
  const { served, ask, pool, clock } = full(t);
  const held = await ask("held");
  const caller = new AbortController();
  const one = ask("one");
  const aborts = ask("aborts", { signal: caller.signal });
  const timesOut = ask("times out", { timeoutMs: 100 });
  const two = ask("two");
  const reason = { why: "changed my mind" };
  caller.abort(reason);
  assert.equal(await aborts.catch((error: unknown) => error), reason); // signal.reason, untouched
  const late = rejection(timesOut);
  await clock.advance(100);
  assert.equal((await late).name, "WaitTimeoutError");
  assert.equal(pool.stats().waiting, 2);
  held.release();
  (await one).release();
  (await two).release();
  assert.deepEqual(served, ["held", "one", "two"]);
  assert.equal(pool.stats().timeouts, 1);
});

test("row 14: leaving a queue is O(1): only the neighbours are touched", () => {
  let touched = new Set<object>();
  class Node implements Linked<Node> {
    #prev: Node | undefined = undefined;
    #next: Node | undefined = undefined;
    list: List<Node> | undefined = undefined;
    get prev() {
      touched.add(this);
      return this.#prev;
    }
    set prev(node) {
      touched.add(this);
      this.#prev = node;
    }
    get next() {
      touched.add(this);
      return this.#next;
    }
    set next(node) {
      touched.add(this);
      this.#next = node;
    }
  }
  const queue = new List<Node>();
  const nodes = Array.from({ length: 1000 }, () => new Node());
  for (const node of nodes) queue.push(node);
  for (const i of [500, 0, 999, 499, 501]) {
    const node = nodes[i];
    assert.ok(node !== undefined);
    touched = new Set();
    queue.remove(node);
    assert.ok(touched.size <= 3, `${touched.size} nodes touched`);
  }
  assert.equal([...queue].length, 995);
});

test("row 14: limits of one key are its own: configure(limits, key); the defaults are for all the others", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial();
  pool.configure({ maxKeyConns: 3 }, "big");
  const ask = (key: string) => outcome(pool.acquire(key, { dial }));
  const states = { big: [1, 2, 3, 4].map(() => ask("big")), small: [1, 2].map(() => ask("small")) };
  await settle();
  assert.deepEqual(
    states.big.map(({ state }) => state),
    ["resolved", "resolved", "resolved", "pending"],
  );
  assert.deepEqual(
    states.small.map(({ state }) => state),
    ["resolved", "pending"],
  );
});

test("row 15: closing a conn frees its place: one waiter may dial, and only one", async (t) => {
  const { pool, ask, dial, served } = full(t);
  await ask("held");
  const waiting = [ask("one"), ask("two")];
  await settle();
  dial.conns[0]?.die();
  await settle();
  assert.deepEqual([dial.count, served], [2, ["held", "one"]]);
  assert.deepEqual([pool.stats().open, pool.stats().waiting], [1, 1]);
  (await waiting[0])?.release();
  (await waiting[1])?.release();
  assert.equal(dial.count, 2);
});

test("row 15: the release of the last stream of a draining conn frees its place under maxConns", async (t) => {
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

test("row 16: a waiter says how long it waits; others wait as long as waitTimeoutMs says, or for ever", async (t) => {
  const { ask, clock, pool } = full(t, { waitTimeoutMs: 500 });
  const held = await ask("held");
  const [standard, short, long] = [ask("x"), ask("x", { timeoutMs: 100 }), ask("x", { timeoutMs: 900 })];
  const [a, b, c] = [outcome(standard), outcome(short), outcome(long)];
  const states = () => [a.state, b.state, c.state];
  await clock.advance(99);
  assert.deepEqual(states(), ["pending", "pending", "pending"]);
  await clock.advance(1);
  assert.deepEqual(states(), ["pending", "rejected", "pending"]);
  await clock.advance(399);
  assert.deepEqual(states(), ["pending", "rejected", "pending"]);
  await clock.advance(1);
  assert.deepEqual(states(), ["rejected", "rejected", "pending"]);
  await clock.advance(399);
  assert.equal(c.state, "pending");
  held.release();
  (await long).release();
  pool.configure({ waitTimeoutMs: 0 });
  const again = await ask("held");
  const patient = ask("x");
  await clock.advance(10_000_000);
  again.release();
  (await patient).release();
});

test("row 16: or not at all: tryAcquire never dials and never waits", async (t) => {
  const { pool, lease } = pooled(t, { dial: scriptedDial() });
  assert.equal(pool.tryAcquire("k"), undefined); // no such key
  assert.deepEqual([...pool.keys()], []);
  const held = await lease("k");
  assert.equal(pool.tryAcquire("k"), undefined); // full
  assert.deepEqual([pool.stats().dials, pool.stats().waiting], [1, 0]);
  held.release();
  assert.equal(pool.tryAcquire("k")?.conn, held.conn);
});

test("row 16: a waiter whose signal is aborted already never joins, and nothing is dialed", async (t) => {
  const { ask, dial, pool } = full(t);
  const reason = new Error("too late");
  assert.equal(await rejection(ask("x", { signal: AbortSignal.abort(reason) })), reason);
  assert.deepEqual([dial.count, [...pool.keys()]], [0, []]);
});

test("row 16: omitted limits keep their value; lowering closes nothing that is in use", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 3, keyCapacity: 3 });
  const dial = scriptedDial();
  const held = await Promise.all([lease("k", dial), lease("k", dial), lease("k", dial)]);
  pool.configure({ maxKeyConns: 2 });
  pool.configure({ keyCapacity: 1 });
  pool.configure({ maxKeyConns: undefined });
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [0, 0, 0],
  );
  const waiting = outcome(lease("k", dial));
  await settle();
  assert.deepEqual([waiting.state, dial.count], ["pending", 3]); // still two, and never more
  for (const one of held) one.release();
  await settle();
  assert.equal(waiting.state, "resolved");
  assert.ok(pool.stats().open <= 2 && pool.stats().idle <= 1);
});
