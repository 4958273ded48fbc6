import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pool } from "../../src/pool/pool.ts";
import { settle, turns, until } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, states } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

/** Callers of one key that take turns on its conns without end; counts what each turn hands off. */
function crowd(pool: Pool<string, ScriptedConn>, key: string, callers: number): { turns: number; stop: boolean } {
  const state = { turns: 0, stop: false };
  const call = async () => {
    while (!state.stop) {
      const lease = await pool.acquire(key);
      state.turns++;
      await turns(1);
      lease.release();
    }
  };
  for (let caller = 0; caller < callers; caller++) call().catch(() => {}); // the pool is closed at the end of the test
  return state;
}

test("under a total limit, another key's idle conn makes way, the oldest given back first", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 3 });
  const dial = scriptedDial();
  for (const key of ["a", "b", "c"]) (await lease(key, dial)).release();
  pool.tryAcquire("a")?.release(); // b is the oldest now
  const closes = () => dial.conns.map((conn) => conn.closes);
  await lease("d", dial);
  assert.deepEqual(closes(), [0, 1, 0, 0]);
  await lease("e", dial);
  assert.deepEqual(closes(), [0, 1, 1, 0, 0]);
  assert.deepEqual([pool.stats().open, pool.stats().closed.evicted], [3, 2]);
});

test("a conn that runs a stream makes way for nobody", async (t) => {
  const { lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial({ maxStreams: 2 });
  const [one, two] = [await lease("a", dial), await lease("a", dial)];
  const other = outcome(lease("b", dial));
  one.release();
  await settle();
  assert.deepEqual([other.state, dial.conns[0]?.closes], ["pending", 0]);
  two.release();
  await settle();
  assert.deepEqual([other.state, dial.conns[0]?.closes], ["resolved", 1]);
});

test("a total limit evicts multiplexed conns that run nothing, and never one that runs a stream", async (t) => {
  const dial = scriptedDial({ maxStreams: 5 });
  const { pool } = pooled(t, { dial, maxConns: 2, capacity: 1 });
  const a = await pool.acquire("a");
  const more = await pool.acquire("a");
  const b = await pool.acquire("b");
  b.release();
  const c = outcome(pool.acquire("c"));
  await settle();
  assert.equal(b.conn.closes, 1);
  more.release();
  const d = outcome(pool.acquire("d"));
  await settle();
  assert.deepEqual([c.state, d.state, a.conn.closes], ["resolved", "pending", 0]);
  a.release();
  await settle();
  assert.deepEqual([d.state, a.conn.closes], ["resolved", 1]);
});

test("a blocked idle conn of another key makes way too", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const blocked = new ScriptedConn();
  pool.put("a", blocked);
  pool.tryAcquire("a")?.release();
  blocked.blockedUntil = new Promise(() => {});
  assert.equal(pool.tryAcquire("a"), undefined);
  const dial = scriptedDial();
  assert.equal((await lease("b", dial)).conn, dial.conns[0]);
  assert.equal(blocked.closes, 1);
});

test("an idle conn of the caller's own key is used, not evicted", async (t) => {
  const { lease, pool } = pooled(t, { maxConns: 2 });
  const dial = scriptedDial();
  (await lease("a", dial)).release();
  (await lease("b", dial)).release();
  (await lease("a", dial)).release();
  (await lease("b", dial)).release();
  assert.deepEqual([dial.count, pool.stats().closed.evicted], [2, 0]);
});

test("dialing and draining conns count: open conns never exceed maxConns", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 2 });
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const asked = ["a", "b", "c"].map((key) => outcome(lease(key, dial)));
  assert.deepEqual(
    dial.pending.map(({ key }) => key),
    ["a", "b"],
  );
  dial.pending[0]?.fail(new Error("refused")); // frees a place
  await settle();
  assert.deepEqual(
    dial.pending.map(({ key }) => key),
    ["a", "b", "c"],
  );
  assert.equal(pool.stats().dialing, 2);
  for (const pending of dial.pending.slice(1)) pending.arrive();
  await settle();
  assert.deepEqual(
    asked.map(({ state }) => state),
    ["rejected", "resolved", "resolved"],
  );
});

test("the keys that wait get places in the order of their oldest waiters", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  const held = await lease("a", dial);
  const served: string[] = [];
  const asked = ["c", "b", "d", "c", "b"].map(async (key, number) => {
    const one = await lease(key, dial);
    served.push(`${key}${number}`);
    await settle();
    one.release();
  });
  held.release();
  await Promise.all(asked);
  assert.equal(served[0], "c0");
  assert.deepEqual(
    served.filter((name) => ["c0", "b1", "d2"].includes(name)),
    ["c0", "b1", "d2"],
  );
  assert.equal(served.length, 5);
  assert.equal(pool.stats().open, 1);
});

test("a busy key yields: the oldest waiter elsewhere has a place after at most 16 hand-offs", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  let current = await lease("busy", dial);
  const starving = outcome(lease("starving", dial));
  let handOffs = 0;
  while (starving.state === "pending" && handOffs < 100) {
    const next = lease("busy", dial); // there is always one waiting
    next.catch(() => {});
    current.release();
    await settle();
    if (starving.state === "pending") {
      current = await next;
      handOffs++;
    }
  }
  assert.equal(starving.state, "resolved");
  assert.ok(handOffs <= 16, `${handOffs} hand-offs`);
  assert.ok(handOffs >= 8, "a place is not given up at the first release");
  assert.equal(pool.stats().closed.evicted, 1);
});

test("a key that has given up a place keeps the next one for as many hand-offs", async (t) => {
  const { lease } = pooled(t, { maxConns: 2 });
  const dial = scriptedDial();
  const held = [await lease("busy", dial), await lease("busy", dial)];
  let next = lease("busy", dial); // there is always one waiting
  for (const [turn, first] of held.entries()) {
    const starving = outcome(lease(`starving ${turn}`, dial));
    let current = first;
    let handOffs = -1;
    do {
      current.release();
      await settle();
      handOffs++;
      if (starving.state !== "pending") break;
      current = await next;
      next = lease("busy", dial);
    } while (handOffs < 100);
    assert.ok(handOffs >= 8 && handOffs <= 16, `${handOffs} hand-offs before ${turn}`);
  }
  next.catch(() => {});
});

test("where the conn that makes way comes no closer to its end, another one makes way as well", async (t) => {
  const { pool } = pooled(t, { maxConns: 2 });
  const dial = scriptedDial({ maxStreams: 4 });
  const stuck = await Promise.all(Array.from({ length: 7 }, () => pool.acquire("busy", { dial })));
  stuck.shift()?.release(); // three streams on each conn
  const waiter = outcome(pool.acquire("other", { dial }));
  const draining = () => pool.stats("busy").draining;
  const calls: number[] = [];
  for (let call = 1; call < 100 && draining() < 2; call++) {
    pool.tryAcquire("busy")?.release();
    if (draining() > calls.length) calls.push(call);
  }
  assert.equal(calls.length, 2, `after so many calls: ${calls.join(", ")}`);
  assert.ok((calls[0] ?? 0) >= 16 && (calls[1] ?? 0) >= 32, calls.join(", "));
  for (const lease of stuck) lease.release();
  await settle();
  waiter.value?.release();
});

test("a multiplexed key gives up its place too: its conn drains, and takes no further stream", async (t) => {
  const dial = scriptedDial({ maxStreams: 4 });
  const { pool } = pooled(t, { dial, maxConns: 1 });
  const busy = crowd(pool, "busy", 12);
  await settle();
  const before = busy.turns;
  const waiter = outcome(pool.acquire("other"));
  await until(() => waiter.state !== "pending", "the waiter is served");
  assert.equal(waiter.state, "resolved");
  assert.ok(busy.turns - before <= 16 + 4, `${busy.turns - before} turns of the busy key came first`);
  assert.equal(dial.conns[0]?.closes, 1);
  busy.stop = true;
  waiter.value?.release();
  await settle();
});

test("the key that gave up its place goes behind the one that it gave it to, and is served after that", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxConns: 1 });
  const one = crowd(pool, "one", 3);
  const two = crowd(pool, "two", 3);
  await until(() => one.turns + two.turns > 300, "the turns are taken");
  one.stop = true;
  two.stop = true;
  assert.ok(Math.abs(one.turns - two.turns) <= 40, `${one.turns} turns against ${two.turns}`);
  await until(() => pool.stats().streams === 0, "the crowd leaves");
});

test("three keys at two places all get on", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxConns: 2 });
  const keys = ["a", "b", "c"].map((key) => crowd(pool, key, 3));
  await until(() => keys.reduce((sum, { turns }) => sum + turns, 0) > 600, "the turns are taken");
  for (const key of keys) key.stop = true;
  for (const key of keys) assert.ok(key.turns > 100, `turns: ${keys.map(({ turns }) => turns).join(", ")}`);
  await until(() => pool.stats().streams === 0, "the crowd leaves");
});

test("a full pool of one hundred busy keys serves every one of them", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 10 });
  const dial = scriptedDial();
  let most = 0;
  const served = await Promise.all(
    Array.from({ length: 1000 }, async (_, i) => {
      const one = await lease(`k${i % 100}`, dial);
      most = Math.max(most, pool.stats().open + pool.stats().dialing);
      await Promise.resolve();
      one.release();
      return i % 100;
    }),
  );
  assert.equal(new Set(served).size, 100);
  assert.equal(most, 10);
  assert.deepEqual([pool.stats().waiting, pool.stats().streams], [0, 0]);
});

test("whoever waits for a place while nobody else does is not made to share", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxConns: 1 });
  const busy = crowd(pool, "busy", 3);
  await until(() => busy.turns > 100, "the turns are taken");
  busy.stop = true;
  assert.equal(dial.count, 1, "no hand-off closes a conn where no other key waits");
  await until(() => pool.stats().streams === 0, "the crowd leaves");
});

test("endless streams on conns that drain elsewhere do not make others wait for ever", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), maxConns: 4, limits: () => ({ maxKeyConns: 3 }) });
  const endless = await Promise.all([1, 2, 3].map(() => pool.acquire("endless")));
  pool.clear("endless");
  assert.equal(pool.stats().draining, 3);
  const busy = crowd(pool, "busy", 4);
  await settle();
  const before = busy.turns;
  const waiter = outcome(pool.acquire("other"));
  await until(() => waiter.state !== "pending" || busy.turns - before > 100, "the waiter is served");
  assert.equal(waiter.state, "resolved", `after ${busy.turns - before} turns of the busy key`);
  assert.ok(busy.turns - before <= 17);
  busy.stop = true;
  waiter.value?.release();
  for (const lease of endless) lease.release();
  await settle();
});

test("a conn that makes way but never ends its last stream does not stand for the place that others wait for", async (t) => {
  const dial = scriptedDial<string>((key) => ({ maxStreams: key === "shared" ? 2 : 1 }));
  const { pool } = pooled(t, { dial, maxConns: 2, limits: () => ({ maxKeyConns: 1 }) });
  const endless = await pool.acquire("shared");
  const waiter = outcome(pool.acquire("other"));
  await settle();
  assert.equal(waiter.state, "resolved", "the second place was free");
  const next = outcome(pool.acquire("next"));
  for (let call = 0; call < 20; call++) pool.tryAcquire("shared")?.release();
  assert.equal(pool.stats("shared").draining, 1, "it made way, but its endless stream runs on");
  const busy = crowd(pool, "other", 3);
  waiter.value?.release();
  await until(() => next.state !== "pending" || busy.turns > 100, "the waiter is served");
  assert.equal(next.state, "resolved", `after ${busy.turns} turns of the busy key`);
  busy.stop = true;
  next.value?.release();
  endless.release();
  await settle();
});

test("a conn that makes way, and comes closer to its end, is enough for one waiter: no second one drains", async (t) => {
  const { pool } = pooled(t, { dial: () => new ScriptedConn({ maxStreams: 50 }), maxConns: 2, maxStreams: 50 });
  const leases = [];
  for (let i = 0; i < 100; i++) leases.push(await pool.acquire("busy"));
  const waiting = outcome(pool.acquire("other"));
  for (let i = 0; i < 90; i++) {
    (i % 2 === 0 ? leases.shift() : leases.pop())?.release(); // of the conn that makes way, and of the other
    const next = pool.tryAcquire("busy");
    if (next !== undefined) leases.push(next);
  }
  await settle();
  assert.deepEqual([pool.stats().draining, waiting.state], [1, "pending"]);
  for (const lease of leases) lease.release();
  await settle();
  assert.equal(waiting.state, "resolved");
  waiting.value?.release();
});

test("where two keys wait, two conns make way, though the first comes closer to its end", async (t) => {
  const { pool } = pooled(t, { dial: () => new ScriptedConn({ maxStreams: 50 }), maxConns: 2, maxStreams: 50 });
  const leases = [];
  for (let i = 0; i < 100; i++) leases.push(await pool.acquire("busy"));
  const waiting = ["one", "two"].map((key) => outcome(pool.acquire(key)));
  for (let i = 0; i < 80; i++) (i % 2 === 0 ? leases.shift() : leases.pop())?.release();
  assert.equal(pool.stats("busy").draining, 2);
  for (const lease of leases) lease.release();
  await settle();
  assert.deepEqual(states(...waiting), ["resolved", "resolved"]);
  for (const { value } of waiting) value?.release();
});

test("of two busy keys one makes way for one waiter: the other keeps its conn", async (t) => {
  const { pool } = pooled(t, { dial: () => new ScriptedConn({ maxStreams: 50 }), maxConns: 2, maxStreams: 50 });
  const held = [await pool.acquire("one"), await pool.acquire("two")];
  const waiting = outcome(pool.acquire("other"));
  await settle();
  for (let i = 0; i < 16; i++) pool.tryAcquire("two")?.release();
  for (let i = 0; i < 17; i++) pool.tryAcquire("one")?.release();
  for (let i = 0; i < 2; i++) pool.tryAcquire("two")?.release();
  assert.deepEqual([pool.stats("one").draining, pool.stats("two").draining], [1, 0]);
  for (const lease of held) lease.release();
  await settle();
  waiting.value?.release();
});

test("keys whose own limits held them back stand in line by the age of their oldest waiters, not behind", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 3, maxKeyConns: 1 });
  const dial = scriptedDial();
  const held = [await lease("a", dial), await lease("b", dial)];
  const other = await lease("other", dial);
  const waiting = ["a", "b", "c"].map((key) => outcome(lease(key, dial))); // c is the first in line for a place
  for (const key of ["a", "b"]) pool.configure({ maxKeyConns: 2 }, key);
  other.conn.die();
  await settle();
  assert.deepEqual(states(...waiting), ["resolved", "pending", "pending"]);
  for (const one of held) one.release();
  for (const { value } of waiting) {
    await settle();
    value?.release();
  }
});

test("for a key that has its places, and waits for a turn to dial, no other key gives up a conn", async (t) => {
  const { pool } = pooled(t, { maxConns: 1, maxDials: 1 });
  const busy = new ScriptedConn({ maxStreams: 2 });
  pool.put("busy", busy);
  const held = pool.tryAcquire("busy");
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const asked = [1, 2].map(() => outcome(pool.acquire("other", { dial })));
  pool.configure({ maxConns: 3 });
  assert.equal(dial.count, 1); // the second is dialed when the first has come
  for (let call = 0; call < 40; call++) pool.tryAcquire("busy")?.release();
  assert.equal(pool.stats("busy").draining, 0);
  for (const turn of [0, 1]) {
    dial.pending[turn]?.arrive();
    await settle();
  }
  for (const { value } of asked) value?.release();
  held?.release();
  assert.deepEqual([dial.count, busy.closes], [2, 0]);
});

for (const [maxDials, keys] of [
  [1, ["first", "busy", "quiet", "busy", "busy"]],
  [2, ["busy", "busy", "quiet", "busy", "other"]],
] as const) {
  test(`keys have their turns to dial in the order in which they came, with ${maxDials} dials at once`, async (t) => {
    const { pool } = pooled(t, { maxDials });
    const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
    const asked = keys.map((key) => outcome(pool.acquire(key, { dial })));
    for (let turn = 0; turn < keys.length; turn++) {
      dial.pending[turn]?.arrive();
      await settle();
    }
    assert.deepEqual(
      dial.pending.map(({ key }) => key),
      keys,
    );
    for (const { value } of asked) value?.release();
  });
}

test("the place of a conn that dies goes to the key that has waited longest, not to its own", async (t) => {
  const { lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  const held = await lease("b", dial);
  const oldest = outcome(lease("a", dial));
  const own = outcome(lease("b", dial));
  await settle();
  held.conn.die();
  await settle();
  assert.deepEqual([oldest.state, own.state], ["resolved", "pending"]);
  oldest.value?.release();
  await settle();
  own.value?.release();
});

test("a key that gave up its place goes behind, though its own callers came before the others", async (t) => {
  const { pool, lease } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  let served = 0;
  const busy = Array.from({ length: 40 }, async () => {
    const one = await lease("a", dial);
    served++;
    await turns(1);
    one.release();
  });
  const other = await lease("b", dial);
  assert.ok(served < 40, `${served} of the other key's callers came first`);
  other.release();
  await Promise.all(busy);
  assert.equal(pool.stats().waiting, 0);
});
