import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Lease } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "../support/clock.ts";
import { ScriptedConn } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

const expirationMs = 1000;

/** A conn that knows when it was given back, and when it was closed. */
class Dated extends ScriptedConn {
  givenBackAt: number | undefined;
  closedAt: number | undefined;
}

interface Step {
  readonly does: "use" | "hold" | "release" | "wait" | "stall";
  readonly key: number;
  readonly ms: number;
}

/** Plays the steps, and returns for how long each conn was idle when it expired, with the stalls since it was given back. */
async function play(steps: readonly Step[]): Promise<{ idleMs: number; stalledMs: number }[]> {
  const clock = new FakeClock();
  let time = 0;
  const stalls: { at: number; ms: number }[] = [];
  const conns: Dated[] = [];
  const held: Lease<Dated>[] = [];
  const dial = () => {
    const conn: Dated = new Dated({
      close: () => {
        conn.closedAt = clock.now();
      },
    });
    conns.push(conn);
    return conn;
  };
  const pool = new Pool<string, Dated>({ clock, dial, expirationMs });
  const give = (lease: Lease<Dated>) => {
    lease.release();
    lease.conn.givenBackAt = clock.now();
  };
  for (const { does, key, ms } of steps) {
    if (does === "use") give(await pool.acquire(`${key}`));
    else if (does === "hold") held.push(await pool.acquire(`${key}`));
    else if (does === "release") {
      const lease = held.splice(key % Math.max(held.length, 1), 1)[0];
      if (lease !== undefined) give(lease);
    } else if (does === "wait") await clock.advance(ms);
    else {
      stalls.push({ at: clock.now(), ms });
      clock.stall(ms);
      await clock.advance(0);
    }
    time += ms;
  }
  for (const lease of held) give(lease);
  await clock.advance(2 * expirationMs);
  assert.deepEqual([...pool.keys()], [], `nothing expires after ${time} ms`);
  assert.equal(clock.timers, 0);
  return conns.map(({ givenBackAt = 0, closedAt = Number.POSITIVE_INFINITY, closes }) => {
    assert.equal(closes, 1);
    const stalled = stalls.filter(({ at, ms }) => at + ms > givenBackAt && at < closedAt);
    return { idleMs: closedAt - givenBackAt, stalledMs: stalled.reduce((sum, { ms }) => sum + ms, 0) };
  });
}

const steps = (does: Step["does"][]) =>
  fc.array(fc.record({ does: fc.constantFrom(...does), key: fc.nat(4), ms: fc.oneof(fc.nat(150), fc.nat(1500)) }), {
    maxLength: 40,
  });

test("rule: expiry is never early and at most a quarter late, whenever conns are given back", async () => {
  const property = fc.asyncProperty(steps(["use", "hold", "release", "wait"]), async (course) => {
    for (const { idleMs } of await play(course)) {
      assert.ok(idleMs >= expirationMs, `early: ${idleMs} ms`);
      assert.ok(idleMs <= expirationMs * 1.25, `late: ${idleMs} ms`);
    }
  });
  await fc.assert(property, { numRuns: 100 }); // a failure prints its seed
});

test("rule: expiry is at most a quarter late, however a give-back falls between those of others", async () => {
  for (let offset = 0; offset < expirationMs; offset += 13) {
    const [first, second] = await play([
      { does: "use", key: 0, ms: 0 },
      { does: "wait", key: 0, ms: offset },
      { does: "use", key: 1, ms: 0 },
    ]);
    for (const { idleMs } of [first, second].filter((one) => one !== undefined)) {
      assert.ok(idleMs >= expirationMs && idleMs <= expirationMs * 1.25, `${idleMs} ms, ${offset} ms after another`);
    }
  }
});

test("rule: where timers come late, expiry is still never early, and later by no more than what held them up", async () => {
  const property = fc.asyncProperty(steps(["use", "hold", "release", "wait", "stall"]), async (course) => {
    for (const { idleMs, stalledMs } of await play(course)) {
      assert.ok(idleMs >= expirationMs, `early: ${idleMs} ms`);
      assert.ok(idleMs <= expirationMs * 1.25 + stalledMs, `late: ${idleMs} ms, ${stalledMs} ms of them stalled`);
    }
  });
  await fc.assert(property, { numRuns: 100 });
});

test("rule: a conn that is used again and again does not expire, nor does it keep others from expiring", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, ScriptedConn>({ clock, dial: () => new ScriptedConn(), expirationMs });
  const other = await pool.acquire("other");
  other.release();
  const busy = await pool.acquire("busy");
  busy.release();
  for (let step = 0; step < 30; step++) {
    await clock.advance(100);
    const lease = await pool.acquire("busy");
    assert.equal(lease.conn, busy.conn);
    lease.release();
  }
  assert.equal(other.conn.closes, 1);
  await clock.advance(1300);
  assert.equal(busy.conn.closes, 1);
});

test("rule: a lifetime is at most a tenth early and a quarter late, and never cuts what runs", async () => {
  const property = fc.asyncProperty(fc.integer({ min: 1, max: 100_000 }), async (lifeMs) => {
    const clock = new FakeClock();
    const pool = new Pool<string, ScriptedConn>({ clock, maxLifetimeMs: lifeMs });
    const idle = new ScriptedConn();
    const used = new ScriptedConn();
    pool.put("idle", idle);
    pool.put("used", used);
    const lease = pool.tryAcquire("used");
    await clock.advance(lifeMs * 0.9 - 0.01);
    assert.equal(idle.closes, 0);
    await clock.advance(lifeMs * 0.35 + 1);
    assert.deepEqual([idle.closes, used.closes], [1, 0]);
    assert.equal(pool.tryAcquire("used"), undefined, "it drains");
    lease?.release();
    assert.equal(used.closes, 1);
    assert.equal(clock.timers, 0);
  });
  await fc.assert(property, { numRuns: 50 });
});

test("rule: one timer is armed at any time, whatever is due", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, ScriptedConn>({
    clock,
    expirationMs: 500,
    maxLifetimeMs: 700,
    dialTimeoutMs: 300,
    dial: (key) => (key.startsWith("never") ? new Promise(() => {}) : new ScriptedConn()),
  });
  for (let key = 0; key < 200; key++) (await pool.acquire(`${key}`)).release();
  for (let key = 0; key < 50; key++) pool.acquire(`never${key}`, { timeoutMs: 100 + key }).catch(() => {});
  await clock.advance(2000);
  assert.equal(clock.mostTimers, 1);
  assert.equal(clock.timers, 0);
  assert.equal(pool.stats().keys, 0);
});

test("rule: times beyond what a timer of Node's can hold come when they are due, not at once", async () => {
  const clock = new FakeClock();
  const delays: number[] = [];
  const arm = clock.setTimeout.bind(clock);
  clock.setTimeout = (callback, ms) => {
    delays.push(ms);
    return arm(callback, ms);
  };
  const pool = new Pool<string, ScriptedConn>({ clock, maxLifetimeMs: 2 ** 33, expirationMs: 2 ** 40 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  await clock.advance(2 ** 32);
  assert.equal(conn.closes, 0);
  await clock.advance(2 ** 32 + 1);
  assert.equal(conn.closes, 1);
  assert.ok(delays.every((ms) => ms >= 0 && ms <= 2 ** 31 - 1));
});

test("rule: a conn whose close gives another back expires no third one early", async () => {
  const clock = new FakeClock();
  const pool = new Pool<string, ScriptedConn>({ clock, expirationMs });
  const first = new ScriptedConn({ close: () => lease?.release() });
  const third = new ScriptedConn();
  pool.put("second", new ScriptedConn());
  const lease = pool.tryAcquire("second");
  pool.put("first", first);
  await clock.advance(expirationMs / 2);
  pool.put("third", third);
  await clock.advance(expirationMs / 2 + expirationMs / 4);
  assert.deepEqual([first.closes, third.closes], [1, 0]);
  await clock.advance(expirationMs / 2);
  assert.equal(third.closes, 1);
});
