import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import fc from "fast-check";
import type { Lease } from "../../src/contract.ts";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { type Outcome, outcome } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

/** One end of a connection between two peers; both ends close together. */
function pair(): [ScriptedConn, ScriptedConn] {
  const near = new ScriptedConn({ maxStreams: 10, close: () => far.die() });
  const far = new ScriptedConn({ maxStreams: 10, close: () => near.die() });
  return [near, far];
}

for (const maxKeyConns of [0, 1]) {
  for (const order of ["the dials arrive first", "the inbound conns arrive first", "one of each"]) {
    test(`both sides dial at once, ${order}, maxKeyConns ${maxKeyConns}: the same one conn survives on both`, async (t) => {
      const sides = (["A", "B"] as const).map((name) => ({
        name,
        dial: manualDial(10),
        prefer: name === "A" ? ("dialed" as const) : ("this" as const),
      }));
      const [a, b] = sides;
      assert.ok(a !== undefined && b !== undefined);
      const poolA = pooled(t, { dial: a.dial, maxKeyConns }).pool;
      const poolB = pooled(t, { dial: b.dial, maxKeyConns }).pool;
      const callA = outcome(poolA.acquire("B"));
      const callB = outcome(poolB.acquire("A"));
      const [fromA, atB] = pair();
      const [fromB, atA] = pair();
      const arrive = () => {
        a.dial.pending[0]?.arrive(fromA);
        b.dial.pending[0]?.arrive(fromB);
      };
      const putA = () => poolA.put("B", atA, { prefer: a.prefer });
      const putB = () => poolB.put("A", atB, { prefer: b.prefer });
      const steps =
        order === "the dials arrive first"
          ? [arrive, putA, putB]
          : order === "one of each"
            ? [putB, arrive, putA]
            : [putA, putB, arrive];
      for (const step of steps) {
        step();
        await settle();
      }
      callA.value?.release();
      callB.value?.release();
      await settle();
      assert.deepEqual([callA.state, callB.state], ["resolved", "resolved"]);
      assert.deepEqual([poolA.stats().open, poolB.stats().open], [1, 1]);
      assert.deepEqual([poolA.take("B"), poolB.take("A")], [fromA, atB]);
    });
  }
}

test("a conn on which the peer runs streams does not expire; once they have ended it does", async (t) => {
  const { pool, clock } = pooled(t, { expirationMs: 1000 });
  const conn = Object.assign(new ScriptedConn(), { peerStreams: 1 });
  pool.put("k", conn);
  await clock.advance(10_000);
  assert.equal(conn.closes, 0);
  conn.peerStreams = 0;
  await clock.advance(2500);
  assert.equal(conn.closes, 1);
});

/** A pool that dials "peer", and the conn that comes in from there meanwhile. */
function crossing(t: TestContext, options: PoolOptions<string, ScriptedConn> = {}) {
  const dial = manualDial(10);
  const { pool, clock } = pooled(t, { dial, ...options });
  const caller = outcome(pool.acquire("peer"));
  const inbound = Object.assign(new ScriptedConn({ maxStreams: 10 }), { peerStreams: 0 });
  return { pool, clock, dial, caller, inbound };
}

describe("the conn that is not preferred", () => {
  test("carries no call of this side, is left to the peer, and goes when the peer closes it", async (t) => {
    const { pool, dial, caller, inbound } = crossing(t);
    assert.equal(pool.put("peer", inbound, { prefer: "dialed" }), false);
    await settle();
    assert.deepEqual([caller.state, inbound.closes, pool.stats("peer").draining], ["pending", 0, 1]);
    const dialed = new ScriptedConn();
    dial.pending[0]?.arrive(dialed);
    await settle();
    assert.equal(caller.value?.conn, dialed);
    inbound.die();
    await settle();
    const { open, closed } = pool.stats("peer");
    assert.deepEqual([open, closed.evicted, inbound.closes], [1, 1, 0]);
  });

  test("is closed after a second, where the peer runs nothing on it", async (t) => {
    const { pool, clock, inbound } = crossing(t);
    pool.put("peer", inbound, { prefer: "dialed" });
    await clock.advance(999);
    assert.equal(inbound.closes, 0);
    await clock.advance(1);
    assert.deepEqual([inbound.closes, pool.stats().open], [1, 0]);
  });

  test("is not closed under the streams of the peer, however long they run", async (t) => {
    const { pool, clock, inbound } = crossing(t);
    pool.put("peer", inbound, { prefer: "dialed" });
    inbound.peerStreams = 1; // the peer had begun it when it heard of the other conn
    await clock.advance(60_000);
    assert.equal(inbound.closes, 0);
    inbound.peerStreams = 0;
    await clock.advance(1000);
    assert.equal(inbound.closes, 1);
  });

  test("is closed at once where maxConns has no place for it", async (t) => {
    const { pool, inbound } = crossing(t, { maxConns: 1 });
    assert.equal(pool.put("peer", inbound, { prefer: "dialed" }), false);
    assert.deepEqual([inbound.closes, pool.stats().open], [1, 0]);
  });

  test("counts towards maxConns until it has gone, and then makes way", async (t) => {
    const { pool, inbound } = crossing(t, { maxConns: 2 });
    pool.put("peer", inbound, { prefer: "dialed" });
    const other = outcome(pool.acquire("other"));
    await settle();
    assert.equal(pool.stats("other").dialing, 0);
    inbound.die();
    await settle();
    assert.equal(pool.stats("other").dialing, 1);
    assert.equal(other.state, "pending");
  });

  test("does not outlive the grace of the pool's close", async (t) => {
    const { pool, clock, caller, inbound } = crossing(t);
    pool.put("peer", inbound, { prefer: "dialed" });
    inbound.peerStreams = 1;
    const closing = outcome(pool.close({ graceMs: 5000 }));
    await clock.advance(4999);
    assert.deepEqual([inbound.closes, closing.state], [0, "pending"]);
    await clock.advance(1);
    assert.deepEqual([inbound.closes, closing.state, caller.state], [1, "resolved", "rejected"]);
  });

  test("does not end what minIdle dials for the key", async (t) => {
    const { pool, dial, caller, inbound } = crossing(t, { minIdle: 1, maxStreams: 1 });
    dial.pending[0]?.arrive();
    await settle();
    assert.deepEqual([caller.state, pool.stats().dialing], ["resolved", 1]);
    pool.put("peer", inbound, { prefer: "dialed" });
    await settle();
    assert.deepEqual([pool.stats().dialing, dial.pending[1]?.signal.aborted], [1, false]);
    inbound.die();
    await settle();
    assert.equal(pool.stats().dialing, 1);
  });

  test("is not closed under the peer's streams where the pool dialed it itself, either", async (t) => {
    const { pool, clock, dial, caller, inbound } = crossing(t);
    const dialed = Object.assign(new ScriptedConn(), { peerStreams: 1 });
    dial.pending[0]?.arrive(dialed);
    await settle();
    caller.value?.release();
    assert.equal(pool.put("peer", inbound, { prefer: "this" }), true);
    await clock.advance(60_000);
    assert.equal(dialed.closes, 0);
    dialed.peerStreams = 0;
    await clock.advance(1000);
    assert.deepEqual([dialed.closes, inbound.closes], [1, 0]);
  });

  test("is not closed under the peer's streams where it is blocked, either", async (t) => {
    const { pool, clock, dial, caller, inbound } = crossing(t);
    const dialed = Object.assign(new ScriptedConn({ maxStreams: 2 }), { peerStreams: 1 });
    dial.pending[0]?.arrive(dialed);
    await settle();
    caller.value?.release();
    dialed.blockedUntil = new Promise(() => {});
    assert.equal(pool.tryAcquire("peer"), undefined);
    assert.equal(pool.put("peer", inbound, { prefer: "this" }), true);
    assert.deepEqual([dialed.closes, pool.stats("peer").draining], [0, 1]);
    dialed.peerStreams = 0;
    await clock.advance(1000);
    assert.deepEqual([dialed.closes, inbound.closes], [1, 0]);
  });
});

for (const peerStreams of [0, 1, Number.NaN]) {
  test(`minIdle is kept where a conn that is put in goes before those of the pool (their peerStreams: ${peerStreams})`, async (t) => {
    const dial = scriptedDial({ maxStreams: 10 });
    const { pool, clock } = pooled(t, { dial, minIdle: 2 });
    (await pool.acquire("peer")).release();
    await settle();
    for (const conn of dial.conns) Object.assign(conn, { peerStreams });
    pool.put("peer", new ScriptedConn({ maxStreams: 10 }), { prefer: "this" });
    await clock.advance(peerStreams === 1 ? 0 : 3_000);
    assert.equal(pool.stats("peer").idle, 2);
    for (const conn of dial.conns) Object.assign(conn, { peerStreams: 0 });
    await clock.advance(1_000);
    assert.ok(dial.conns.slice(0, 2).every(({ closes }) => closes === 1));
  });
}

test("whatever happens, none that is left to its peer is used, closed under the peer's streams, or kept after them", async () => {
  const op = fc.tuple(
    fc.constantFrom("acquire", "release", "arrive", "fail", "put", "begin", "end", "die", "clear", "configure", "wait"),
    fc.nat(9),
  );
  const property = fc.asyncProperty(
    fc.array(op, { minLength: 30, maxLength: 60 }),
    fc.nat(3),
    async (ops, maxConns) => {
      const clock = new FakeClock();
      const dial = manualDial(2);
      const pool = new Pool({ clock, dial, maxConns });
      const conns: (ScriptedConn & { peerStreams: number })[] = [];
      const left = new Set<ScriptedConn & { peerStreams: number }>();
      const callers: Outcome<Lease<ScriptedConn>>[] = [];
      const make = () => {
        const conn = Object.assign(new ScriptedConn({ maxStreams: 2 }), { peerStreams: 0 });
        conns.push(conn);
        return conn;
      };
      for (const [name, n] of ops) {
        const conn = conns[n % Math.max(conns.length, 1)];
        if (name === "acquire") callers.push(outcome(pool.acquire("peer")));
        else if (name === "release") callers[n % Math.max(callers.length, 1)]?.value?.release();
        else if (name === "arrive") dial.pending.shift()?.arrive(make());
        else if (name === "fail") dial.pending.shift()?.fail(new Error("no"));
        else if (name === "put") {
          const inbound = make();
          const isKept = pool.put("peer", inbound, { prefer: n < 7 ? "dialed" : "this" });
          if (!isKept && inbound.closes === 0) left.add(inbound);
        } else if (name === "begin" && conn?.dead === false) conn.peerStreams++;
        else if (name === "end" && conn !== undefined) conn.peerStreams = 0;
        else if (name === "die") conn?.die();
        else if (name === "clear") pool.clear();
        else if (name === "configure") pool.configure({ maxConns: n % 4 });
        else if (name === "wait") await clock.advance(n * 300);
        await settle();
        for (const one of left) assert.ok(one.closes === 0 || one.peerStreams === 0, "closed under its peer's streams");
        for (const { value } of callers)
          assert.ok(
            [...left].every((one) => one !== value?.conn),
            "used",
          );
        const { open, idle, leased, draining } = pool.stats();
        assert.equal(open, idle + leased + draining);
      }
      for (const conn of conns) conn.peerStreams = 0;
      await clock.advance(2000);
      for (const one of left) assert.ok(one.dead, "kept");
      for (const { value } of callers) value?.release();
      const closing = outcome(pool.close({ graceMs: 0 }));
      await clock.advance(5000);
      assert.deepEqual([closing.state, clock.timers], ["resolved", 0]);
    },
  );
  await fc.assert(property, { numRuns: 200 });
});
