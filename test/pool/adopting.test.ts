import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { manualDial, ScriptedConn } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
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
