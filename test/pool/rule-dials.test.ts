import assert from "node:assert/strict";
import { test } from "node:test";
import type { Dial } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, type Outcome, outcome, refusal, soon } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

type Manual = ReturnType<typeof scriptedDial>;
const manual = (script: { maxStreams?: number } = {}, announced?: number): Manual =>
  scriptedDial(script, { manual: true, ...(announced === undefined ? {} : { maxStreams: announced }) });

function count(outcomes: Outcome<unknown>[], state: string): number {
  return outcomes.filter((one) => one.state === state).length;
}

test("rule: a dial counts as the slots that its function announces", async () => {
  const dial = manual({ maxStreams: 10 }, 10);
  const pool = testPool({ dial });
  const waits = Array.from({ length: 95 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 10);
  for (const pending of dial.pending) pending.arrive();
  await settle();
  assert.equal(count(waits, "resolved"), 95);
  assert.equal(dial.count, 10);
});

test("rule: what is announced is capped by the option, and the dials are counted by the cap", async () => {
  const dial = manual({ maxStreams: 100 }, 100);
  const pool = testPool({ dial, maxStreams: 3 });
  for (let caller = 0; caller < 9; caller++) outcome(pool.acquire("k"));
  assert.equal(dial.count, 3);
});

test("rule: maxStreams 1 makes the slots known: as many dials as callers, at once", () => {
  const dial = manual();
  const pool = testPool({ dial, maxStreams: 1 });
  for (let caller = 0; caller < 7; caller++) outcome(pool.acquire("k"));
  assert.equal(dial.count, 7);
});

test("rule: while nothing is known of a key there is one dial at a time; its conn tells how many more are due", async () => {
  const dial = manual({ maxStreams: 4 });
  const pool = testPool({ dial });
  const waits = Array.from({ length: 13 }, () => outcome(pool.acquire("k")));
  await settle();
  assert.equal(dial.count, 1);
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(count(waits, "resolved"), 4);
  assert.equal(dial.count, 1 + 3, "nine are left: three dials at four slots");
});

test("rule: a dial in flight of which nothing was known learns from a conn that is put in", async () => {
  const dial = manual({ maxStreams: 2 });
  const pool = testPool({ dial });
  const waits = Array.from({ length: 6 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 1);
  pool.put("k", new ScriptedConn({ maxStreams: 2 }));
  await settle();
  assert.equal(count(waits, "resolved"), 2);
  assert.equal(dial.count, 2, "four are left, and the dial in flight will bring two slots");
});

test("rule: the last conn of a key tells the slots of the next, even after it has gone", async () => {
  const dial = manual({ maxStreams: 5 });
  const pool = testPool({ dial });
  const first = pool.acquire("k");
  dial.pending[0]?.arrive();
  (await first).release();
  const holds = await Promise.all(Array.from({ length: 5 }, () => pool.acquire("k")));
  for (let caller = 0; caller < 10; caller++) outcome(pool.acquire("k"));
  assert.equal(dial.count, 1 + 2);
  dial.conns[0]?.die();
  await settle();
  assert.equal(dial.count, 1 + 2);
  for (const hold of holds) hold.release();
});

for (const announced of [Number.NaN, 0, -3, 0.5, Number.POSITIVE_INFINITY]) {
  test(`rule: a dial that announces ${announced} slots still dials, time after time`, async () => {
    const dial = manual({ maxStreams: 1 }, announced);
    const pool = testPool({ dial });
    for (let round = 1; round <= 3; round++) {
      const lease = outcome(pool.acquire("k"));
      assert.equal(dial.count, round);
      dial.pending.at(-1)?.arrive();
      await settle();
      assert.equal(lease.state, "resolved");
    }
  });

  test(`rule: a conn that says it has ${announced} slots does not stop the dials that follow it`, async () => {
    const pool = testPool();
    const odd: Dial<string, ScriptedConn> = () => new ScriptedConn({ maxStreams: announced });
    const hold = outcome(pool.acquire("k", { dial: odd }));
    await settle();
    const good = scriptedDial({ maxStreams: 1 });
    const next = [outcome(pool.acquire("k", { dial: good })), outcome(pool.acquire("k", { dial: good }))];
    await settle();
    if (announced === Number.POSITIVE_INFINITY) assert.equal(good.count, 0);
    assert.equal(count(next, "resolved"), 2);
    hold.value?.release();
  });
}

test("rule: dials that the remaining waiters do not need are abandoned, newest first", async () => {
  const dial = manual({}, 1);
  const pool = testPool({ dial, maxConns: 10 });
  const signals = Array.from({ length: 4 }, () => new AbortController());
  for (const { signal } of signals) outcome(pool.acquire("k", { signal }));
  const aborted = () => dial.pending.map(({ signal }) => signal.aborted);
  assert.deepEqual(aborted(), [false, false, false, false]);
  signals[0]?.abort();
  assert.deepEqual(aborted(), [false, false, false, true]);
  signals[3]?.abort();
  assert.deepEqual(aborted(), [false, false, true, true]);
  pool.put("k", new ScriptedConn());
  await settle();
  assert.deepEqual(aborted(), [false, true, true, true]);
  assert.equal(pool.stats().dialing, 1);
});

test("rule: a shared dial stays while one waiter needs it, and a surplus one goes where its share is taken over", () => {
  const dial = manual({}, 10);
  const pool = testPool({ dial });
  const signals = Array.from({ length: 11 }, () => new AbortController());
  for (const { signal } of signals) outcome(pool.acquire("k", { signal }));
  assert.equal(dial.count, 2);
  signals[0]?.abort();
  assert.deepEqual(
    dial.pending.map(({ signal }) => signal.aborted),
    [false, true],
  );
  for (const signal of signals.slice(1, 10)) signal.abort();
  assert.equal(dial.pending[0]?.signal.aborted, false, "one is left");
  signals[10]?.abort();
  assert.equal(dial.pending[0]?.signal.aborted, true);
});

test("rule: no dial storm: a conn just dialed is free, and asked whether it is after its first stream only", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial });
  const lease = await pool.acquire("k");
  assert.equal(lease.conn.asked, 0);
  lease.release();
  assert.equal(lease.conn.asked, 0, "nobody wants it yet");
  (await pool.acquire("k")).release();
  assert.equal(lease.conn.asked, 1);
  assert.equal(dial.count, 1);
});

test("rule: no dial storm: a conn that is blocked from birth serves its first caller, and the next has one dialed", async () => {
  const dial: Dial<string, ScriptedConn> & { count: number } = Object.assign(
    () => {
      dial.count++;
      const conn = new ScriptedConn();
      conn.blockedUntil = new Promise(() => {});
      return conn;
    },
    { count: 0 },
  );
  const pool = testPool({ dial });
  (await pool.acquire("k")).release();
  (await pool.acquire("k")).release();
  assert.equal(dial.count, 2);
});

test("rule: no dial storm: a waiter whose dial brought a conn that its filter refuses starts no second", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial });
  const error = await refusal(pool.acquire("k", { filter: () => false }));
  assert.equal((error as { code?: string }).code, "ERR_POOL_NO_MATCH");
  assert.equal(dial.count, 1);
  assert.equal(pool.stats().idle, 1, "the conn is not to blame");
});

test("rule: no dial storm: a waiter whose dial brought a conn without slots waits for some, and starts no second", async () => {
  const dial = scriptedDial({ maxStreams: 0 });
  const pool = testPool({ dial });
  const waiter = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual([waiter.state, dial.count], ["pending", 1]);
  const conn = dial.conns[0];
  assert.ok(conn !== undefined);
  conn.maxStreams = 1;
  conn.changed();
  await settle();
  assert.equal(waiter.value?.conn, conn);
});

test("rule: no dial storm: a waiter whose dial brought a conn that drains already starts no second", async () => {
  const dial: Dial<string, ScriptedConn> & { count: number } = Object.assign(
    async () => {
      if (dial.count++ > 20) await new Promise(() => {});
      return Object.assign(new ScriptedConn(), { draining: true });
    },
    { count: 0 },
  );
  const pool = testPool({ dial });
  const waiter = outcome(pool.acquire("k"));
  await settle();
  assert.equal(dial.count, 1);
  assert.equal(waiter.state, "rejected");
});

test("rule: a conn with more slots than were expected serves the others too, and their dials are abandoned", async () => {
  const dial = manual({ maxStreams: 3 }, 1);
  const pool = testPool({ dial });
  const waits = Array.from({ length: 3 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 3);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(count(waits, "resolved"), 3);
  assert.deepEqual(
    dial.pending.map(({ signal }) => signal.aborted),
    [true, false, true],
  );
});

test("rule: a conn of which only one use is left serves one, and the others have theirs dialed", async () => {
  const dial = scriptedDial({ maxStreams: 10 });
  const pool = testPool({ dial, maxUses: 1 });
  const leases = await soon(Promise.all([1, 2, 3].map(() => pool.acquire("k"))));
  assert.equal(new Set(leases.map(({ conn }) => conn)).size, 3);
  assert.equal(dial.count, 3);
});
