import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import * as errors from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

/** Runs a program of its own with `Pool` in scope; resolves with what it printed and how it ended. */
function run(program: string): Promise<{ output: string; code: number | null }> {
  const header = `import { Pool } from ${JSON.stringify(new URL("../../src/index.js", import.meta.url).href)};
    const conn = () => ({ close() {}, closed: new Promise(() => {}) });\n`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", header + program], { timeout: 5_000 });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += String(data)));
  return new Promise((resolve) => child.on("close", (code) => resolve({ output: output.trim(), code })));
}

test("row 45: a pool with idle conns, an expiration and a lifetime does not hold the process", async () => {
  const { output, code } = await run(`
    const pool = new Pool({ expirationMs: 60_000, maxLifetimeMs: 60_000, capacity: 10 });
    for (let i = 0; i < 20; i++) (await pool.acquire("k" + i, { dial: conn })).release();
    process.on("exit", () => console.log("open at exit:", pool.stats().open));`);
  assert.deepEqual([output, code], ["open at exit: 10", 0]);
});

test("row 45: a waiting caller does hold it, even when all that it waits for is the pool's own timer", async () => {
  const { output, code } = await run(`
    const pool = new Pool({ maxKeyConns: 1 });
    await pool.acquire("k", { dial: conn });
    await pool.acquire("k", { timeoutMs: 50 }).catch((error) => console.log(error.name));
    const never = () => new Promise(() => {});
    await pool.acquire("other", { dial: never, timeoutMs: 50 }).catch((error) => console.log(error.name));
    await pool.close({ graceMs: 50 }).then(() => console.log("closed"));`);
  assert.deepEqual([output.split("\n"), code], [["WaitTimeoutError", "WaitTimeoutError", "closed"], 0]);
});

test("row 45: a conn that runs no stream does not hold the process: it is unref'd, and ref'd while one runs", async (t) => {
  const { pool } = pooled(t);
  class Socketlike extends ScriptedConn {
    held = true;
    ref() {
      this.held = true;
    }
    unref() {
      this.held = false;
    }
  }
  const [dialed, adopted] = [new Socketlike({ maxStreams: 2 }), new Socketlike()];
  const one = await pool.acquire("k", { dial: () => dialed });
  assert.equal(dialed.held, true);
  const two = pool.tryAcquire("k");
  one.release();
  assert.equal(dialed.held, true);
  two?.release();
  assert.equal(dialed.held, false);
  pool.put("k", adopted);
  assert.equal(adopted.held, false);
  assert.equal(pool.take("k"), dialed);
  assert.equal(dialed.held, true); // as it came, for whoever owns it now
  pool.tryAcquire("k");
  assert.equal(adopted.held, true);
});

test("row 45: one timer for 10,000 keys, each used once; nothing is left of them when they have expired", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 60_000, maxLifetimeMs: 3600_000, dialTimeoutMs: 1000 });
  const closed = new Promise<void>(() => {});
  let open = 0;
  const dial = () => {
    open++;
    return { close: () => void open--, closed } as unknown as ScriptedConn;
  };
  for (let i = 0; i < 10_000; i++) (await pool.acquire(`k${i}`, { dial })).release();
  assert.equal(pool.stats().keys, 10_000);
  await clock.advance(75_000);
  assert.deepEqual([pool.stats().keys, open, clock.mostTimers, clock.timers], [0, 0, 1, 0]);
});

test("row 45: an AbortSignal ends a call that waits, that dials or that runs, with its reason untouched", async (t) => {
  const { pool } = pooled<Conn>(t, { maxKeyConns: 1 });
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
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

test("row 45: the pool watches a caller's signal only until the slot is taken", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({}, { manual: true });
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
});

test("row 45: errors are typed: a stable code each, and a brand that survives two copies of the package", async () => {
  const brand = Symbol.for("rpc-conn-pool.error");
  const all: [Error, string][] = [
    [new errors.PoolClosedError(), "ERR_POOL_CLOSED"],
    [new errors.ConnClosedError("died", false), "ERR_POOL_CONN_CLOSED"],
    [new errors.DialError("x"), "ERR_POOL_DIAL"],
    [new errors.DialTimeoutError("x"), "ERR_POOL_DIAL_TIMEOUT"],
    [new errors.WaitTimeoutError("x"), "ERR_POOL_WAIT_TIMEOUT"],
    [new errors.QueueFullError("x"), "ERR_POOL_QUEUE_FULL"],
    [new errors.NoConnError("x"), "ERR_POOL_NO_CONN"],
    [new errors.NoMatchError("x"), "ERR_POOL_NO_MATCH"],
    [new errors.PoolTypeError("x"), "ERR_POOL_ARGUMENT"],
    [new errors.PoolRangeError("x"), "ERR_POOL_ARGUMENT"],
  ];
  for (const [error, code] of all) {
    assert.ok(errors.isPoolError(error));
    assert.deepEqual([error.code, error.name], [code, error.constructor.name]);
    assert.ok(brand in error);
  }
  assert.ok(new errors.DialTimeoutError("x") instanceof errors.DialError);
  assert.ok(errors.isPoolError({ [brand]: true })); // another copy's
  for (const other of [new Error("x"), null, undefined, "x"]) assert.equal(errors.isPoolError(other), false);
  assert.equal((await rejection(Promise.reject(new errors.PoolClosedError()))).name, "PoolClosedError");
});
