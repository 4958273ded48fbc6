import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Pool } from "../../src/pool/pool.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { type ScriptedConn, scriptedDial, settle } from "../../src/testing/index.ts";

const minuteMs = 60_000;

test("a pool without a clock of its own follows the fake timers of node:test", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const dial = scriptedDial();
  const pool = new Pool<string, ScriptedConn>({ dial, expirationMs: minuteMs });
  t.after(() => pool.close());
  (await pool.acquire("peer")).release();
  t.mock.timers.tick(minuteMs - 1);
  await settle();
  assert.equal(pool.stats().idle, 1);
  t.mock.timers.tick(minuteMs / 4 + 1);
  await settle();
  assert.equal(pool.stats().closed.expired, 1);
});

test("a wait ends when the fake timers of node:test say so", async (t) => {
  t.mock.timers.enable();
  const pool = new Pool<string, ScriptedConn>({ dial: scriptedDial({}, { manual: true }) });
  t.after(() => pool.close());
  const wait = pool.acquire("peer", { timeoutMs: 5000 });
  const failed = assert.rejects(wait, { code: "ERR_POOL_WAIT_TIMEOUT" });
  t.mock.timers.tick(5000);
  await failed;
});

test("the default clock reads a `performance` that was put in place of the machine's", (t) => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "performance");
  assert.ok(own);
  t.after(() => Object.defineProperty(globalThis, "performance", own));
  t.mock.method(globalThis, "setTimeout", () => 7);
  Object.defineProperty(globalThis, "performance", { configurable: true, value: { now: () => 42 } });
  assert.equal(systemClock.now(), 42);
  assert.equal(
    systemClock.setTimeout(() => {}, 1),
    7,
  );
});

test("where no timers are mocked, the default clock is monotonic, whatever Date says", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 5 });
  const before = performance.now();
  const now = systemClock.now();
  assert.ok(before <= now && now <= performance.now(), `${now}`);
});

test("fake microtasks and turns of the event loop, as Jest has them, do not hold up a pool", async (t) => {
  t.mock.method(globalThis, "queueMicrotask", () => {});
  t.mock.method(globalThis, "setImmediate", () => 7);
  const pool = new Pool<string, ScriptedConn>({ dial: scriptedDial(), maxKeyConns: 1, maxWaiters: 0 });
  let heard = 0;
  pool.on("dialed", () => heard++);
  (await pool.acquire("peer")).release();
  const waits = Array.from({ length: 2500 }, () => pool.acquire("peer").then((lease) => lease.release()));
  await Promise.all(waits);
  await pool.close();
  assert.equal(heard, 1);
});

test("no fake timer repeats: runners that run until none is left come to an end", async () => {
  // In a process of its own: what holds a process while somebody waits is made once.
  const program = `
    import { Pool } from "rpc-conn-pool";
    import { scriptedDial } from "rpc-conn-pool/testing";
    globalThis.setInterval = () => { throw new Error("a timer that repeats"); };
    const dial = scriptedDial({}, { manual: true });
    const pool = new Pool({ dial });
    const wait = pool.acquire("peer");
    dial.pending[0].arrive();
    (await wait).release();
    await pool.close();
    console.log("done");`;
  const cwd = fileURLToPath(new URL("../../../", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], { cwd });
  assert.equal(stdout, "done\n");
});
