import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome, rejection, states } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test("warm and waiters that share a signal all end with it, and the others are served", async (t) => {
  const { pool } = pooled(t, { dial: manualDial(1), maxKeyConns: 2 });
  const abort = new AbortController();
  const { signal } = abort;
  const warm = outcome(pool.warm("k", 2, { signal }));
  const mine = [1, 2, 3].map(() => outcome(pool.acquire("k", { signal })));
  const others = [1, 2].map(() => outcome(pool.acquire("k")));
  const warmToo = outcome(pool.warm("k", 2, { signal }));
  abort.abort(new Error("gone"));
  await settle();
  assert.deepEqual(states(warm, warmToo, ...mine), Array(5).fill("rejected"));
  assert.equal(pool.stats().waiting, 2);
  pool.put("k", new ScriptedConn({ maxStreams: 2 }));
  await settle();
  assert.deepEqual([...states(...others), pool.stats().waiting], ["resolved", "resolved", 0]);
  for (const { value } of others) value?.release();
});

test("a filter that aborts the signal of those who wait leaves the queue whole", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  const abort = new AbortController();
  const { signal } = abort;
  const filter = () => {
    abort.abort(new Error("gone"));
    return true;
  };
  const aborting = outcome(pool.acquire("k", { filter, signal }));
  const next = outcome(pool.acquire("k", { signal }));
  const other = outcome(pool.acquire("k"));
  lease.release();
  await settle();
  aborting.value?.release();
  await settle();
  assert.deepEqual([next.state, other.state, pool.stats().waiting], ["rejected", "resolved", 0]);
  other.value?.release();
});

test("warm is told when limits or hashKey abort its signal", async (t) => {
  for (const option of ["limits", "hashKey"] as const) {
    const abort = new AbortController();
    const callback = (key: string) => {
      abort.abort(new Error("gone"));
      return option === "hashKey" ? key : {};
    };
    const { pool } = pooled(t, { dial: manualDial(1), [option]: callback });
    const error = await rejection(pool.warm("k", 1, { signal: abort.signal }));
    assert.equal(error.message, "gone");
    assert.equal(pool.stats().dialing, 0);
  }
});
