import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { pooled } from "../support/pooled.ts";

/** The jitter: at most so much earlier. */
const earliest = 0.9;

test("row 13b: the max lifetime is kept on take: an idle conn past it is not handed out", async (t) => {
  const { pool, clock, lease } = pooled(t, { maxLifetimeMs: 1000 });
  const dial = scriptedDial();
  (await lease("k", dial)).release();
  await clock.advance(1000 * earliest - 1);
  (await lease("k", dial)).release();
  assert.equal(dial.count, 1);
  await clock.advance(1000);
  assert.equal(dial.conns[0]?.closes, 1); // it did not wait for a take
  assert.equal(pool.stats().closed.retired, 1);
  (await lease("k", dial)).release();
  assert.equal(dial.count, 2);
});

test("row 13b: and on give-back, never cutting a running RPC: the conn drains", async (t) => {
  const { pool, clock, lease } = pooled(t, { maxLifetimeMs: 1000 });
  const dial = scriptedDial({ maxStreams: 2 });
  const [one, two] = [await lease("k", dial), await lease("k", dial)];
  await clock.advance(5000);
  const conn = dial.conns[0];
  assert.equal(conn?.closes, 0);
  assert.deepEqual([pool.stats().draining, pool.stats().streams], [1, 2]);
  one.release();
  const three = await lease("k", dial);
  assert.equal(three.conn, dial.conns[1]); // a draining conn begins no stream, though it has a slot
  assert.equal(conn?.closes, 0);
  two.release();
  assert.equal(conn?.closes, 1);
});

test("row 32: the lifetime is jittered, a tenth at most and only earlier, so that conns of one age do not go together", async (t) => {
  const { pool, clock } = pooled(t, { maxLifetimeMs: 100_000 });
  for (let i = 0; i < 200; i++) pool.put("k", new ScriptedConn());
  const open = () => pool.stats().open;
  await clock.advance(100_000 * earliest - 1);
  assert.equal(open(), 200);
  await clock.advance(5000);
  assert.ok(open() > 20 && open() < 180, `${open()} of 200 live halfway through`);
  await clock.advance(5001);
  assert.equal(open(), 0);
});

test("row 21: a conn's own maxLifetimeMs overrides the pool's, either way", async (t) => {
  const { pool, clock } = pooled(t, { maxLifetimeMs: 1000 });
  const [shorter, pools, longer] = [{ maxLifetimeMs: 100 }, {}, { maxLifetimeMs: 10_000 }].map(
    (script) => new ScriptedConn(script),
  );
  assert.ok(shorter && pools && longer);
  for (const conn of [shorter, pools, longer]) pool.put("k", conn);
  const closes = () => [shorter.closes, pools.closes, longer.closes];
  await clock.advance(89);
  assert.deepEqual(closes(), [0, 0, 0]);
  await clock.advance(3);
  assert.deepEqual(closes(), [1, 0, 0]);
  await clock.advance(900);
  assert.deepEqual(closes(), [1, 1, 0]);
  await clock.advance(8000);
  assert.deepEqual(closes(), [1, 1, 0]);
  await clock.advance(1000);
  assert.deepEqual(closes(), [1, 1, 1]);
});

test("row 27: after maxUses streams a conn drains, and is closed when they have ended", async (t) => {
  const { pool, lease } = pooled(t, { maxUses: 3 });
  const dial = scriptedDial({ maxStreams: 2 });
  const [one, two] = [await lease("k", dial), await lease("k", dial)];
  two.release();
  const three = await lease("k", dial);
  assert.equal(dial.count, 1);
  assert.equal(pool.stats().draining, 1);
  const four = await lease("k", dial);
  assert.equal(dial.count, 2); // the first is spent
  three.release();
  assert.equal(dial.conns[0]?.closes, 0); // one stream still runs
  one.release();
  assert.equal(dial.conns[0]?.closes, 1);
  assert.equal(pool.stats().closed.retired, 1);
  four.release();
});

test("row 21: a conn that died is dialed again for a waiter, and so is one that was retired", async (t) => {
  const { pool, clock, lease } = pooled(t, { maxKeyConns: 1, maxLifetimeMs: 1000 });
  const dial = scriptedDial();
  const first = await lease("k", dial);
  const second = lease("k", dial);
  dial.conns[0]?.die();
  assert.equal((await second).conn, dial.conns[1]); // the dead one's place is free
  const third = lease("k", dial);
  await clock.advance(1000);
  assert.equal((await third).conn, dial.conns[2]); // a draining conn does not count towards maxKeyConns
  assert.deepEqual([dial.count, dial.conns[1]?.closes], [3, 0]);
  first.release();
  (await second).release();
  await settle();
  assert.equal(dial.conns[1]?.closes, 1);
  assert.equal(pool.stats().open, 1);
});
