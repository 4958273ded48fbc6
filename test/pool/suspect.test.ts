import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { type Deferred, deferred, ScriptedConn } from "../support/conn.ts";
import { outcome, rejection } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

/** A conn that counts what comes from its peer, and answers pings when the test says so. */
class Living extends ScriptedConn {
  bytesRead = 0;
  readonly pings: Deferred<void>[] = [];
  ping(): Promise<void> {
    const answer = deferred();
    this.pings.push(answer);
    return answer.promise;
  }
}

function livingPool(
  t: Parameters<typeof pooled>[0],
  options: { maxStreams?: number; maxKeyConns?: number; clock?: FakeClock } = {},
) {
  const conns: Living[] = [];
  const dial = () => {
    const conn = new Living({ maxStreams: options.maxStreams ?? 10 });
    conns.push(conn);
    return conn;
  };
  const { maxStreams: _, ...others } = options;
  return { ...pooled<Living>(t, { dial, ...others }), conns };
}

test("a call given up unanswered, with no byte from the conn meanwhile, makes it suspect: others are dialed, and it is pinged", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  const lease = await pool.acquire("k");
  await clock.advance(1000);
  lease.release({ unanswered: true });
  assert.deepEqual([conns[0]?.pings.length, pool.stats().blocked], [1, 1]);
  const next = await pool.acquire("k");
  assert.equal(next.conn, conns[1]);
  conns[0]?.pings[0]?.resolve();
  await settle();
  assert.deepEqual([pool.stats().blocked, conns[0]?.closes], [0, 0]);
  next.release();
});

test("a suspect conn that does not answer its ping in time is closed as silent, under its streams", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  const lease = await pool.acquire("k");
  const hanging = await pool.acquire("k");
  await clock.advance(1000);
  lease.release({ unanswered: true });
  await clock.advance(4999);
  assert.equal(conns[0]?.closes, 0);
  await clock.advance(1);
  assert.deepEqual([conns[0]?.closes, pool.stats().closed.silent, pool.stats().streams], [1, 1, 0]);
  hanging.release();
});

test("a suspect conn takes no place under maxKeyConns; when it shows life, what is one too many goes", async (t) => {
  const { pool, clock, conns } = livingPool(t, { maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  await clock.advance(1000);
  lease.release({ unanswered: true });
  (await pool.acquire("k")).release();
  assert.deepEqual([conns.length, pool.stats().open], [2, 2]);
  conns[0]?.pings[0]?.resolve();
  await settle();
  assert.deepEqual([pool.stats().open, pool.stats().closed.evicted, conns[0]?.closes], [1, 1, 1]);
});

test("a suspect conn that is closed under its streams leaves no more than one place under maxKeyConns", async (t) => {
  const { pool, clock, conns } = livingPool(t, { maxKeyConns: 1, maxStreams: 2 });
  const [given, kept] = [await pool.acquire("k"), await pool.acquire("k")];
  await clock.advance(1000);
  given.release({ unanswered: true });
  const others = [await pool.acquire("k"), await pool.acquire("k")];
  const last = outcome(pool.acquire("k"));
  await clock.advance(5000);
  assert.deepEqual([conns.length, conns[0]?.closes, last.state], [2, 1, "pending"]);
  for (const lease of [kept, ...others]) lease.release();
  await settle();
  last.value?.release();
});

test("bytes that never come to an answer count as life once, not twice in a row", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  for (const isAlive of [true, false]) {
    const lease = await pool.acquire("k");
    await clock.advance(1000);
    lease.release({ unanswered: true });
    const [conn] = conns;
    assert.ok(conn !== undefined);
    conn.bytesRead += 5;
    await clock.advance(5000);
    await clock.advance(10_000);
    assert.deepEqual([conn.closes, pool.stats().closed.silent], isAlive ? [0, 0] : [1, 1]);
  }
});

test("a late byte clears a suspect conn, and a ping that fails does not spare it", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  const first = await pool.acquire("k");
  await clock.advance(1000);
  first.release({ unanswered: true });
  const [conn] = conns;
  assert.ok(conn !== undefined);
  conn.bytesRead++;
  await clock.advance(5000);
  assert.deepEqual([conn.closes, pool.stats().blocked], [0, 0]);
  const second = await pool.acquire("k");
  await clock.advance(10_000);
  second.release({ unanswered: true });
  conn.pings[1]?.reject(new Error("reset"));
  await settle();
  assert.equal(pool.stats().closed.silent, 1);
});

test("a peer that is slow and answers others is not suspect: no ping, no close", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  const slow = await pool.acquire("k");
  await clock.advance(10_000);
  const [conn] = conns;
  assert.ok(conn !== undefined);
  conn.bytesRead += 100; // the answer to somebody else
  slow.release({ unanswered: true });
  assert.deepEqual([conn.pings.length, pool.stats().blocked], [0, 0]);
});

test("a conn that cannot be asked is closed at its second unanswered call in a row", async (t) => {
  const { pool } = pooled(t, { dial: () => new ScriptedConn() });
  (await pool.acquire("k")).release({ unanswered: true });
  (await pool.acquire("k")).release();
  (await pool.acquire("k")).release({ unanswered: true });
  assert.equal(pool.stats().open, 1);
  (await pool.acquire("k")).release({ unanswered: true });
  assert.deepEqual([pool.stats().open, pool.stats().closed.silent], [0, 1]);
});

test("a conn whose `ping` cannot be read counts as one that cannot be asked", async (t) => {
  class Unreadable extends ScriptedConn {
    get ping(): never {
      throw new Error("broken getter");
    }
  }
  const { pool } = pooled(t, { dial: () => new Unreadable() });
  (await pool.acquire("k")).release({ unanswered: true });
  await settle();
  assert.equal(pool.stats().open, 1);
  (await pool.acquire("k")).release({ unanswered: true });
  assert.deepEqual([pool.stats().open, pool.stats().closed.silent], [0, 1]);
});

/** Conns that count what comes from their peer, and cannot be asked for a sign of life: DRPC has no pings. */
function mutePool(t: Parameters<typeof pooled>[0], options: { maxKeyConns?: number; maxWaiters?: number } = {}) {
  const conns: (ScriptedConn & { bytesRead: number })[] = [];
  const dial = () => {
    const conn = Object.assign(new ScriptedConn(), { bytesRead: 0 });
    conns.push(conn);
    return conn;
  };
  const { pool, clock } = pooled<ScriptedConn>(t, { dial, ...options });
  const giveUp = async (afterMs: number) => {
    const lease = await pool.acquire("k");
    await clock.advance(afterMs);
    lease.release({ unanswered: true });
    await settle();
  };
  return { pool, clock, conns, giveUp };
}

test("a conn that cannot be asked is skipped for 5 s, or until a byte comes, while another can be dialed", async (t) => {
  const { pool, clock, conns, giveUp } = mutePool(t);
  await giveUp(1000);
  assert.equal(pool.stats().blocked, 1);
  const other = await pool.acquire("k");
  assert.equal(other.conn, conns[1]);
  const [conn] = conns;
  assert.ok(conn !== undefined);
  conn.bytesRead++;
  await clock.advance(250);
  assert.deepEqual([pool.stats().blocked, pool.stats().idle], [0, 1]); // a late byte clears it
  await giveUp(1000);
  await clock.advance(4999);
  assert.equal(pool.stats().blocked, 1);
  await clock.advance(1);
  assert.deepEqual([pool.stats().blocked, pool.stats().idle, pool.stats().closed.silent], [0, 1, 0]); // a slow peer keeps it
  other.release();
});

test("a conn that cannot be asked is used again at once where no other can be had: none is dialed over a limit, none is evicted", async (t) => {
  const { pool, clock, conns, giveUp } = mutePool(t, { maxKeyConns: 1 });
  await giveUp(1000);
  assert.equal(pool.stats().blocked, 1);
  const again = await pool.acquire("k");
  assert.deepEqual([again.conn === conns[0], pool.stats().dials, pool.stats().blocked], [true, 1, 0]);
  const waiting = outcome(pool.acquire("k"));
  await clock.advance(1000);
  again.release({ unanswered: true }); // who waits already has it at once, too
  await settle();
  assert.equal(waiting.value?.conn, conns[0]);
  waiting.value?.release();
  await clock.advance(10_000);
  assert.deepEqual([pool.stats().open, pool.stats().closed.evicted, pool.stats().closed.silent], [1, 0, 0]);
});

test("where others of a full key are in use, a caller waits a moment for one of them before it gets a doubtful conn", async (t) => {
  const { pool, clock, conns, giveUp } = mutePool(t, { maxKeyConns: 2 });
  const busy = await pool.acquire("k");
  await giveUp(1000);
  const [first, second] = [outcome(pool.acquire("k")), outcome(pool.acquire("k"))];
  await clock.advance(200);
  busy.release();
  await settle();
  assert.deepEqual([first.value?.conn === conns[0], second.state], [true, "pending"]);
  await clock.advance(300);
  assert.equal(second.value?.conn, conns[1]);
  for (const lease of [first.value, second.value]) lease?.release();
});

test("a caller that may not wait gets a doubtful conn at once, where no other can be had", async (t) => {
  const { pool, conns, giveUp } = mutePool(t, { maxKeyConns: 2, maxWaiters: -1 });
  const busy = await pool.acquire("k");
  await giveUp(1000);
  const lease = await pool.acquire("k");
  assert.equal(lease.conn, conns[1]);
  for (const one of [busy, lease]) one.release();
});

test("a conn that cannot be asked is closed once it has owed answers for 5 s in all, by two calls at least, and no byte came", async (t) => {
  const { pool, clock, conns, giveUp } = mutePool(t, { maxKeyConns: 1 });
  for (let owedMs = 500; owedMs < 5000; owedMs += 500) {
    await giveUp(500);
    await clock.advance(20_000); // time in which nothing is owed proves nothing
  }
  assert.deepEqual([pool.stats().open, pool.stats().closed.silent], [1, 0]);
  await giveUp(500);
  assert.deepEqual([pool.stats().open, pool.stats().closed.silent], [0, 1]);
  await giveUp(30_000);
  assert.equal(pool.stats().open, 1); // one call may be slow for reasons of its own
  const [, second] = conns;
  assert.ok(second !== undefined);
  second.bytesRead++;
  await giveUp(30_000);
  assert.equal(pool.stats().open, 1);
  await giveUp(1);
  assert.deepEqual([pool.stats().open, pool.stats().closed.silent], [0, 2]);
});

test("time in which other calls ran, or none that was given up, is not owed", async (t) => {
  const { pool, clock } = pooled<ScriptedConn>(t, {
    dial: () => Object.assign(new ScriptedConn({ maxStreams: 10 }), { bytesRead: 0 }),
    maxKeyConns: 1,
  });
  const watch = await pool.acquire("k"); // a stream on which nothing happens
  for (let i = 0; i < 5; i++) {
    await clock.advance(6_000);
    const lease = await pool.acquire("k");
    await clock.advance(10);
    lease.release({ unanswered: true });
  }
  await settle();
  assert.deepEqual([pool.stats().leased, pool.stats().closed.silent, pool.stats().draining], [1, 0, 0]);
  watch.release();
});

test("a caller waits for a conn that is blocked for a moment rather than to get a doubtful one", async (t) => {
  const { pool, clock, conns, giveUp } = mutePool(t, { maxKeyConns: 2 });
  const other = await pool.acquire("k");
  await giveUp(1000);
  const free = deferred();
  if (conns[0] !== undefined) conns[0].blockedUntil = free.promise;
  other.release();
  const waiting = outcome(pool.acquire("k"));
  await clock.advance(100);
  assert.equal(waiting.state, "pending");
  if (conns[0] !== undefined) conns[0].blockedUntil = undefined;
  free.resolve();
  await settle();
  assert.equal(waiting.value?.conn, conns[0]);
  waiting.value?.release();
});

test("bytes that an event loop had no time to read are a sign of life", async (t) => {
  const { pool, clock, conns, giveUp } = mutePool(t, { maxKeyConns: 1 });
  await giveUp(1000);
  const lease = await pool.acquire("k");
  await clock.advance(10_000);
  lease.release({ unanswered: true }); // its timer comes before what the peer has sent
  for (const conn of conns) conn.bytesRead++;
  await settle();
  assert.deepEqual([pool.stats().open, pool.stats().closed.silent], [1, 0]);
});

test("a filter finds a conn that is only doubtful, where no other can be had", async (t) => {
  const { pool, conns, giveUp } = mutePool(t, { maxKeyConns: 1 });
  await giveUp(1000);
  const abort = new AbortController();
  const unfit = rejection(pool.acquire("k", { filter: () => false, signal: abort.signal }));
  await settle();
  assert.equal(pool.stats().blocked, 1);
  const lease = await pool.acquire("k", { filter: () => true });
  assert.equal(lease.conn, conns[0]);
  lease.release();
  abort.abort();
  await unfit;
});

test("a handle's call that fails with no byte from the conn makes it suspect; one that the peer refused does not", async (t) => {
  const conns: Living[] = [];
  const dial = () => {
    const conn = new Living({ maxStreams: 10 });
    conns.push(conn);
    return conn;
  };
  const { pool, clock } = pooled<Conn>(t, { dial });
  const abort = new AbortController();
  const aborted = rejection(call(pool.get("k"), { signal: abort.signal }));
  await clock.advance(1000);
  abort.abort(new Error("too slow"));
  await aborted;
  assert.equal(conns[0]?.pings.length, 1);
  conns[0]?.pings[0]?.resolve();
  await settle();
  const refused = rejection(call(pool.get("k")));
  await settle();
  for (const running of conns[0]?.calls ?? []) {
    if (conns[0] !== undefined) conns[0].bytesRead += 9;
    running.fail(new Error("not found"));
  }
  await refused;
  assert.equal(conns[0]?.pings.length, 1);
});

test("a conn that was quiet for long is pinged along with its next call, which does not wait for that", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  (await pool.acquire("k")).release();
  await clock.advance(29_000);
  (await pool.acquire("k")).release();
  assert.equal(conns[0]?.pings.length, 0);
  await clock.advance(30_000);
  const lease = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual([lease.state, conns[0]?.pings.length], ["resolved", 1]);
  await clock.advance(5000);
  assert.deepEqual([conns[0]?.closes, pool.stats().closed.silent], [1, 1]);
  lease.value?.release();
});

test("a conn that is pinged along with its next call is skipped as soon as that call has ended unanswered", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  (await pool.acquire("k")).release();
  await clock.advance(30_000);
  const lease = await pool.acquire("k");
  assert.equal(conns[0]?.pings.length, 1);
  await clock.advance(2_000);
  lease.release({ unanswered: true });
  assert.deepEqual([conns[0]?.pings.length, pool.stats().blocked], [1, 1]);
  const next = await pool.acquire("k");
  assert.equal(next.conn, conns[1]);
  next.release();
  await clock.advance(3_000);
  assert.deepEqual([pool.stats().closed.silent, conns[0]?.closes], [1, 1]);
});

test("callers who give up at once, again and again, bring no flood of pings: servers punish that", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  for (let i = 0; i < 300; i++) {
    const lease = await pool.acquire("k");
    await clock.advance(4);
    lease.release({ unanswered: true });
    for (const ping of conns[0]?.pings ?? []) ping.resolve();
    if (conns[0] !== undefined && (conns[0].pings.length ?? 0) > 0) conns[0].bytesRead++;
    await settle();
  }
  assert.deepEqual([conns.length, conns[0]?.pings.length], [1, 1]);
});

test("a conn that drains already when its ping goes unanswered is closed under its streams all the same", async (t) => {
  const { pool, clock, conns } = livingPool(t);
  const lease = await pool.acquire("k");
  await pool.acquire("k");
  await clock.advance(1000);
  pool.clear();
  lease.release({ unanswered: true });
  await clock.advance(5000);
  assert.deepEqual([conns[0]?.closes, pool.stats().streams, pool.stats().closed.cleared], [1, 0, 1]);
});

test("a conn that answers pings and counts no bytes owes an answer anew with each call", async (t) => {
  class Pinging extends ScriptedConn {
    pings = 0;
    async ping(): Promise<void> {
      this.pings++;
    }
  }
  const conn = new Pinging();
  const { pool, clock } = pooled<Pinging>(t, { dial: () => conn });
  (await pool.acquire("k")).release();
  await clock.advance(20_000);
  (await pool.acquire("k")).release({ unanswered: true }); // given up at once
  assert.equal(conn.pings, 0);
});

/** A clock beside whose time of day the machine can sleep. */
class SleepyClock extends FakeClock {
  #sleptMs = 0;

  wallNow(): number {
    return 1e12 + this.now() + this.#sleptMs;
  }

  sleep(ms: number): void {
    this.#sleptMs += ms;
  }
}

for (const [what, stop] of [
  ["its process stood still", (clock: SleepyClock) => clock.stall(60_000)],
  ["its machine slept", (clock: SleepyClock) => clock.sleep(60_000)],
] as const) {
  test(`after ${what}, no conn is trusted before it has shown life: the first call takes a ping or a dial, whichever is sooner`, async (t) => {
    const clock = new SleepyClock();
    const { pool, conns } = livingPool(t, { clock });
    (await pool.acquire("dead")).release();
    (await pool.acquire("living")).release();
    const used = await pool.acquire("used");
    stop(clock);
    const [dead, living, busy] = conns;
    assert.equal((await pool.acquire("dead")).conn, conns[3]);
    assert.deepEqual([dead?.pings.length, living?.pings.length, busy?.pings.length], [1, 0, 1]);
    const late = outcome(pool.acquire("living", { dial: () => new Promise(() => {}) }));
    await settle();
    assert.equal(late.state, "pending");
    living?.pings[0]?.resolve();
    await settle();
    assert.equal(late.value?.conn, living);
    late.value?.release();
    assert.equal(pool.tryAcquire("living")?.conn, living); // it is asked once
    await clock.advance(5000);
    assert.deepEqual([dead?.closes, living?.closes, busy?.closes], [1, 0, 1]);
    used.release();
  });
}

test("after a standstill an idle conn that only counts bytes is closed: it cannot be asked", async (t) => {
  const clock = new SleepyClock();
  const conns: ScriptedConn[] = [];
  const { pool } = pooled(t, {
    clock,
    dial: () => {
      conns.push(Object.assign(new ScriptedConn(), { bytesRead: 0 }));
      return conns.at(-1) ?? new ScriptedConn();
    },
  });
  (await pool.acquire("k")).release();
  clock.sleep(60_000);
  const lease = await pool.acquire("k");
  assert.deepEqual([lease.conn === conns[1], pool.stats().closed.silent], [true, 1]);
  lease.release();
});

test("the clocks are looked at only while conns are open that can show life", async (t) => {
  const { pool, clock } = livingPool(t);
  assert.equal(clock.timers, 0);
  (await pool.acquire("k")).release();
  assert.equal(clock.timers, 1);
  await clock.advance(60_000);
  assert.deepEqual([clock.timers, pool.stats().idle], [1, 1]);
  pool.clear();
  assert.equal(clock.timers, 0);
});
