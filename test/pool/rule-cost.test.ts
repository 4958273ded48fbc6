import assert from "node:assert/strict";
import { createHook } from "node:async_hooks";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

/** A conn that allocates one promise per call, and none of its own for `then`. */
class FlatConn extends ScriptedConn {
  readonly answer: Promise<never> = Promise.resolve("y" as never);

  override invoke<O>(): Promise<O> {
    return this.answer;
  }
}

/** How many promises are made while `work` runs synchronously. */
function promises(work: () => void): number {
  let made = 0;
  const hook = createHook({
    init(_id, type) {
      if (type === "PROMISE") made++;
    },
  });
  hook.enable();
  work();
  hook.disable();
  return made;
}

test("rule: a hit allocates one promise, the one that the caller gets", async () => {
  const conn = new FlatConn({ maxStreams: 10 });
  const pool = new Pool<string, Conn>({ clock: new FakeClock() });
  pool.put("k", conn);
  const handle = pool.get("k");
  await handle.invoke(echo, "x");
  assert.equal(
    promises(() => void handle.invoke(echo, "x")),
    1,
  );
});

test("rule: the first call of a handle that finds a conn is a hit like any other", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, Conn>({ clock });
  pool.put("k", new FlatConn({ maxStreams: 10 }));
  await pool.get("k").invoke(echo, "x");
  const { readings } = clock;
  const handle = pool.get("k");
  assert.equal(
    promises(() => void handle.invoke(echo, "x")),
    1,
  );
  assert.equal(clock.readings, readings);
});

test("rule: a hit reads no clock, adds no listener and arms no timer", async () => {
  for (const limits of [{}, { expirationMs: 60_000, capacity: 5, maxConns: 5, maxLifetimeMs: 60_000, maxUses: 1e6 }]) {
    const clock = new FakeClock();
    const pool = new Pool<string, Conn>({ clock, dial: scriptedDial({ answer: () => "y" }), ...limits });
    const handle = pool.get("k");
    const { signal } = new AbortController();
    await handle.invoke(echo, "x", { signal });
    await handle.invoke(echo, "x", { signal });
    const { readings, mostTimers, timers } = clock;
    for (let call = 0; call < 100; call++) await handle.invoke(echo, "x");
    assert.equal(clock.readings, readings, JSON.stringify(limits));
    const add = signal.addEventListener.bind(signal);
    let added = 0;
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      added++;
      add(...args);
    };
    await handle.invoke(echo, "x", { signal });
    assert.equal(added, 1, "the conn's own");
    assert.deepEqual([clock.mostTimers, clock.timers], [mostTimers, timers]);
    assert.equal(clock.readings, readings);
  }
});

test("rule: the pool watches a caller's signal until the slot is taken, and the conn from then on", async () => {
  const pool = testPool({ dial: scriptedDial(), maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  const { signal } = new AbortController();
  const waiter = outcome(pool.acquire("k", { signal }));
  assert.equal(getEventListeners(signal, "abort").length, 1);
  lease.release();
  assert.equal(getEventListeners(signal, "abort").length, 0);
  await settle();
  waiter.value?.release();
});

test("rule: emptied keys leave no trace, whichever way they were emptied", async () => {
  const clock = new FakeClock();
  const pool = testPool({ clock, dial: scriptedDial(), expirationMs: 100 });
  const empty = () => {
    assert.deepEqual([...pool.keys()], []);
    assert.equal(pool.stats().keys, 0);
    assert.equal(clock.timers, 0);
  };
  const used = async () => {
    const lease = await pool.acquire("k");
    lease.release();
    return lease.conn;
  };
  await used();
  await clock.advance(130);
  empty(); // expired
  (await used()).die();
  await settle();
  empty(); // died
  await used();
  pool.clear("k");
  empty(); // cleared
  await used();
  pool.take("k");
  empty(); // taken
  const conn = await used();
  Object.assign(conn, { draining: true }).changed();
  empty(); // gone away
  await used();
  pool.configure({ keyCapacity: -1 });
  empty(); // configured
  pool.put("k", new ScriptedConn());
  empty(); // evicted, as nobody may be idle
  pool.configure({ keyCapacity: 0, maxKeyConns: -1 });
  assert.equal(pool.put("k", new ScriptedConn()), false);
  empty(); // refused
  pool.configure({ maxKeyConns: 0 });
  const abort = new AbortController();
  outcome(pool.acquire("k", { signal: abort.signal, dial: () => new Promise(() => {}) }));
  abort.abort();
  empty(); // aborted
  const dead = new ScriptedConn();
  dead.die();
  pool.put("k", dead);
  await settle();
  empty(); // died before it came
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.take("k"), undefined);
  pool.clear("k");
  empty(); // asked for
});

test("rule: what configure(…, key) set outlives the key", async () => {
  const pool = testPool({ dial: scriptedDial() });
  pool.configure({ maxKeyConns: 1 }, "k");
  (await pool.acquire("k")).release();
  pool.clear("k");
  assert.deepEqual([...pool.keys()], []);
  const lease = await pool.acquire("k");
  const second = outcome(pool.acquire("k"));
  await settle();
  assert.equal(second.state, "pending");
  lease.release();
});
