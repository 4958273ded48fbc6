import assert from "node:assert/strict";
import { createHook } from "node:async_hooks";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

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

test("a hit allocates one promise, the one that the caller gets", async () => {
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

test("the first call of a handle that finds a conn is a hit like any other", async () => {
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

test("a hit reads no clock, adds no listener and arms no timer", async () => {
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

test("one more caller of a full key asks one of its conns for slots, not all", (t) => {
  const { pool } = pooled(t, { maxKeyConns: 20 });
  let asked = 0;
  for (let i = 0; i < 20; i++) {
    const conn = new ScriptedConn();
    Object.defineProperty(conn, "maxStreams", { get: () => void asked++ });
    pool.put("k", conn);
    pool.tryAcquire("k");
  }
  const wait = () => pool.acquire("k", { dial: scriptedDial() }).catch(() => {}); // the pool is closed at the end of the test
  void wait();
  asked = 0;
  for (let caller = 0; caller < 10; caller++) void wait();
  assert.equal(asked, 10);
});
