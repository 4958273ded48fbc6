import assert from "node:assert/strict";
import { test } from "node:test";
import type { Limits } from "../../src/options.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test("the limits of each key are its own: open, idle, uses, lifetime, idle time", async (t) => {
  const own: Record<string, Limits> = {
    open: { maxKeyConns: 1 },
    idle: { keyCapacity: 1 },
    uses: { maxUses: 1 },
    lifetime: { maxLifetimeMs: 100 },
    "idle time": { expirationMs: 100 },
  };
  const { pool, clock } = pooled(t, { limits: (key) => own[key] });
  const dial = scriptedDial();
  /** What is open after two leases at once, after their release, and a while later. */
  const life = async (key: string) => {
    const leases = [pool.acquire(key, { dial }), pool.acquire(key, { dial })];
    await settle();
    const open = () => pool.stats(key).open;
    const counts = [open()];
    for (const lease of leases) (await lease).release();
    counts.push(open());
    await clock.advance(200);
    counts.push(open());
    return counts;
  };
  assert.deepEqual(await life("no limits"), [2, 2, 2]);
  assert.deepEqual(await life("open"), [1, 1, 1]);
  assert.deepEqual(await life("idle"), [2, 1, 1]);
  assert.deepEqual(await life("uses"), [2, 0, 0]);
  assert.deepEqual(await life("lifetime"), [2, 2, 0]);
  assert.deepEqual(await life("idle time"), [2, 2, 0]);
});

test("configure with a key sets limits of that key alone; the defaults are for all the others", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial();
  pool.configure({ maxKeyConns: 3 }, "big");
  const ask = (key: string) => outcome(pool.acquire(key, { dial }));
  const states = { big: [1, 2, 3, 4].map(() => ask("big")), small: [1, 2].map(() => ask("small")) };
  await settle();
  assert.deepEqual(
    states.big.map(({ state }) => state),
    ["resolved", "resolved", "resolved", "pending"],
  );
  assert.deepEqual(
    states.small.map(({ state }) => state),
    ["resolved", "pending"],
  );
});

test("the limits option is asked once, when a key appears, so that configure cannot fail halfway", async (t) => {
  let asked = 0;
  const { pool } = pooled(t, {
    limits: () => {
      if (asked++ > 0) throw new Error("asked again");
      return { maxStreams: 2 };
    },
  });
  pool.put("k", new ScriptedConn({ maxStreams: 5 }));
  pool.configure({ maxStreams: 4, keyCapacity: 1 });
  pool.configure({ keyCapacity: 2 }, "k");
  assert.equal(asked, 1);
  assert.equal(pool.stats("k").conns?.[0]?.maxStreams, 2); // and its answer still counts
});

test("what configure set for a key outlives the key, and wins over the limits option", async (t) => {
  const { pool } = pooled(t, { limits: () => ({ maxStreams: 2 }) });
  pool.configure({ maxStreams: 3 }, "k");
  const slots = (key: string) => {
    pool.put(key, new ScriptedConn({ maxStreams: 10 }));
    const leases = [];
    for (let lease = pool.tryAcquire(key); lease !== undefined; lease = pool.tryAcquire(key)) leases.push(lease);
    for (const lease of leases) lease.release();
    pool.clear(key);
    return leases.length;
  };
  assert.deepEqual([slots("k"), slots("other")], [3, 2]);
  assert.deepEqual([...pool.keys()], []);
  assert.equal(slots("k"), 3);
});

test("configure is checked as the constructor checks, before anything has changed", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 1 });
  const wrong: unknown[] = [
    { maxKeyConns: 5, capacity: 1.5 },
    { maxKeyConns: 5, expirationMs: -1 },
    { maxKeyConns: 5, waitTimeoutMs: Number.NaN },
    { maxKeyConns: 5, nonsense: 1 },
    { maxKeyConns: 5, dial: () => new ScriptedConn() },
    { maxKeyConns: 5, backoff: { baseMs: 0 } },
    null,
    7,
  ];
  for (const limits of wrong) {
    assert.throws(() => pool.configure(limits as Limits), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.configure(limits as Limits, "k"), { code: "ERR_POOL_ARGUMENT" });
  }
  assert.throws(() => pool.configure({ capacity: 5 }, "k"), { code: "ERR_POOL_ARGUMENT" }); // not a limit of one key
  const dial = scriptedDial();
  await lease("k", dial);
  const second = outcome(lease("k", dial));
  await settle();
  assert.equal(second.state, "pending"); // maxKeyConns is 1 still
});

test("limits that configure omits keep their value; lowering one closes nothing that is in use", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 3, keyCapacity: 3 });
  const dial = scriptedDial();
  const held = await Promise.all([lease("k", dial), lease("k", dial), lease("k", dial)]);
  pool.configure({ maxKeyConns: 2 });
  pool.configure({ keyCapacity: 1 });
  pool.configure({ maxKeyConns: undefined });
  assert.deepEqual(
    dial.conns.map(({ closes }) => closes),
    [0, 0, 0],
  );
  const waiting = outcome(lease("k", dial));
  await settle();
  assert.deepEqual([waiting.state, dial.count], ["pending", 3]); // still two, and never more
  for (const one of held) one.release();
  await settle();
  assert.equal(waiting.state, "resolved");
  assert.ok(pool.stats().open <= 2 && pool.stats().idle <= 1);
});

test("raising a limit serves waiters at once", async (t) => {
  for (const name of ["maxKeyConns", "maxConns"] as const) {
    const { pool, lease } = pooled(t, { [name]: 1 });
    const dial = scriptedDial();
    const states = [1, 2, 3].map(() => outcome(lease("k", dial)));
    await settle();
    pool.configure({ [name]: 2 });
    await settle();
    assert.deepEqual(
      states.map(({ state }) => state),
      ["resolved", "resolved", "pending"],
      name,
    );
    pool.configure({ [name]: 0 });
    await settle();
    assert.equal(states[2]?.state, "resolved", name);
  }
});

test("shrinking a limit drains the surplus: idle conns close at once, those in use after their streams", async (t) => {
  for (const name of ["maxKeyConns", "maxConns"] as const) {
    const { pool, lease } = pooled(t);
    const dial = scriptedDial();
    const held = [await lease("k", dial), await lease("k", dial), await lease("k", dial)];
    held[0]?.release();
    const closes = () => dial.conns.map((conn) => conn.closes);
    pool.configure({ [name]: 1 });
    assert.deepEqual([closes(), pool.stats().draining], [[1, 0, 0], 1], name);
    held[1]?.release();
    held[2]?.release();
    assert.deepEqual([closes(), pool.stats().closed.configured], [[1, 1, 0], 2], name);
  }
});

test("dials over a lowered limit are abandoned, newest first, and their waiters wait", async (t) => {
  for (const name of ["maxKeyConns", "maxConns", "maxKeyDials"] as const) {
    const { pool, lease } = pooled(t);
    const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
    const states = [1, 2, 3].map(() => outcome(lease("k", dial)));
    pool.configure({ [name]: 2 });
    assert.deepEqual(
      dial.pending.map(({ signal }) => signal.aborted),
      [false, false, true],
      name,
    );
    pool.configure({ [name]: 1 });
    assert.deepEqual([pool.stats().dialing, pool.stats().waiting, dial.count], [1, 3, 3], name);
    dial.pending[0]?.arrive();
    await settle();
    assert.deepEqual(
      states.map(({ state }) => state),
      ["resolved", "pending", "pending"],
      name,
    );
  }
});

test("shrinking a capacity closes the oldest idle conns; raising a cap on streams opens slots", async (t) => {
  const { pool } = pooled(t, { selection: "oldest", maxStreams: 1 });
  const conns = Array.from({ length: 6 }, () => new ScriptedConn({ maxStreams: 2 }));
  for (const [i, conn] of conns.entries()) pool.put(`k${i % 2}`, conn);
  const open = () => conns.map(({ closes }) => 1 - closes).join("");
  pool.configure({ keyCapacity: 2 });
  assert.equal(open(), "001111");
  pool.configure({ capacity: 3 });
  assert.equal(open(), "000111");
  pool.configure({ capacity: 0, keyCapacity: 0 });
  const lease = pool.tryAcquire("k1");
  assert.equal(lease?.conn, conns[3]);
  pool.configure({ maxStreams: 2 });
  assert.equal(pool.tryAcquire("k1")?.conn, conns[3]); // it has a second slot now
  pool.configure({ maxStreams: 1 });
  assert.equal(pool.tryAcquire("k1")?.conn, conns[5]);
});

test("an expiration that is switched on, shortened or off counts for what is idle already", async (t) => {
  const { pool, clock } = pooled(t);
  const conns = [new ScriptedConn(), new ScriptedConn()];
  for (const conn of conns) pool.put("k", conn);
  await clock.advance(5000);
  pool.configure({ expirationMs: 1000 });
  await clock.advance(1250);
  assert.deepEqual(
    conns.map(({ closes }) => closes),
    [1, 1],
  );
  const young = new ScriptedConn();
  pool.put("k", young);
  pool.configure({ expirationMs: 0 });
  await clock.advance(100_000);
  assert.equal(young.closes, 0);
});

test("a lifetime that is switched on counts from when a conn was opened", async (t) => {
  const { pool, clock } = pooled(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  await clock.advance(700);
  pool.configure({ maxLifetimeMs: 1000 });
  await clock.advance(200);
  assert.equal(conn.closes, 0);
  await clock.advance(100);
  assert.equal(conn.closes, 1);
});

test("a lowered maxConns counts what is open: dials that no place is left for are abandoned", async (t) => {
  const { pool } = pooled(t, { maxConns: 4 });
  const dial = scriptedDial({}, { manual: true });
  const open = [pool.acquire("a", { dial }), pool.acquire("b", { dial })];
  for (const pending of dial.pending) pending.arrive();
  await settle();
  const waiting = [outcome(pool.acquire("c", { dial })), outcome(pool.acquire("d", { dial }))];
  pool.configure({ maxConns: 3 });
  assert.deepEqual(
    dial.pending.map(({ signal }) => signal.aborted),
    [false, false, false, true],
  );
  dial.pending[2]?.arrive();
  for (const lease of open) (await lease).release();
  await settle();
  dial.pending[4]?.arrive();
  await settle();
  for (const { state, value } of waiting) {
    assert.equal(state, "resolved");
    value?.release();
  }
});
