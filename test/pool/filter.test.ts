import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import type { ConnInfo, Filter } from "../../src/options.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { type Outcome, outcome, rejection, states } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

const zone =
  (name: string): Filter<Conn> =>
  (_, { tags }) =>
    tags?.["zone"] === name;

const tagged = (name: string) => new ScriptedConn({ tags: { zone: name } });

test("calls filter on the tags of conns, and on which methods they support, in get, acquire and tryAcquire", async (t) => {
  const { pool } = pooled<Conn>(t);
  const make = (name: string, methods: string[]) =>
    new ScriptedConn({ tags: { zone: name, methods }, answer: () => name });
  pool.put("k", make("east", ["Get"]));
  pool.put("k", make("west", ["Get", "Put"]));
  const supports =
    (method: string): Filter<Conn> =>
    (_, { tags }) =>
      Array.isArray(tags?.["methods"]) && tags["methods"].includes(method);
  assert.equal(await call(pool.get("k", { filter: zone("west") })), "west");
  assert.equal(await call(pool.get("k", { filter: zone("east") })), "east");
  assert.equal(await call(pool.get("k", { filter: supports("Put") })), "west");
  assert.equal(pool.tryAcquire("k", { filter: zone("east") })?.conn.tags?.["zone"], "east");
  assert.equal(pool.tryAcquire("k", { filter: zone("east") }), undefined); // full
  const lease = await pool.acquire("k", { filter: supports("Get") });
  assert.equal(lease.conn.tags?.["zone"], "west");
});

test("no conn at all, and none that passes, are different errors, at once", async (t) => {
  const { pool } = pooled<Conn>(t);
  const handle = pool.get("k", { filter: zone("north") });
  const none = await rejection(call(handle));
  assert.deepEqual([none.name, "code" in none && none.code], ["NoConnError", "ERR_POOL_NO_CONN"]);
  assert.deepEqual([...pool.keys()], []);
  pool.put("k", tagged("east"));
  for (const asked of [call(handle), pool.acquire("k", { filter: zone("north") })]) {
    const unfit = await rejection(asked);
    assert.deepEqual([unfit.name, "code" in unfit && unfit.code], ["NoMatchError", "ERR_POOL_NO_MATCH"]);
  }
});

test("a conn that passes the filter and is busy is waited for", async (t) => {
  const { pool } = pooled<Conn>(t);
  const east = tagged("east");
  pool.put("k", east);
  pool.put("k", tagged("west"));
  const held = pool.tryAcquire("k", { filter: zone("east") });
  const waiting = pool.acquire("k", { filter: zone("east") });
  const state = outcome(waiting);
  await settle();
  assert.equal(state.state, "pending");
  held?.release();
  assert.equal((await waiting).conn, east);
});

test("when the last conn that passes has gone, those who wait for it learn so", async (t) => {
  const { pool } = pooled<Conn>(t);
  const east = tagged("east");
  pool.put("k", east);
  pool.put("k", tagged("west"));
  pool.tryAcquire("k", { filter: zone("east") });
  const waiting = pool.acquire("k", { filter: zone("east") });
  await settle();
  east.die();
  assert.equal((await rejection(waiting)).name, "NoMatchError");
});

test("a filter sees tags, age, uses and load", async (t) => {
  const { pool, clock } = pooled(t, { maxStreams: 3 });
  const conn = new ScriptedConn({ tags: { zone: "east" }, maxStreams: 5 });
  pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  pool.tryAcquire("k");
  await clock.advance(250);
  const seen: ConnInfo[] = [];
  const filter: Filter<ScriptedConn> = (given, info) => {
    assert.equal(given, conn);
    seen.push(info);
    return true;
  };
  pool.tryAcquire("k", { filter });
  assert.deepEqual(seen[0], {
    state: "leased",
    blocked: false,
    streams: 1,
    maxStreams: 3,
    tags: { zone: "east" },
    ageMs: 250,
    uses: 2,
  });
  assert.ok(Object.isFrozen(seen[0]));
});

test("tags are read live", (t) => {
  const { pool } = pooled(t);
  const conn = tagged("east");
  pool.put("k", conn);
  assert.equal(pool.tryAcquire("k", { filter: zone("west") }), undefined);
  if (conn.tags !== undefined) conn.tags["zone"] = "west";
  assert.equal(pool.tryAcquire("k", { filter: zone("west") })?.conn, conn);
});

test("a filtered request dials if it brought a dial, and takes what it brings", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({ tags: { zone: "west" } });
  pool.put("k", tagged("east"));
  const lease = await pool.acquire("k", { dial, filter: zone("west") });
  assert.deepEqual([lease.conn, dial.count], [dial.conns[0], 1]);
  lease.release();
  (await pool.acquire("k", { dial, filter: zone("west") })).release();
  assert.equal(dial.count, 1); // cached like any other
});

test("a filtered request dials once: a dial that brings no match starts no second", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({ tags: { zone: "east" } });
  for (const expected of [1, 2]) {
    const error = await rejection(pool.acquire("k", { dial, filter: zone("north") }));
    assert.deepEqual([error.name, "code" in error && error.code], ["NoMatchError", "ERR_POOL_NO_MATCH"]);
    assert.equal(dial.count, expected);
  }
  assert.equal(pool.stats().idle, 2); // what was dialed serves others
});

test("a filter that throws refuses the conn, and harms nobody", async (t) => {
  const { pool } = pooled(t);
  pool.put("k", tagged("east"));
  const filter = () => {
    throw new Error("broken filter");
  };
  assert.equal(pool.tryAcquire("k", { filter }), undefined);
  assert.equal((await rejection(pool.acquire("k", { filter }))).name, "NoMatchError");
  assert.notEqual(pool.tryAcquire("k"), undefined);
});

test("a waiter learns at once that a lowered limit drains the last conn that passes its filter", async (t) => {
  const { pool } = pooled<Conn>(t, { maxKeyConns: 2 });
  for (const name of ["east", "west"]) {
    pool.put("k", tagged(name));
    pool.tryAcquire("k");
  }
  const waiting = ["east", "west"].map((name) => outcome(pool.acquire("k", { filter: zone(name) })));
  await settle();
  pool.configure({ maxKeyConns: 1 });
  await settle();
  const { draining } = pool.stats("k");
  assert.deepEqual([draining, ...waiting.map(({ state }) => state).toSorted()], [1, "pending", "rejected"]);
});

test("a conn that did not pass a filter when it was dialed, and passes it now, speaks against no dial", async (t) => {
  const { pool } = pooled<Conn>(t);
  const tags = { zone: "west" };
  const dialed = [new ScriptedConn({ tags }), tagged("east")];
  let count = 0;
  const dial = async () => dialed[count++] ?? assert.fail("dialed too often");
  const filter = zone("east");
  const unfit = await rejection(pool.acquire("k", { dial, filter }));
  assert.equal(unfit.name, "NoMatchError");
  const held = pool.tryAcquire("k");
  assert.equal(held?.conn, dialed[0]);
  tags.zone = "east";
  const lease = await pool.acquire("k", { dial, filter });
  assert.equal(lease.conn, dialed[1]);
  lease.release();
  held?.release();
});

test("a filter that ends its own call while it judges what was dialed takes nobody else's dial away", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial({}, { manual: true });
  const caller = new AbortController();
  let asked = 0;
  const filter = (): boolean => {
    if (++asked === 2) caller.abort();
    return false;
  };
  const choosy = outcome(pool.acquire("k", { dial, filter, signal: caller.signal }));
  const first = outcome(pool.acquire("k", { dial }));
  const second = outcome(pool.acquire("k", { dial }));
  dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([choosy.state, first.state, second.state], ["rejected", "resolved", "pending"]);
  dial.conns[0]?.die();
  await settle();
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive();
  await settle();
  second.value?.release();
});

test("a filter that ends its own call while that is served holds up nobody behind it", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial({}, { manual: true });
  const caller = new AbortController();
  const filter = (): boolean => {
    caller.abort();
    return false;
  };
  const choosy = outcome(pool.acquire("k", { dial, filter, signal: caller.signal }));
  const behind = outcome(pool.acquire("k", { dial }));
  dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([choosy.state, behind.state], ["rejected", "resolved"]);
  behind.value?.release();
});

test("a filter that the conn dialed for it does not pass is refused at once, though others wait who are not choosy", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial();
  const filter = (): boolean => false;
  assert.equal((await rejection(pool.acquire("k", { dial, filter }))).name, "NoMatchError");
  const held = await pool.acquire("k", { dial });
  const waiting = outcome(pool.acquire("k", { dial }));
  await settle();
  const again = outcome(pool.acquire("k", { dial, filter }));
  await settle();
  assert.deepEqual([waiting.state, again.state], ["pending", "rejected"]);
  held.release();
  await settle();
  waiting.value?.release();
});

test("what a dial brought speaks for those who waited for it, not for those who come later", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const first = pool.acquire("k", { dial });
  const second = pool.acquire("k", { dial });
  dial.pending[0]?.arrive(new ScriptedConn({ tags: { name: "a" } }));
  const held = await first;
  const later = outcome(pool.acquire("k", { dial, filter: ({ tags }) => tags?.["name"] === "b" }));
  await settle();
  assert.deepEqual([dial.count, later.state], [3, "pending"]);
  dial.pending[1]?.arrive();
  dial.pending[2]?.arrive(new ScriptedConn({ tags: { name: "b" } }));
  await settle();
  assert.equal(later.state, "resolved");
  for (const lease of [held, await second, later.value]) lease?.release();
});

test("a filter that is not worth a dial waits for the dial in flight, and is refused when that brings no match", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({}, { manual: true });
  const first = pool.acquire("k", { dial });
  const choosy = outcome(pool.acquire("k", { filter: () => false }));
  await settle();
  assert.equal(choosy.state, "pending");
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(choosy.state, "rejected");
  (await first).release();
});

test("who waits for a busy conn that passes a filter is not asked about it again when others come", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial({}, { manual: true });
  let asked = 0;
  const filter = (): boolean => {
    asked++;
    return true;
  };
  const first = pool.acquire("k", { dial });
  const choosy = outcome(pool.acquire("k", { filter }));
  dial.pending[0]?.arrive();
  const held = await first;
  await settle();
  const before = asked;
  const behind = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual([choosy.state, behind.state, asked], ["pending", "pending", before]);
  held.release();
  await settle();
  choosy.value?.release();
  await settle();
  behind.value?.release();
});

test("of the callers who come at once, while a filter is asked, each is told that no conn passes its own", async (t) => {
  const { pool } = pooled(t, { maxKeyConns: 1 });
  pool.put("k", new ScriptedConn());
  const none = (): boolean => false;
  const others: Outcome<unknown>[] = [];
  let asked = 0;
  const first = outcome(
    pool.acquire("k", {
      filter: () => {
        if (++asked === 2)
          others.push(
            outcome(pool.acquire("k", { filter: none })),
            outcome(pool.acquire("k", { filter: none, dial: scriptedDial() })),
          );
        return false;
      },
    }),
  );
  await settle();
  assert.deepEqual(states(first, ...others), ["rejected", "rejected", "pending"]); // the last has a dial, once there is room
});

test("who finds no conn, and brings no way to dial one, learns just that", async (t) => {
  const { pool } = pooled(t);
  const none = await rejection(pool.acquire("k"));
  assert.equal(none.name, "NoConnError");
  assert.match(none.message, /no dial function/);
});
