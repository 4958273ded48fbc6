import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { deferred, type ScriptedConn, scriptedDial } from "../support/conn.ts";
import { rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

const failure = new Error("on the way out");

/** Every way out of `use`. */
const ways: Record<string, { fn: (conn: ScriptedConn) => Promise<string>; throws?: Error }> = {
  "a value": { fn: async () => "value" },
  "a rejection": { fn: () => Promise.reject(failure), throws: failure },
  "a throw before the first await": {
    fn: () => {
      throw failure;
    },
    throws: failure,
  },
  "an abort": {
    fn: async (conn) => {
      const signal = AbortSignal.abort(failure);
      conn.started++;
      signal.throwIfAborted();
      return "not reached";
    },
    throws: failure,
  },
};

for (const [way, { fn, throws }] of Object.entries(ways)) {
  test(`use gives its slot back on ${way}, before the caller learns`, async (t) => {
    const { pool } = pooled(t, { dial: scriptedDial() });
    const free = () => pool.stats().idle === 1 && pool.stats().streams === 0;
    const seen = await pool.use("k", fn).then(
      (value) => ({ value, free: free() }),
      (error: unknown) => ({ error, free: free() }),
    );
    assert.deepEqual(seen, throws === undefined ? { value: "value", free: true } : { error: throws, free: true });
    assert.equal(await pool.use("k", async () => "again"), "again");
    assert.equal(pool.stats().dials, 1);
  });
}

test("use holds the slot until fn has settled, and the conn it was given stays open", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), capacity: -1 });
  const running = deferred<string>();
  const used = pool.use("k", () => running.promise);
  await settle();
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().streams, 1);
  running.resolve("done");
  assert.equal(await used, "done");
  assert.equal(pool.stats().open, 0);
});

test("an abort or a timeout ends the wait of use, and fn is not called", async (t) => {
  const { pool, clock } = pooled(t, { maxKeyConns: 1, dial: scriptedDial() });
  const held = await pool.acquire("k");
  const caller = new AbortController();
  let calls = 0;
  const fn = async () => calls++;
  const aborted = pool.use("k", fn, { signal: caller.signal });
  const late = rejection(pool.use("k", fn, { timeoutMs: 10 }));
  caller.abort(failure);
  assert.equal(await rejection(aborted), failure);
  await clock.advance(10);
  assert.equal((await late).name, "WaitTimeoutError");
  held.release();
  await settle();
  assert.deepEqual([calls, pool.stats().idle], [0, 1]);
});

test("a conn that dies under fn is not given back", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  await pool.use("k", async (conn) => conn.die());
  await settle();
  assert.deepEqual([pool.stats().open, [...pool.keys()]], [0, []]);
});
