import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { Dial, Lease } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { type Linked, List } from "../../src/runtime/list.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { PlainConn, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, rejection } from "../support/outcome.ts";
import { fullKey, pooled } from "../support/pool.ts";

nothingUnheard();

/** A pool with one exclusive conn, which is leased; what follows waits. */
async function busy(
  t: TestContext,
): Promise<{ pool: Pool<string, ScriptedConn>; lease: Lease<ScriptedConn>; conn: ScriptedConn }> {
  const { pool } = pooled(t, { dial: scriptedDial(), maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  return { pool, lease, conn: lease.conn };
}

test("a full key queues its waiters and serves them first in, first out", async (t) => {
  const { served, ask, pool, dial } = fullKey(t);
  const names = Array.from({ length: 50 }, (_, number) => `${number}`);
  const leases = names.map((name) => ask(name));
  await settle();
  assert.equal(pool.stats("k").waiting, 49);
  for (const lease of leases) (await lease).release();
  assert.deepEqual(served, names);
  assert.deepEqual([dial.count, pool.stats().waiting], [1, 0]);
});

test("a slot goes to the next waiter by direct hand-off: nobody who comes meanwhile steals it", async (t) => {
  const { served, ask, pool } = fullKey(t);
  const held = await ask("first");
  const waiting = ask("waiter");
  await settle();
  held.release();
  assert.equal(pool.tryAcquire("k"), undefined); // in the same turn: too late
  const late = ask("newcomer");
  const newcomer = outcome(late);
  const handed = await waiting;
  await settle();
  assert.deepEqual([served, newcomer.state], [["first", "waiter"], "pending"]);
  handed.release();
  (await late).release();
  assert.deepEqual(served, ["first", "waiter", "newcomer"]);
});

test("up to maxWaiters wait, then callers are refused at once", async (t) => {
  const { ask, pool, clock } = fullKey(t, { maxWaiters: 2 });
  const held = await ask("held");
  const waiting = [ask("one"), ask("two")];
  for (let i = 0; i < 3; i++) {
    const error = await rejection(ask("too many"));
    assert.deepEqual([error.name, "code" in error && error.code], ["QueueFullError", "ERR_POOL_QUEUE_FULL"]);
    assert.match(error.message, /^2 callers wait for .* already, and maxWaiters is 2/);
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

test("those whom a dial in flight will serve do not count towards maxWaiters", async (t) => {
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

test("who may not wait for a limit waits for the place that an idle conn of another key leaves to it", async (t) => {
  const { pool } = pooled(t, { maxConns: 1, maxWaiters: -1 });
  const dial = scriptedDial();
  (await pool.acquire("other", { dial })).release();
  const [lease, second] = await Promise.allSettled([pool.acquire("k", { dial }), pool.acquire("k", { dial })]);
  assert.equal(lease.status, "fulfilled");
  assert.match(String(second.status === "rejected" && second.reason), /maxWaiters/);
  assert.equal(pool.stats().closed.evicted, 1);
});

test("who has a dial of its own is not refused since another waits whom no dial serves", async (t) => {
  const { pool } = pooled(t, { maxWaiters: -1 });
  const dial = scriptedDial({}, { manual: true });
  const first = pool.acquire("k", { dial });
  const choosy = pool.acquire("k", { dial, filter: ({ tags }) => tags?.["zone"] === "a" });
  const second = pool.acquire("k", { dial });
  dial.pending[0]?.arrive(); // the dial was for all three, and its conn takes one
  await settle();
  const third = pool.acquire("k", { dial });
  for (const asked of [choosy, second, third]) asked.catch(() => {});
  await settle();
  const { refused, waiting, dialing } = pool.stats();
  assert.deepEqual([(await first).conn, refused, waiting, dialing], [dial.conns[0], 0, 3, 2]);
});

test("maxWaiters 0 is unlimited, negative is none; the default is 1000", async (t) => {
  const unlimited = fullKey(t, { maxWaiters: 0 });
  const none = fullKey(t, { maxWaiters: -1 });
  const standard = fullKey(t);
  const held = [await unlimited.ask("x"), await none.ask("x"), await standard.ask("x")];
  const many = Array.from({ length: 3000 }, () => unlimited.ask("y"));
  assert.equal(unlimited.pool.stats().waiting, 3000);
  assert.equal((await rejection(none.ask("y"))).name, "QueueFullError");
  const thousand = Array.from({ length: 1000 }, () => standard.ask("y"));
  assert.equal((await rejection(standard.ask("y"))).name, "QueueFullError");
  for (const lease of held) lease.release();
  for (const lease of [...many, ...thousand]) (await lease).release();
});

test("a waiter that aborts or times out leaves from the middle; the next free slot goes to the next live one", async (t) => {
  const { served, ask, pool, clock } = fullKey(t);
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

test("leaving a queue is O(1): only the neighbours are touched", () => {
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

test("a newcomer with a filter that matches does not pass an older waiter that has none", async (t) => {
  const { pool, lease } = await busy(t);
  const waiter = outcome(pool.acquire("k"));
  const newcomer = outcome(pool.acquire("k", { filter: () => true }));
  lease.release();
  await settle();
  assert.deepEqual([waiter.state, newcomer.state], ["resolved", "pending"]);
});

test("a filtered waiter that nothing matches holds up nobody behind it, and keeps its place", async (t) => {
  const { pool, lease, conn } = await busy(t);
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

test("waiters between filtered ones that match different conns are served first come, first served", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxKeyConns: 2 });
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

/** A conn that cannot say that its slots have changed. */
class Silent extends PlainConn {
  maxStreams = 1;
}

test("a raised limit that the pool was not told of goes to the oldest waiter, not to the newcomer", async () => {
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

test("a queue longer than a batch is served in turns that let I/O in, and in order", async (t) => {
  const conn = new ScriptedConn({ maxStreams: 5000 });
  const { pool } = pooled(t, { dial: () => new Promise<ScriptedConn>(() => {}), maxWaiters: 0 });
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
