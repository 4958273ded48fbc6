import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

/** A conn without `onChange`, whose getter of slots is the caller's. */
function asked(slots: () => number): ScriptedConn {
  const conn = new ScriptedConn();
  Object.defineProperty(conn, "maxStreams", { get: slots });
  Object.defineProperty(conn, "onChange", { value: undefined });
  return conn;
}

/** A pool whose one conn is leased, whose queue has one waiter, and whose getter of slots can be made to do something. */
async function heldBack() {
  let trap: (() => void) | undefined;
  const conn = asked(() => {
    const spring = trap;
    trap = undefined;
    spring?.();
    return 1;
  });
  const pool = testPool({ dial: () => conn, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  const first = new AbortController();
  const waiter = outcome(pool.acquire("k", { signal: first.signal }));
  const newcomer = (spring: () => void, signal?: AbortSignal) => {
    trap = spring;
    const acquired = outcome(pool.acquire("k", { signal }));
    assert.equal(trap, undefined, "the getter was asked");
    return acquired;
  };
  return { pool, lease, first, waiter, newcomer };
}

test("rule: outside calls: a getter that closes the pool leaves no newcomer waiting", async () => {
  const { pool, newcomer } = await heldBack();
  const second = newcomer(() => void pool.close({ graceMs: 0 }));
  await settle();
  assert.equal(second.state, "rejected");
});

test("rule: outside calls: a getter that aborts the newcomer's signal is heard", async () => {
  const { newcomer } = await heldBack();
  const controller = new AbortController();
  const second = newcomer(() => controller.abort(), controller.signal);
  await settle();
  assert.equal(second.state, "rejected");
});

test("rule: outside calls: a getter that frees the conn serves the newcomer", async () => {
  const { lease, first, newcomer } = await heldBack();
  const second = newcomer(() => {
    first.abort();
    lease.release();
  });
  await settle();
  assert.equal(second.state, "resolved");
  second.value?.release();
});

test("rule: emptied keys leave no trace: a conn whose put fails is not remembered by the pool", async () => {
  setFlagsFromString("--expose-gc");
  const gc: unknown = runInNewContext("gc");
  assert.ok(typeof gc === "function");
  let looks = 0;
  const pool = testPool({
    maxKeyConns: 1,
    limits: () => {
      if (++looks > 1) throw new Error("limits does not answer");
      return undefined;
    },
  });
  pool.put("k", new ScriptedConn());
  const put = () => {
    const conn = new ScriptedConn();
    assert.throws(() => pool.put("k", conn), /limits does not answer/);
    return new WeakRef(conn);
  };
  const ref = put();
  await settle();
  gc();
  await settle();
  assert.equal(ref.deref(), undefined);
});

test("row 13e: tryAcquire that finds the last conn draining is counted as a miss", async () => {
  const conn = new ScriptedConn();
  const pool = testPool();
  pool.put("k", conn);
  conn.draining = true;
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().misses, 1);
});

test("rule: outside calls: a conn that a filter moves to another key is not handed out under its old one", () => {
  const pool = testPool();
  pool.put("a", new ScriptedConn());
  const filter = () => {
    const taken = pool.take("a");
    if (taken !== undefined) pool.put("b", taken);
    return true;
  };
  assert.equal(pool.tryAcquire("a", { filter }), undefined);
  assert.equal(pool.stats("b").idle, 1);
});

test("rule: outside calls: a conn that moves itself to another key when it is asked is not handed out under its old one", () => {
  const pool = testPool();
  class Mover extends ScriptedConn {
    moves = 0;

    override unblocked(): undefined {
      const taken = this.moves++ === 0 ? pool.take("a") : undefined; // `take` asks, too
      if (taken !== undefined) pool.put("b", taken);
    }
  }
  const conn = new Mover();
  pool.put("a", conn);
  assert.equal(pool.tryAcquire("a"), undefined);
  assert.deepEqual([pool.stats("a").open, pool.stats("b").idle, conn.closes], [0, 1, 0]);
});

test("a conn that was taken does not keep its key's record", async () => {
  setFlagsFromString("--expose-gc");
  const gc: unknown = runInNewContext("gc");
  assert.ok(typeof gc === "function");
  const pool = new Pool<object, ScriptedConn>({ clock: new FakeClock() });
  const takeOne = () => {
    const key = {};
    pool.put(key, new ScriptedConn());
    return { conn: pool.take(key), ref: new WeakRef(key) };
  };
  takeOne();
  const { conn, ref } = takeOne();
  await settle();
  gc();
  await settle();
  assert.equal(ref.deref(), undefined);
  assert.equal(conn?.closes, 0);
});

test("rule: outside calls: a getter that clears while a conn is asked or validated harms nobody", async () => {
  const clock = new FakeClock();
  let reads = 0;
  let clearAt = -1;
  const pool = testPool({ clock, maxKeyConns: 1, validate: async () => true, dial: scriptedDial() });
  for (let read = 0; read < 8; read++) {
    clearAt = -1;
    pool.put(
      "k",
      asked(() => {
        if (reads++ === clearAt) pool.clear();
        return 1;
      }),
    );
    await clock.advance(600);
    reads = 0;
    clearAt = read;
    const waiter = outcome(pool.acquire("k"));
    await settle();
    assert.equal(waiter.state, "resolved", `at reading ${read}: ${String(waiter.error)}`);
    waiter.value?.release();
    pool.clear();
    await settle();
    assert.deepEqual([pool.stats().open, pool.stats().idle], [0, 0]);
  }
});
