import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, refusal } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

const manual = (maxStreams?: number): ReturnType<typeof scriptedDial> =>
  scriptedDial({ maxStreams: maxStreams ?? 1 }, { manual: true, ...(maxStreams === undefined ? {} : { maxStreams }) });

test("rule: one caller's abort never fails another that shares the dial", async () => {
  const dial = manual(2);
  const pool = testPool({ dial });
  const first = new AbortController();
  const reason = { why: "gone" };
  const aborted = outcome(pool.acquire("k", { signal: first.signal }));
  const other = outcome(pool.acquire("k"));
  first.abort(reason);
  await settle();
  assert.equal(aborted.error, reason);
  assert.equal(dial.pending[0]?.signal.aborted, false);
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(other.state, "resolved");
});

/** Each way in which a dial becomes unwanted while it is in flight. */
const ends: Record<string, (pool: ReturnType<typeof testPool>, abort: AbortController, clock: FakeClock) => unknown> = {
  "all its callers have gone": (_pool, abort) => abort.abort(),
  "its time is up": (_pool, _abort, clock) => clock.advance(1000),
  "its callers' time is up": (_pool, _abort, clock) => clock.advance(900),
  "clear() came": (pool) => pool.clear(),
  "clear(key) came": (pool) => pool.clear("k"),
  "close() came": (pool) => pool.close(),
};

for (const [what, end] of Object.entries(ends)) {
  test(`rule: when ${what}, a dial is abandoned: aborted, not counted, its late conn closed`, async () => {
    const clock = new FakeClock();
    const dial = manual();
    const timeoutMs = what.startsWith("its callers") ? 900 : 5000;
    const pool = testPool({ clock, dialTimeoutMs: 1000, maxWaiters: 0 });
    const abort = new AbortController();
    outcome(pool.acquire("k", { dial, signal: abort.signal, timeoutMs }));
    await settle();
    const pending = dial.pending[0];
    await end(pool, abort, clock);
    assert.equal(pending?.signal.aborted, true);
    const cleared = what.startsWith("clear");
    assert.equal(pool.stats().dialing, cleared ? 1 : 0, "it stops counting at once");
    const late = pending?.arrive();
    await settle();
    assert.deepEqual([late?.closes, pool.stats().open], [1, 0]);
    if (cleared) assert.equal(dial.count, 2, "the waiter stays, and is dialed anew");
  });

  test(`rule: when ${what}, the errors that an abandoned dial still brings are swallowed`, async () => {
    const clock = new FakeClock();
    const pool = testPool({ clock, dialTimeoutMs: 1000 });
    const timeoutMs = what.startsWith("its callers") ? 900 : 5000;
    const abort = new AbortController();
    const dials = [manual(), manual(), manual()];
    for (const dial of dials) outcome(pool.acquire("k", { dial, signal: abort.signal, timeoutMs }));
    await settle();
    await end(pool, abort, clock);
    const before = pool.stats().dialErrors;
    const throwing = new ScriptedConn({ close: () => Promise.reject(new Error("late close")) });
    throwing.die();
    const [first, ...others] = dials.flatMap(({ pending }) => pending);
    first?.fail(new Error("late"));
    for (const pending of others) if (pending.signal.aborted) pending.arrive(throwing);
    await settle();
    assert.equal(pool.stats().dialErrors, before);
  });
}

test("rule: a dial that abandoned callers left makes room under maxKeyDials and maxConns at once", async () => {
  for (const limits of [{ maxKeyDials: 1 }, { maxConns: 1 }, { maxKeyConns: 1 }]) {
    const dial = manual(1);
    const pool = testPool({ dial, ...limits });
    const abort = new AbortController();
    outcome(pool.acquire("k", { signal: abort.signal }));
    abort.abort();
    const next = outcome(pool.acquire("k"));
    assert.equal(dial.count, 2, JSON.stringify(limits));
    dial.pending[1]?.arrive();
    await settle();
    assert.equal(next.state, "resolved");
  }
});

test("rule: who comes after all others have gone starts a new dial", async () => {
  const dial = manual(10);
  const pool = testPool({ dial });
  const abort = new AbortController();
  outcome(pool.acquire("k", { signal: abort.signal }));
  outcome(pool.acquire("k", { signal: abort.signal }));
  abort.abort();
  const next = outcome(pool.acquire("k"));
  assert.equal(dial.count, 2);
  const late = dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([next.state, late?.closes], ["pending", 1]);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(next.state, "resolved");
});

test("rule: a dial uses the function of the oldest waiter that it is for", async () => {
  const names: string[] = [];
  const dialOf = (name: string) => (): Promise<ScriptedConn> => {
    names.push(name);
    return new Promise(() => {});
  };
  const pool = testPool({ maxStreams: 1, maxKeyDials: 2 });
  const aborts = ["a", "b", "c", "d"].map((name) => {
    const abort = new AbortController();
    outcome(pool.acquire("k", { dial: dialOf(name), signal: abort.signal }));
    return abort;
  });
  assert.deepEqual(names, ["a", "b"]);
  aborts[0]?.abort();
  aborts[1]?.abort();
  assert.deepEqual(names, ["a", "b"], "the dials in flight are for those who are left");
  pool.clear();
  assert.deepEqual(names, ["a", "b", "c", "d"]);
});

test("rule: waiters without a function are served by the dials of others, and start none", async () => {
  const dial = manual(2);
  const pool = testPool({ maxWaiters: 0 });
  const hold = outcome(pool.acquire("k", { dial }));
  const without = outcome(pool.acquire("k"));
  await settle();
  dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([hold.state, without.state], ["resolved", "resolved"]);
});

test("rule: what a dial brings after all its waiters were served otherwise is not leaked", async () => {
  const dial = manual(1);
  const pool = testPool({ dial });
  const waiter = outcome(pool.acquire("k"));
  pool.put("k", new ScriptedConn());
  await settle();
  assert.equal(waiter.state, "resolved");
  const late = dial.pending[0]?.arrive();
  await settle();
  const { open } = pool.stats();
  assert.equal(open + (late?.closes ?? 0), 2, "cached or closed");
});

test("rule: what was dialed before a clear is not handed out after it, though its dial ends in the same turn", async () => {
  const dial = manual(1);
  const pool = testPool({ dial });
  const waiter = outcome(pool.acquire("k"));
  const stale = dial.pending[0]?.arrive();
  pool.clear("k");
  await settle();
  assert.deepEqual([waiter.state, stale?.closes, dial.count], ["pending", 1, 2]);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(waiter.state, "resolved");
});

test("rule: neither the caller's signal nor the dial's keeps a listener of the pool's when the wait is over", async () => {
  const dial = manual(1);
  const pool = testPool({ dial });
  const listeners = (signal: AbortSignal | undefined) => (signal ? getEventListeners(signal, "abort").length : -1);
  const { signal } = new AbortController();
  const served = outcome(pool.acquire("k", { signal }));
  const failed = outcome(pool.acquire("k", { signal }));
  assert.equal(listeners(signal), 1, "however many watch");
  dial.pending[0]?.arrive();
  dial.pending[1]?.fail(new Error("no"));
  await settle();
  assert.deepEqual([served.state, failed.state], ["resolved", "rejected"]);
  assert.equal(listeners(signal), 0);
  assert.equal(listeners(dial.pending[0]?.signal), 0);
});

test("rule: a caller whose signal is already aborted never joins a dial, and starts none", async () => {
  const dial = manual(10);
  const pool = testPool({ dial });
  const signal = AbortSignal.abort("before");
  assert.equal(await refusal(pool.acquire("k", { signal })), "before");
  assert.equal(dial.count, 0);
  assert.deepEqual([...pool.keys()], []);
});

test("rule: one signal that ends the callers of many keys starts no dial for those who are about to leave", async () => {
  const dial = manual(1);
  const pool = testPool({ dial, maxConns: 2 });
  const abort = new AbortController();
  for (let key = 0; key < 50; key++) outcome(pool.acquire(`${key}`, { signal: abort.signal }));
  assert.equal(dial.count, 2);
  abort.abort();
  await settle();
  assert.equal(dial.count, 2);
  assert.deepEqual([...pool.keys()], []);
});
