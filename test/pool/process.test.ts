import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { HeldConn } from "../support/conn.ts";
import { pooled } from "../support/pool.ts";

interface Ended {
  readonly code: unknown;
  readonly out: string;
}

const library = new URL("../../src/index.js", import.meta.url).href;
const support = new URL("../support/conn.js", import.meta.url).href;

/** Runs a program of its own that imports the library; it is killed where it does not end by itself. */
function run(program: string): Promise<Ended> {
  const source = `
    import { Pool } from ${JSON.stringify(library)};
    import { ScriptedConn } from ${JSON.stringify(support)};
    const dial = () => new ScriptedConn();
    process.on("exit", () => console.log("exit"));
    ${program}`;
  return new Promise((resolve) => {
    const args = ["--input-type=module", "--eval", source];
    execFile(process.execPath, args, { timeout: 10_000 }, (error, out, err) => {
      resolve({ code: error === null ? 0 : (error.killed ?? error.code), out: out + err });
    });
  });
}

test("a pool with idle conns, an expiration and a lifetime does not hold the process", async () => {
  const { out, code } = await run(`
    const pool = new Pool({ dial, expirationMs: 60_000, maxLifetimeMs: 60_000, capacity: 10 });
    for (let i = 0; i < 20; i++) (await pool.acquire("k" + i)).release();
    process.on("exit", () => console.log("open at exit:", pool.stats().open));`);
  assert.deepEqual([out, code], ["exit\nopen at exit: 10\n", 0]);
});

/** Programs that leave something of the pool's behind, and must end by themselves. */
const ending: Record<string, string> = {
  "a lease that nobody gives back": `
    const pool = new Pool({ dial });
    await pool.acquire("k");`,
  "a backoff": `
    const pool = new Pool({ dial: () => Promise.reject(new Error("no")), backoff: { baseMs: 60_000, maxMs: 60_000 } });
    await pool.acquire("k").catch(() => {});`,
  "a dial that was given up": `
    const pool = new Pool({ dial: () => new Promise(() => {}) });
    await pool.acquire("k", { timeoutMs: 20 }).catch(() => {});`,
  "a conn whose close() never settles": `
    const pool = new Pool({ capacity: 1, dial: () => new ScriptedConn({ close: () => new Promise(() => {}) }) });
    (await pool.acquire("a")).release();
    (await pool.acquire("b")).release();`,
  "a pool that was closed": `
    const pool = new Pool({ dial, expirationMs: 60_000 });
    (await pool.acquire("k")).release();
    await pool.close();`,
  "a waiter that has been served, and one that has given up": `
    const pool = new Pool({ dial, maxKeyConns: 1 });
    const lease = await pool.acquire("k");
    const abort = new AbortController();
    const gone = pool.acquire("k", { signal: abort.signal }).catch(() => {});
    const served = pool.acquire("k");
    abort.abort();
    await gone;
    lease.release();
    (await served).release();`,
};

const idle = { code: 0, out: "exit\n" };

for (const [what, program] of Object.entries(ending)) {
  test(`${what} does not keep the process alive`, async () => {
    assert.deepEqual(await run(program), idle);
  });
}

/** Programs whose last hope is a timer of the pool's; it must come before the process ends. Each prints one line. */
const waiting: Record<string, { prints: string; program: string }> = {
  "a caller's own timeout": {
    prints: "ERR_POOL_WAIT_TIMEOUT",
    program: `
    const pool = new Pool({ dial: () => new Promise(() => {}) });
    pool.acquire("k", { timeoutMs: 80 }).catch((error) => console.log(error.code));`,
  },
  "a caller's own timeout, on a key that is full": {
    prints: "ERR_POOL_WAIT_TIMEOUT",
    program: `
    const pool = new Pool({ dial, maxKeyConns: 1 });
    await pool.acquire("k");
    pool.acquire("k", { timeoutMs: 80 }).catch((error) => console.log(error.code));`,
  },
  "a dial's timeout": {
    prints: "ERR_POOL_DIAL_TIMEOUT",
    program: `
    const pool = new Pool({ dialTimeoutMs: 80, dial: () => new Promise(() => {}) });
    pool.acquire("k").catch((error) => console.log(error.code));`,
  },
  "a backoff that a patient caller waits out": {
    prints: "served",
    program: `
    let dials = 0;
    const pool = new Pool({
      backoff: { baseMs: 100 },
      dial: () => (dials++ === 0 ? Promise.reject(new Error("no")) : dial()),
    });
    pool.acquire("k", { waitForReady: true }).then(() => console.log("served"));`,
  },
  "the end of another conn's life": {
    prints: "served",
    program: `
    const pool = new Pool({ dial, maxKeyConns: 1, maxLifetimeMs: 80 });
    const lease = await pool.acquire("k");
    setTimeout(() => lease.release(), 20).unref();
    pool.acquire("k").then(() => console.log("served"));`,
  },
  "the grace of a pool that is being closed": {
    prints: "closed",
    program: `
    const pool = new Pool({ dial });
    await pool.acquire("k");
    pool.close({ graceMs: 80 }).then(() => console.log("closed"));`,
  },
  "after a pool was closed from inside a conn's close()": {
    prints: "ERR_POOL_WAIT_TIMEOUT",
    program: `
    const odd = new Pool({ maxConns: 1 });
    odd.put("a", Object.assign(new ScriptedConn(), { close: () => odd.close() }));
    odd.put("b", new ScriptedConn());
    await odd.close();
    const pool = new Pool({ dial: () => new Promise(() => {}) });
    pool.acquire("k", { timeoutMs: 80 }).catch((error) => console.log(error.code));`,
  },
};

for (const [what, { prints, program }] of Object.entries(waiting)) {
  test(`a waiting caller keeps the process alive: ${what}`, async () => {
    assert.deepEqual(await run(program), { code: 0, out: `${prints}\nexit\n` });
  });
}

test("a conn that runs no stream does not hold the process: it is unref'd, and ref'd while one runs", async (t) => {
  const { pool } = pooled(t);
  const [dialed, adopted] = [new HeldConn({ maxStreams: 2 }), new HeldConn()];
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
