import assert from "node:assert/strict";
import { test } from "node:test";
import { PoolClosedError } from "../../src/errors.ts";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, refusal, soon } from "../support/outcome.ts";

nothingUnheard();

const never = new Promise<void>(() => {});
const failing = (message: string) => () => Promise.reject(new Error(message));

function make(options: PoolOptions<string, ScriptedConn> = {}): { pool: Pool<string, ScriptedConn>; clock: FakeClock } {
  const clock = new FakeClock();
  return { clock, pool: new Pool<string, ScriptedConn>({ clock, dial: scriptedDial(), ...options }) };
}

function messages(error: unknown): string[] {
  assert.ok(error instanceof AggregateError);
  return error.errors.map((one) => (one as Error).message);
}

test("rule: close() gathers the errors of all conns that it closes, even of one", async () => {
  for (const count of [1, 3]) {
    const { pool } = make();
    for (let conn = 0; conn < count; conn++) pool.put("k", new ScriptedConn({ close: failing(`conn ${conn}`) }));
    pool.put("fine", new ScriptedConn());
    const error = await refusal(pool.close());
    assert.deepEqual(
      messages(error),
      Array.from({ length: count }, (_, conn) => `conn ${conn}`),
    );
  }
});

test("rule: close() gathers what a conn's close() throws, and what conns in use bring when they end", async () => {
  const { pool } = make();
  const thrower = new ScriptedConn();
  thrower.close = () => {
    throw new Error("thrown");
  };
  pool.put("a", thrower);
  pool.put("b", new ScriptedConn({ close: failing("late") }));
  const lease = await pool.acquire("b");
  const closing = outcome(pool.close());
  await settle();
  assert.equal(closing.state, "pending");
  lease.release();
  await settle();
  assert.deepEqual(messages(closing.error), ["thrown", "late"]);
});

test("rule: what was evicted before is not among the errors of close(), nor is its pending close() waited for", async () => {
  const { pool } = make({ capacity: 1 });
  pool.put("a", new ScriptedConn({ close: failing("before") }));
  pool.put("b", new ScriptedConn({ close: () => never }));
  pool.put("c", new ScriptedConn());
  await settle();
  await soon(pool.close());
});

test("rule: a conn whose close() is still pending after 5 s counts as failed, and the others do not wait longer", async () => {
  const { pool, clock } = make();
  pool.put("a", new ScriptedConn({ close: () => never }));
  pool.put("b", new ScriptedConn());
  const closing = outcome(pool.close());
  await clock.advance(4999);
  assert.equal(closing.state, "pending");
  await clock.advance(1);
  await settle();
  assert.equal(messages(closing.error).length, 1);
  assert.match(messages(closing.error)[0] ?? "", /5000|5 s/);
  assert.equal(clock.timers, 0);
});

test("rule: the patience of 5 s begins with each conn's close(), not with the pool's", async () => {
  const { pool, clock } = make();
  pool.put("a", new ScriptedConn({ close: () => never }));
  const lease = await pool.acquire("a");
  const closing = outcome(pool.close({ graceMs: 60_000 }));
  await clock.advance(20_000);
  lease.release();
  await clock.advance(4999);
  assert.equal(closing.state, "pending");
  await clock.advance(1);
  await settle();
  assert.equal(closing.state, "rejected");
});

test("rule: a close() that comes back after its 5 s, with an error, is heard by nobody and harms nobody", async () => {
  const { pool, clock } = make();
  let fail: (error: unknown) => void = () => {};
  pool.put("a", new ScriptedConn({ close: () => new Promise((_, reject) => (fail = reject)) }));
  const closing = outcome(pool.close());
  await clock.advance(5000);
  await settle();
  fail(new Error("too late"));
  await settle();
  assert.equal(messages(closing.error).length, 1);
});

test("rule: graceMs bounds leases only: they run on for so long, and idle conns do not wait for them", async () => {
  const { pool, clock } = make({ dial: scriptedDial({ maxStreams: 2 }) });
  const lease = await pool.acquire("used");
  const idle = new ScriptedConn();
  pool.put("idle", idle);
  const closing = outcome(pool.close({ graceMs: 1000 }));
  assert.deepEqual([idle.closes, lease.conn.closes], [1, 0]);
  await clock.advance(999);
  assert.equal(lease.conn.closes, 0);
  await clock.advance(1);
  assert.equal(lease.conn.closes, 1);
  await settle();
  assert.equal(closing.state, "resolved");
  lease.release();
  assert.equal(lease.conn.closes, 1);
  assert.equal(clock.timers, 0);
});

test("rule: the grace is 30 s unless told otherwise; 0 is at once; a second, shorter one counts", async () => {
  for (const [grace, second, ms] of [
    [undefined, undefined, 30_000],
    [0, undefined, 0],
    [undefined, 100, 100],
    [100, 5000, 100],
    [500, 0, 0],
  ] as const) {
    const { pool, clock } = make();
    const { conn } = await pool.acquire("k");
    const closing = pool.close(grace === undefined ? {} : { graceMs: grace });
    if (second !== undefined) assert.equal(pool.close({ graceMs: second }), closing, "closing twice is one close");
    if (ms > 0) {
      await clock.advance(ms - 1);
      assert.equal(conn.closes, 0, `${grace} ${second}`);
      await clock.advance(1);
    }
    assert.equal(conn.closes, 1, `${grace} ${second}`);
    await soon(closing);
  }
});

test("rule: waiters of a closed pool fail at once, and what comes later is refused", async () => {
  const { pool } = make({ maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  const waiter = outcome(pool.acquire("k"));
  const closing = pool.close();
  await settle();
  assert.ok(waiter.error instanceof PoolClosedError);
  assert.ok((await refusal(pool.acquire("k"))) instanceof PoolClosedError);
  assert.throws(() => pool.tryAcquire("k"), PoolClosedError);
  const late = new ScriptedConn({ close: failing("late") });
  assert.equal(pool.put("k", late), false);
  assert.deepEqual([late.closes, pool.take("k")], [1, undefined]);
  lease.release();
  await closing;
  assert.equal(lease.conn.closes, 1);
});

test("rule: a conn that dies while its close() is pending is closed once, and is no error", async () => {
  const { pool } = make();
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const closing = pool.close();
  conn.die();
  await soon(closing);
  assert.equal(conn.closes, 1);
  assert.equal(pool.stats().closed.pool, 1);
});

test("rule: closing a conn never blocks another key", async () => {
  const dial = scriptedDial<string>((key) => (key === "slow" ? { close: () => never } : {}));
  const { pool } = make({ dial, maxConns: 1 });
  (await soon(pool.acquire("slow"))).release();
  (await soon(pool.acquire("fast"))).release();
  (await soon(pool.acquire("slow"))).release();
  const lease = await soon(pool.acquire("fast"));
  assert.equal(dial.count, 4);
  lease.release();
});

test("rule: an error of closing an evicted conn is not lost: the closed event carries it", async () => {
  const { pool } = make({ capacity: 1 });
  const errors: unknown[] = [];
  pool.on("closed", ({ error }) => errors.push(error));
  const failed = new Error("no");
  pool.put("a", new ScriptedConn({ close: () => Promise.reject(failed) }));
  pool.put("b", new ScriptedConn());
  await settle();
  assert.deepEqual(errors, [failed]);
});

test("rule: a pool closed from inside a conn's close() keeps nothing that is being put in", async () => {
  const { pool } = make({ maxConns: 1 });
  pool.put("a", new ScriptedConn({ close: () => pool.close() }));
  const late = new ScriptedConn();
  assert.equal(pool.put("b", late), false);
  await settle();
  assert.deepEqual([late.closes, pool.stats().open], [1, 0]);
  await soon(pool.close());
});

test("rule: a conn that is put in and says in the same breath that it is closed is not held", async () => {
  const { pool } = make();
  const conn = new ScriptedConn();
  // biome-ignore lint/suspicious/noThenProperty: it is what is tested
  const closed = { then: (yes?: ((value: undefined) => unknown) | null) => void yes?.(undefined) };
  Object.defineProperty(conn, "closed", { value: closed });
  assert.equal(pool.put("k", conn), false);
  await settle();
  assert.deepEqual([[...pool.keys()], pool.stats().open, conn.closes], [[], 0, 0]);
});

test("rule: a caller served from inside a clear gets no conn of before", async () => {
  const { pool } = make();
  const old = [new ScriptedConn(), new ScriptedConn()];
  let lease: unknown = "none";
  Object.assign(old[0] ?? {}, {
    close: async () => {
      lease = pool.tryAcquire("k");
      old[0]?.die();
    },
  });
  for (const conn of old) pool.put("k", conn);
  pool.clear("k");
  assert.equal(lease, undefined);
  assert.equal(pool.stats().draining, 0);
});
