import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, Dial } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { answered, manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, type Outcome, outcome, soon } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

nothingUnheard();

function count(outcomes: Outcome<unknown>[], state: string): number {
  return outcomes.filter((one) => one.state === state).length;
}

test("a dial counts as the slots that its function announces", async (t) => {
  const dial = manualDial(10);
  const { pool } = pooled(t, { dial });
  const waits = Array.from({ length: 95 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 10);
  for (const pending of dial.pending) pending.arrive();
  await settle();
  assert.equal(count(waits, "resolved"), 95);
  assert.equal(dial.count, 10);
});

test("concurrent RPCs that a dial function announces as exclusive are dialed for at once", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true, maxStreams: 1 });
  const handle = pool.get("a", dial);
  const calls = Array.from({ length: 5 }, () => call(handle));
  assert.equal(dial.pending.length, 5);
  for (const pending of dial.pending) pending.arrive();
  await Promise.all(calls);
});

test("what is announced is capped by the option, and the dials are counted by the cap", async (t) => {
  const dial = manualDial(100);
  const { pool } = pooled(t, { dial, maxStreams: 3 });
  for (let caller = 0; caller < 9; caller++) outcome(pool.acquire("k"));
  assert.equal(dial.count, 3);
});

test("maxStreams 1 makes the slots known: as many dials as callers, at once", (t) => {
  const dial = manualDial();
  const { pool } = pooled(t, { dial, maxStreams: 1 });
  for (let caller = 0; caller < 7; caller++) outcome(pool.acquire("k"));
  assert.equal(dial.count, 7);
});

test("dials in flight are shared by everyone waiting; while nothing is known of a key, one at a time", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({ maxStreams: 4 }, { manual: true });
  const asked = Array.from({ length: 10 }, () => lease("k", dial));
  const states = asked.map(outcome);
  await settle();
  assert.equal(dial.count, 1); // it may bring a thousand slots
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(dial.count, 3); // it brought four: six are left, two more serve them
  assert.deepEqual([count(states, "resolved"), pool.stats().waiting], [4, 6]);
  for (const pending of dial.pending.slice(1)) pending.arrive();
  await Promise.all(asked);
  assert.equal(pool.stats().open, 3);
});

test("a dial in flight of which nothing was known learns from a conn that is put in", async (t) => {
  const dial = scriptedDial({ maxStreams: 2 }, { manual: true });
  const { pool } = pooled(t, { dial });
  const waits = Array.from({ length: 6 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 1);
  pool.put("k", new ScriptedConn({ maxStreams: 2 }));
  await settle();
  assert.equal(count(waits, "resolved"), 2);
  assert.equal(dial.count, 2, "four are left, and the dial in flight will bring two slots");
});

test("the last conn of a key tells the slots of the next, even after it has gone", async (t) => {
  const dial = scriptedDial({ maxStreams: 5 }, { manual: true });
  const { pool } = pooled(t, { dial });
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
  test(`a dial that announces ${announced} slots still dials, time after time`, async (t) => {
    const dial = scriptedDial({}, { manual: true, maxStreams: announced });
    const { pool } = pooled(t, { dial });
    for (let round = 1; round <= 3; round++) {
      const lease = outcome(pool.acquire("k"));
      assert.equal(dial.count, round);
      dial.pending.at(-1)?.arrive();
      await settle();
      assert.equal(lease.state, "resolved");
    }
  });

  test(`a conn that says it has ${announced} slots does not stop the dials that follow it`, async (t) => {
    const { pool } = pooled(t);
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

test("maxKeyDials bounds the dials in flight of a key", async (t) => {
  const { lease, pool } = pooled(t, { maxKeyDials: 2 });
  const dial = manualDial(1);
  const asked = Array.from({ length: 5 }, () => lease("k", dial));
  for (const expected of [2, 3, 4, 5, 5]) {
    assert.equal(dial.pending.length, expected);
    assert.ok(pool.stats().dialing <= 2);
    dial.pending.find((_, i) => i === dial.conns.length)?.arrive();
    await settle();
  }
  await Promise.all(asked);
});

test("dials that the remaining waiters do not need are abandoned, newest first", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial, maxConns: 10 });
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

test("a shared dial stays while one waiter needs it, and a surplus one goes where its share is taken over", (t) => {
  const dial = manualDial(10);
  const { pool } = pooled(t, { dial });
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

test("a conn with more slots than were expected serves the others too, and their dials are abandoned", async (t) => {
  const dial = scriptedDial({ maxStreams: 3 }, { manual: true, maxStreams: 1 });
  const { pool } = pooled(t, { dial });
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

test("a conn that comes back before the dial is done serves the waiter, and the dial is abandoned", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial });
  const first = outcome(pool.acquire("k"));
  dial.pending[0]?.arrive();
  await settle();
  const second = outcome(pool.acquire("k"));
  assert.equal(dial.count, 2);
  first.value?.release();
  await settle();
  assert.equal(second.state, "resolved");
  assert.equal(dial.pending[1]?.signal.aborted, true);
});

test("a conn of which only one use is left serves one, and the others have theirs dialed", async (t) => {
  const dial = scriptedDial({ maxStreams: 10 });
  const { pool } = pooled(t, { dial, maxUses: 1 });
  const leases = await soon(Promise.all([1, 2, 3].map(() => pool.acquire("k"))));
  assert.equal(new Set(leases.map(({ conn }) => conn)).size, 3);
  assert.equal(dial.count, 3);
});

test("waiters without a function are served by the dials of others, and start none", async (t) => {
  const dial = manualDial(2);
  const { pool } = pooled(t, { maxWaiters: 0 });
  const hold = outcome(pool.acquire("k", { dial }));
  const without = outcome(pool.acquire("k"));
  await settle();
  dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([hold.state, without.state], ["resolved", "resolved"]);
});

test("a conn just dialed is free, and asked whether it is after its first stream only", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial });
  const lease = await pool.acquire("k");
  assert.equal(lease.conn.asked, 0);
  lease.release();
  assert.equal(lease.conn.asked, 0, "nobody wants it yet");
  (await pool.acquire("k")).release();
  assert.equal(lease.conn.asked, 1);
  assert.equal(dial.count, 1);
});

test("a conn that is blocked from birth serves its first caller, and the next has one dialed", async (t) => {
  const dial: Dial<string, ScriptedConn> & { count: number } = Object.assign(
    () => {
      dial.count++;
      const conn = new ScriptedConn();
      conn.blockedUntil = new Promise(() => {});
      return conn;
    },
    { count: 0 },
  );
  const { pool } = pooled(t, { dial });
  (await pool.acquire("k")).release();
  (await pool.acquire("k")).release();
  assert.equal(dial.count, 2);
});

test("a waiter whose dial brought a conn without slots waits for some, and starts no second dial", async (t) => {
  const dial = scriptedDial({ maxStreams: 0 });
  const { pool } = pooled(t, { dial });
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

test("a waiter whose dial brought a conn that drains already starts no second dial", async (t) => {
  const dial: Dial<string, ScriptedConn> & { count: number } = Object.assign(
    async () => {
      if (dial.count++ > 20) await new Promise(() => {});
      return Object.assign(new ScriptedConn(), { draining: true });
    },
    { count: 0 },
  );
  const { pool } = pooled(t, { dial });
  const waiter = outcome(pool.acquire("k"));
  await settle();
  assert.equal(dial.count, 1);
  assert.equal(waiter.state, "rejected");
});

test("a burst in a cold key whose conns are exclusive costs one dial each, and nobody waits longer than for a dial", async (t) => {
  const dialMs = 150;
  const callMs = 2;
  const used = new Set<unknown>();
  const { pool, clock } = pooled(t, {
    maxStreams: 1,
    dial: () =>
      new Promise<ScriptedConn>((resolve) => void clock.setTimeout(() => resolve(new ScriptedConn()), dialMs)),
  });
  const begun = clock.now();
  const waits: number[] = [];
  for (let call = 0; call < 50; call++) {
    void pool.acquire("k").then((lease) => {
      waits.push(clock.now() - begun);
      used.add(lease.conn);
      clock.setTimeout(() => lease.release(), callMs);
    });
  }
  await clock.advance(1000);
  const { dials, abandoned } = pool.stats();
  assert.deepEqual([waits.length, Math.max(...waits), dials, used.size, abandoned], [50, dialMs, 50, 50, 0]);
});

for (const [what, options, dials] of [
  ["", {}, 50],
  [", with 15 conns at most", { maxKeyConns: 15 }, 15],
] as const) {
  test(`where dials take 150 ms, 30 % more or less, a burst of 50 calls waits no longer than 1.2 times the best schedule${what}`, async (t) => {
    const callMs = 2;
    const dialMs = (i: number) => 105 + (((i * 37) % 50) / 49) * 90;
    let begun = 0;
    const { pool, clock } = pooled(t, {
      maxStreams: 1,
      dial: () =>
        new Promise<ScriptedConn>(
          (resolve) => void clock.setTimeout(() => resolve(new ScriptedConn()), dialMs(begun++)),
        ),
      ...options,
    });
    const start = clock.now();
    const waits: number[] = [];
    for (let call = 0; call < 50; call++) {
      void pool.acquire("k").then((lease) => {
        waits.push(clock.now() - start);
        clock.setTimeout(() => lease.release(), callMs);
      });
    }
    await clock.advance(1000);
    // The best schedule: 50 dials at once, and each call on the conn that is free first.
    const freeAt = Array.from({ length: 50 }, (_, i) => dialMs(i));
    let best = 0;
    for (let call = 0; call < 50; call++) {
      best = Math.min(...freeAt);
      freeAt[freeAt.indexOf(best)] = best + callMs;
    }
    assert.equal(waits.length, 50);
    assert.ok(Math.max(...waits) <= 1.2 * best, `${Math.max(...waits)} ms, the best schedule takes ${best}`);
    assert.equal(pool.stats().dials, dials);
    t.diagnostic(`${Math.max(...waits)} ms of ${best}; abandoned: ${pool.stats().abandoned} of ${dials}`);
  });
}
