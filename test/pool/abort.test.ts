import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { manualDial, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, refusal } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

nothingUnheard();

test("an AbortSignal ends a call that waits, that dials or that runs, with its reason untouched", async (t) => {
  const { pool } = pooled<Conn>(t, { maxKeyConns: 1 });
  const dial = manualDial(1);
  const handle = pool.get("k", dial);
  const reason = { any: "value" };
  const aborted = async (start: (signal: AbortSignal) => Promise<unknown>) => {
    const caller = new AbortController();
    const failed = start(caller.signal).catch((error: unknown) => error);
    await settle();
    caller.abort(reason);
    assert.equal(await failed, reason);
    assert.equal(getEventListeners(caller.signal, "abort").length, 0);
  };
  await aborted((signal) => call(handle, { signal })); // dials
  const held = pool.acquire("k", { dial });
  dial.pending.at(-1)?.arrive();
  const lease = await held;
  await aborted((signal) => call(handle, { signal })); // waits
  lease.release();
  await aborted((signal) => call(handle, { signal })); // runs
  await aborted((signal) => call(pool.get("k", dial, { signal }))); // the handle's own
  await assert.rejects(call(handle, { signal: AbortSignal.abort(new Error("before")) }), { message: "before" });
  assert.deepEqual([pool.stats().streams, pool.stats().waiting, pool.stats().open], [0, 0, 1]);
});

test("a caller whose signal is aborted already never joins, and nothing is dialed", async (t) => {
  for (const dial of [scriptedDial(), manualDial(10)]) {
    const { pool } = pooled(t, { maxKeyConns: 1, dial });
    for (const reason of [new Error("too late"), "before"]) {
      assert.equal(await refusal(pool.acquire("k", { signal: AbortSignal.abort(reason) })), reason);
    }
    assert.deepEqual([dial.count, [...pool.keys()]], [0, []]);
  }
});

test("a thousand callers share one signal and one dial, and leave no listener behind", async (t) => {
  const dial = manualDial(1000);
  const { pool } = pooled(t, { dial });
  const shared = new AbortController();
  const reason = { why: "gone" };
  const calls = Array.from({ length: 1000 }, () => outcome(pool.acquire("k", { signal: shared.signal })));
  const other = outcome(pool.acquire("k"));
  shared.abort(reason);
  await settle();
  assert.ok(calls.every(({ error }) => error === reason));
  assert.equal(getEventListeners(shared.signal, "abort").length, 0);
  assert.equal(dial.pending[0]?.signal.aborted, false);
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(other.state, "resolved");
});

test("the pool watches a caller's signal only until the slot is taken", async (t) => {
  const { pool } = pooled(t);
  const dial = manualDial();
  const { signal } = new AbortController();
  const waiting = pool.acquire("k", { dial, signal });
  assert.equal(getEventListeners(signal, "abort").length, 1);
  dial.pending[0]?.arrive();
  const lease = await waiting;
  assert.equal(getEventListeners(signal, "abort").length, 0);
  lease.release();
  const hit = outcome(pool.acquire("k", { dial, signal }));
  assert.equal(getEventListeners(signal, "abort").length, 0);
  await settle();
  assert.equal(hit.state, "resolved");
  const behind = outcome(pool.acquire("k", { dial: manualDial(), signal }));
  assert.equal(getEventListeners(signal, "abort").length, 1);
  hit.value?.release();
  assert.equal(getEventListeners(signal, "abort").length, 0);
  await settle();
  assert.equal(behind.state, "resolved");
});

test("neither the caller's signal nor the dial's keeps a listener of the pool's when the wait is over", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial });
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

test("one signal that ends the callers of many keys starts no dial for those who are about to leave", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial, maxConns: 2 });
  const abort = new AbortController();
  for (let key = 0; key < 50; key++) outcome(pool.acquire(`${key}`, { signal: abort.signal }));
  assert.equal(dial.count, 2);
  abort.abort();
  await settle();
  assert.equal(dial.count, 2);
  assert.deepEqual([...pool.keys()], []);
});
