import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Lease } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

/** Never early, and at most a quarter late. */
const late = 0.25;

interface Step {
  readonly does: "use" | "hold" | "release" | "wait" | "stall";
  readonly key: number;
  readonly ms: number;
}

const steps = (does: Step["does"][]) =>
  fc.array(fc.record({ does: fc.constantFrom(...does), key: fc.nat(4), ms: fc.oneof(fc.nat(150), fc.nat(1500)) }), {
    maxLength: 40,
  });

/** A conn that knows when it was given back, and when it was closed. */
class Dated extends ScriptedConn {
  givenBackAt: number | undefined;
  closedAt: number | undefined;
}

const expirationMs = 1000;

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

test("expiration starts at each give-back: never early, at most a quarter late", async (t) => {
  const { pool, clock, lease } = pooled(t, { expirationMs: 1000 });
  const dial = scriptedDial();
  for (const pause of [0, 1, 33, 500, 777]) {
    await clock.advance(pause); // wherever the pool's timer stands
    const held = await lease("k", dial);
    await clock.advance(100);
    held.release();
    const conn = dial.conns.at(-1);
    await clock.advance(999);
    assert.equal(conn?.closes, 0, `early, after a pause of ${pause}`);
    await clock.advance(1 + 1000 * late);
    assert.equal(conn?.closes, 1, `late, after a pause of ${pause}`);
  }
  assert.equal(pool.stats().closed.expired, 5);
  assert.deepEqual([...pool.keys()], []);
  assert.equal(clock.mostTimers, 1);
});

test("each give-back starts the time again", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  for (let i = 0; i < 20; i++) {
    await clock.advance(700);
    pool.tryAcquire("k")?.release();
    assert.equal(conn.closes, 0);
  }
  await clock.advance(999);
  assert.equal(conn.closes, 0);
  await clock.advance(1 + 1000 * late);
  assert.equal(conn.closes, 1);
});

test("a take stops the time: what runs a stream does not expire, however long", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const conn = new ScriptedConn({ maxStreams: 2 });
  pool.put("k", conn);
  await clock.advance(990);
  const [one, two] = [pool.tryAcquire("k"), pool.tryAcquire("k")];
  await clock.advance(100_000);
  one?.release();
  await clock.advance(100_000); // the second stream runs on
  assert.equal(conn.closes, 0);
  two?.release();
  await clock.advance(999);
  assert.equal(conn.closes, 0);
  await clock.advance(1 + 1000 * late);
  assert.equal(conn.closes, 1);
});

test("while no conn is idle, no timer counts idle time", async (t) => {
  const { clock, lease } = pooled(t, { expirationMs: 1000 });
  const dial = scriptedDial({ maxStreams: 2 });
  const [one, two] = [await lease("k", dial), await lease("k", dial)];
  one.release();
  assert.equal(clock.timers, 0); // the second stream runs on
  two.release();
  assert.equal(clock.timers, 1);
});

test("conns of many keys expire each in its own time, oldest first", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const closed: string[] = [];
  for (const name of ["a", "b", "c", "d"]) {
    pool.put(name, new ScriptedConn({ close: () => closed.push(name) }));
    await clock.advance(300);
  }
  assert.deepEqual(closed, ["a"]); // 1200 after a, 900 after b
  await clock.advance(50);
  assert.deepEqual(closed, ["a"]); // never early
  await clock.advance(300);
  assert.deepEqual(closed, ["a", "b"]);
  await clock.advance(1000);
  assert.deepEqual(closed, ["a", "b", "c", "d"]);
});

test("an expiration of zero means never, and a negative one is refused", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 0 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  await clock.advance(10 * 24 * 3600_000);
  assert.equal(conn.closes, 0);
  assert.equal(clock.mostTimers, 0);
  assert.throws(() => pool.configure({ expirationMs: -1 }), { code: "ERR_POOL_ARGUMENT" });
});

test("a key of its own expiration has it", async (t) => {
  const { pool, clock } = pooled(t, {
    expirationMs: 1000,
    limits: (key) => (key === "long" ? { expirationMs: 10_000 } : undefined),
  });
  const [long, short] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("long", long);
  pool.put("short", short);
  await clock.advance(1250);
  assert.deepEqual([long.closes, short.closes], [0, 1]);
  await clock.advance(8749);
  assert.equal(long.closes, 0);
  await clock.advance(2501);
  assert.equal(long.closes, 1);
});

test("however often the expiration is changed, it stays exact: those that no key has any more are forgotten", async (t) => {
  const { pool, clock } = pooled(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  for (let expirationMs = 2000; expirationMs > 1000; expirationMs -= 27) pool.configure({ expirationMs });
  pool.configure({ expirationMs: 1040 });
  await clock.advance(1039);
  assert.equal(conn.closes, 0);
  await clock.advance(1);
  assert.equal(conn.closes, 1);
});

test("however many keys of their own expirations come and go, the next one has its own exactly", async (t) => {
  const { pool, clock } = pooled(t, { limits: (key) => ({ expirationMs: Number(key) }) });
  for (let key = 2000; key > 1000; key -= 27) {
    pool.put(`${key}`, new ScriptedConn());
    pool.clear(`${key}`);
  }
  const conn = new ScriptedConn();
  pool.put("1040", conn);
  await clock.advance(1039);
  assert.equal(conn.closes, 0);
  await clock.advance(1);
  assert.equal(conn.closes, 1);
});

test("each conn is closed exactly once, whoever wins: expiry, eviction, death, clear or the pool's close", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000, capacity: 1 });
  const make = () => new ScriptedConn();
  const [evicted, died, cleared, taken, last] = [make(), make(), make(), make(), make()];
  const past = () => clock.advance(5000);
  pool.put("k", evicted);
  pool.put("k", died); // evicts the first
  await past();
  assert.deepEqual([evicted.closes, died.closes], [1, 1]); // the second has expired
  pool.put("k", cleared);
  pool.clear();
  await past();
  assert.equal(cleared.closes, 1);
  pool.put("k", taken);
  assert.equal(pool.take("k"), taken);
  await past();
  assert.equal(taken.closes, 0); // the caller's, not the pool's
  const dead = make();
  pool.put("k", dead);
  dead.die();
  await past();
  assert.equal(dead.closes, 0);
  pool.put("k", last);
  const closing = pool.close();
  await past();
  await closing;
  assert.equal(last.closes, 1);
  const { closed } = pool.stats();
  assert.deepEqual([closed.evicted, closed.expired, closed.cleared, closed.died, closed.pool], [1, 1, 1, 1, 1]);
});

test("an expiry whose time has come finds a conn that was taken in the same turn, and leaves it alone", async (t) => {
  const { pool, clock, lease } = pooled(t, { expirationMs: 1000 });
  const dial = scriptedDial();
  (await lease("k", dial)).release();
  let held = pool.tryAcquire("k");
  held?.release();
  clock.setTimeout(() => {
    held = pool.tryAcquire("k");
  }, 1000);
  await clock.advance(10_000);
  assert.ok(held !== undefined);
  assert.equal(dial.conns[0]?.closes, 0);
  held.release();
});

test("an expiry that races a slow close removes nothing twice", async (t) => {
  const slow = deferred();
  const { pool, clock } = pooled(t, { expirationMs: 1000, capacity: 2 });
  const [a, b, c] = [1, 2, 3].map(() => new ScriptedConn({ close: () => slow.promise }));
  for (const conn of [a, b, c]) if (conn !== undefined) pool.put("k", conn); // evicts a, whose close hangs
  await clock.advance(3000); // b and c expire, and hang too
  slow.resolve();
  await settle();
  assert.deepEqual([a?.closes, b?.closes, c?.closes], [1, 1, 1]);
  const { open, idle, keys, closed } = pool.stats();
  assert.deepEqual([open, idle, keys, closed.evicted, closed.expired], [0, 0, 0, 1, 2]);
});

test("expiry is never early and at most a quarter late, whenever conns are given back", async () => {
  const property = fc.asyncProperty(steps(["use", "hold", "release", "wait"]), async (course) => {
    for (const { idleMs } of await play(course)) {
      assert.ok(idleMs >= expirationMs, `early: ${idleMs} ms`);
      assert.ok(idleMs <= expirationMs * 1.25, `late: ${idleMs} ms`);
    }
  });
  await fc.assert(property, { numRuns: 100 }); // a failure prints its seed
});

test("expiry is at most a quarter late, however a give-back falls between those of others", async () => {
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

test("where timers come late, expiry is still never early, and later by no more than what held them up", async () => {
  const property = fc.asyncProperty(steps(["use", "hold", "release", "wait", "stall"]), async (course) => {
    for (const { idleMs, stalledMs } of await play(course)) {
      assert.ok(idleMs >= expirationMs, `early: ${idleMs} ms`);
      assert.ok(idleMs <= expirationMs * 1.25 + stalledMs, `late: ${idleMs} ms, ${stalledMs} ms of them stalled`);
    }
  });
  await fc.assert(property, { numRuns: 100 });
});

test("a conn that is used again and again does not expire, nor does it keep others from expiring", async () => {
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

test("a conn whose close gives another back expires no third one early", async () => {
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

test("after a stall of the event loop, conns in use are not closed, and callers in time are served", async (t) => {
  const dial = scriptedDial({ maxStreams: 2 });
  const { pool, clock } = pooled(t, { dial, expirationMs: 1000, maxLifetimeMs: 5000 });
  const lease = await pool.acquire("k");
  clock.stall(20_000);
  await clock.advance(1);
  assert.equal(lease.conn.closes, 0);
  lease.release();
  assert.equal(lease.conn.closes, 1, "its lifetime is over");
  await soon(pool.acquire("k"));
});

test("one timer is armed at any time, whatever is due", async () => {
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

test("times beyond what a timer of Node's can hold come when they are due, not at once", async () => {
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

test("where expiration is lifted, no timer of it stays", async (t) => {
  const { pool, clock, lease } = pooled(t, { expirationMs: 60_000 });
  (await lease("k", scriptedDial())).release();
  assert.equal(clock.timers, 1);
  pool.configure({ expirationMs: 0 });
  assert.equal(clock.timers, 0);
  await clock.advance(600_000);
  assert.equal(pool.stats().idle, 1);
});
