import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { type Deferred, deferred, manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { pooled, useOnce } from "../support/pool.ts";

nothingUnheard();

/** The earliest end of a lifetime, as a part of it: the jitter takes a tenth at most. */
const earliest = 0.9;

/** A pool with one conn, dialed to be ready, whose lifetime ends 9 to 10 seconds from now. */
async function aging(t: TestContext) {
  const dial = manualDial();
  const { pool, clock } = pooled(t, { dial, minIdle: 1, maxLifetimeMs: 10_000, dialTimeoutMs: 0 });
  const first = new ScriptedConn();
  pool.put("k", first);
  await useOnce(pool);
  first.die();
  await settle();
  const old = dial.pending[0]?.arrive();
  await settle();
  const started = clock.now();
  while (dial.count === 1) await clock.advance(1);
  const ageMs = clock.now() - started;
  assert.ok(ageMs >= 9000 && ageMs <= 10_000, `replaced after ${ageMs} ms`);
  return { dial, pool, clock, old };
}

test("an idle conn past its lifetime is closed and not handed out", async (t) => {
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

test("a lifetime that ends never cuts a running RPC: the conn drains", async (t) => {
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

test("calls that wait for an expiring conn move to another eligible one, and no call fails", async (t) => {
  const { pool, clock, lease } = pooled(t, { maxKeyConns: 1, maxLifetimeMs: 1000 });
  const dial = scriptedDial({ maxStreams: 2 });
  const held = [await lease("k", dial), await lease("k", dial)];
  const waiting = [lease("k", dial), lease("k", dial), lease("k", dial)];
  await settle();
  await clock.advance(1000);
  const [first, second] = [await waiting[0], await waiting[1]];
  assert.deepEqual([first?.conn, second?.conn], [dial.conns[1], dial.conns[1]]);
  for (const one of held) one.release(); // those on the old one finished there
  assert.equal(dial.conns[0]?.closes, 1);
  first?.release();
  assert.equal((await waiting[2])?.conn, dial.conns[1]);
  assert.equal(pool.stats().dials, 2);
});

test("a lifetime is at most a tenth early and a quarter late, and never cuts what runs", async () => {
  const property = fc.asyncProperty(fc.integer({ min: 1, max: 100_000 }), async (lifeMs) => {
    const clock = new FakeClock();
    const pool = new Pool<string, ScriptedConn>({ clock, maxLifetimeMs: lifeMs });
    const idle = new ScriptedConn();
    const used = new ScriptedConn();
    pool.put("idle", idle);
    pool.put("used", used);
    const lease = pool.tryAcquire("used");
    await clock.advance(lifeMs * 0.9 - 0.01);
    assert.equal(idle.closes, 0);
    await clock.advance(lifeMs * 0.35 + 1);
    assert.deepEqual([idle.closes, used.closes], [1, 0]);
    assert.equal(pool.tryAcquire("used"), undefined, "it drains");
    lease?.release();
    assert.equal(used.closes, 1);
    assert.equal(clock.timers, 0);
  });
  await fc.assert(property, { numRuns: 50 });
});

test("the lifetime is jittered, a tenth at most and only earlier, so that conns of one age do not go together", async (t) => {
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

test("a conn's own maxLifetimeMs overrides the pool's, either way", async (t) => {
  const { pool, clock } = pooled(t, { maxLifetimeMs: 1000 });
  const [shorter, pools, longer] = [{ maxLifetimeMs: 100 }, {}, { maxLifetimeMs: 10_000 }].map(
    (script) => new ScriptedConn(script),
  );
  assert.ok(shorter && pools && longer);
  for (const conn of [shorter, pools, longer]) pool.put("k", conn);
  const closes = () => [shorter.closes, pools.closes, longer.closes];
  await clock.advance(89);
  assert.deepEqual(closes(), [0, 0, 0]);
  await clock.advance(11);
  assert.deepEqual(closes(), [1, 0, 0]);
  await clock.advance(900);
  assert.deepEqual(closes(), [1, 1, 0]);
  await clock.advance(7999);
  assert.deepEqual(closes(), [1, 1, 0]);
  await clock.advance(1001);
  assert.deepEqual(closes(), [1, 1, 1]);
});

test("with minIdle, a conn whose lifetime is over stays until its replacement has come: make before break", async (t) => {
  const { dial, pool, old } = await aging(t);
  assert.equal(old?.closes, 0);
  const fresh = dial.pending[1]?.arrive();
  await settle();
  assert.deepEqual([old?.closes, fresh?.closes, pool.stats().idle, pool.stats().closed.retired], [1, 0, 1, 1]);
  assert.equal(dial.count, 2);
});

test("a conn whose replacement does not come goes a second after its lifetime", async (t) => {
  const { dial, clock, old } = await aging(t);
  await clock.advance(999);
  assert.equal(old?.closes, 0);
  await clock.advance(1);
  assert.deepEqual([old?.closes, dial.count], [1, 2]);
});

test("a replacement that comes when the old conn has gone already is kept", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial, maxLifetimeMs: 10_000, lifetimeJitter: 0 });
  const lease = pool.acquire("k");
  dial.pending[0]?.arrive();
  (await lease).release();
  await clock.advance(11_000);
  assert.deepEqual([pool.stats().open, pool.stats().dialing, pool.stats().closed.retired], [0, 1, 1]);
  dial.pending[1]?.arrive();
  await settle();
  assert.deepEqual([pool.stats().idle, pool.stats().abandoned], [1, 0]);
});

test("a conn goes without a replacement where the limits leave no room for two", async (t) => {
  for (const limits of [{ minIdle: 1, maxKeyConns: 1 }, { minIdle: 1, maxConns: 1 }, { maxConns: 1 }]) {
    const dial = scriptedDial();
    const { pool, clock } = pooled(t, { dial, maxLifetimeMs: 10_000, ...limits });
    await useOnce(pool);
    await clock.advance(10_000);
    assert.deepEqual([dial.conns[0]?.closes, dial.count], [1, limits.minIdle === undefined ? 1 : 2]);
  }
});

test("after maxUses streams a conn drains, and is closed when they have ended", async (t) => {
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

test("clear with withinMs replaces conns one by one: the old ones serve until new ones are there, and no caller waits", async (t) => {
  const dial = scriptedDial({}, { manual: true });
  const { pool, clock } = pooled(t, { dial });
  const arrive = async () => {
    for (const pending of dial.pending.splice(0)) pending.arrive();
    await settle();
  };
  const leases = [0, 1, 2].map(() => pool.acquire("k"));
  for (const _ of leases) {
    await settle();
    await arrive();
  }
  for (const lease of leases) (await lease).release();
  const old = [...dial.conns];
  pool.clear("k", { withinMs: 10_000 });
  assert.deepEqual([pool.stats().idle, dial.count], [3, 3]);
  for (let second = 0; second < 12; second++) {
    await clock.advance(1000);
    const lease = pool.tryAcquire("k");
    assert.ok(lease !== undefined, `nobody waits in second ${second}`);
    lease.release();
    await arrive();
  }
  assert.deepEqual(
    old.map(({ closes }) => closes),
    [1, 1, 1],
  );
  assert.deepEqual([dial.count, pool.stats().idle, pool.stats().closed.retired], [6, 3, 3]);
});

test("clear with withinMs does not take back what was out with a caller, and lengthens no life", async (t) => {
  const { pool, clock } = pooled(t, { dial: scriptedDial(), maxLifetimeMs: 1000, lifetimeJitter: 0 });
  await useOnce(pool);
  const taken = pool.take("k");
  assert.ok(taken !== undefined);
  await useOnce(pool);
  pool.clear("k", { withinMs: 1e9 });
  assert.equal(pool.put("k", taken), false);
  await clock.advance(1000);
  assert.deepEqual([pool.stats().closed.retired, pool.stats().dials], [1, 3]);
  assert.throws(() => pool.clear("k", { withinMs: -1 }), { code: "ERR_POOL_ARGUMENT" });
});

test("a conn that is dialed before anybody waits is primed first; one that a caller waits for is not", async (t) => {
  const primed: unknown[] = [];
  const answer = deferred();
  const prime = (conn: unknown, { signal }: { signal: AbortSignal }) => {
    assert.equal(signal.aborted, false);
    primed.push(conn);
    return answer.promise;
  };
  const dial = scriptedDial();
  const { pool, clock } = pooled(t, { dial, prime, maxLifetimeMs: 1000, lifetimeJitter: 0 });
  await useOnce(pool);
  assert.deepEqual(primed, []);
  await clock.advance(1000);
  assert.deepEqual([primed, dial.conns[0]?.closes], [[dial.conns[1]], 0]);
  answer.resolve();
  await settle();
  assert.deepEqual([dial.conns[0]?.closes, pool.stats().idle], [1, 1]);
});

test("a conn whose priming fails, or is not done in time, is closed, and its dial has failed", async (t) => {
  for (const prime of [() => Promise.reject(new Error("cold")), () => new Promise(() => {})]) {
    const dial = scriptedDial();
    const { pool, clock } = pooled(t, { dial, prime, dialTimeoutMs: 500 });
    const warm = outcome(pool.warm("k"));
    await clock.advance(500);
    assert.equal(warm.state, "rejected");
    assert.deepEqual([dial.conns[0]?.closes, pool.stats().dialErrors, pool.stats().open], [1, 1, 0]);
  }
});

test("a conn in use whose lifetime ends is replaced first: one dial, and no caller waits", async (t) => {
  const conns: ScriptedConn[] = [];
  const arriving: Deferred<void>[] = [];
  let manual = false;
  const dial = async () => {
    const conn = new ScriptedConn();
    if (manual) {
      const arrival = deferred();
      arriving.push(arrival);
      await arrival.promise;
    }
    conns.push(conn);
    return conn;
  };
  const { pool, clock } = pooled(t, { dial, maxLifetimeMs: 10_000, lifetimeJitter: 0 });
  (await pool.acquire("k")).release();
  manual = true;
  await clock.advance(10_000);
  assert.deepEqual([arriving.length, conns[0]?.closes], [1, 0]);
  (await pool.acquire("k")).release(); // the old one serves on
  arriving[0]?.resolve();
  await settle();
  assert.deepEqual([conns[0]?.closes, pool.stats().closed.retired, pool.stats().idle], [1, 1, 1]);
  const next = await pool.acquire("k");
  assert.equal(next.conn, conns[1]);
  next.release();
  assert.equal(pool.stats().dials, 2);
});

test("a conn that nobody used in its lifetime is not replaced", async (t) => {
  const { pool, clock } = pooled(t, { dial: () => new ScriptedConn(), maxLifetimeMs: 1000 });
  pool.put("k", new ScriptedConn());
  await clock.advance(1000);
  assert.deepEqual([pool.stats().dials, pool.stats().open], [0, 0]);
});

/** A key that is full of conns whose lifetimes end at once, 10 s from now; their replacements take 100 ms. */
async function fullOfOld(t: TestContext, maxKeyConns: number) {
  const conns: ScriptedConn[] = [];
  const dial = async () => {
    if (conns.length >= maxKeyConns) await new Promise((resolve) => clock.setTimeout(() => resolve(undefined), 100));
    const conn = new ScriptedConn();
    conns.push(conn);
    return conn;
  };
  const { pool, clock } = pooled(t, { dial, maxLifetimeMs: 10_000, lifetimeJitter: 0, maxKeyConns });
  const leases = await Promise.all(conns.concat(Array(maxKeyConns).fill(undefined)).map(() => pool.acquire("k")));
  for (const lease of leases) lease.release();
  return { pool, clock, conns };
}

test("where maxKeyConns leaves no room for the replacement, it is dialed as soon as the old conn goes, not when somebody asks", async (t) => {
  const { pool, clock, conns } = await fullOfOld(t, 1);
  await clock.advance(10_000);
  assert.deepEqual([conns[0]?.closes, pool.stats().dials, pool.stats().dialing], [1, 2, 1]);
  const early = outcome(pool.acquire("k")); // it waits for the rest of that dial
  await clock.advance(100);
  assert.equal(early.value?.conn, conns[1]);
  early.value?.release();
  assert.deepEqual([pool.stats().dials, pool.stats().open], [2, 1]);
});

test("a conn in use gives its place under maxKeyConns to its replacement while it drains", async (t) => {
  const { pool, clock, conns } = await fullOfOld(t, 1);
  const lease = await pool.acquire("k");
  await clock.advance(10_100);
  assert.deepEqual([conns[0]?.closes, pool.stats().draining, pool.stats().idle], [0, 1, 1]);
  lease.release();
  assert.deepEqual([conns[0]?.closes, pool.stats().closed.retired, pool.stats().dials], [1, 1, 2]);
});

test("a full key rotates one conn at a time, and a caller waits for none of the dials while others are free", async (t) => {
  const { pool, clock, conns } = await fullOfOld(t, 3);
  await clock.advance(9_999);
  let most = 0;
  for (let ms = 0; ms < 400; ms += 10) {
    await clock.advance(10);
    const lease = pool.tryAcquire("k");
    assert.notEqual(lease, undefined, `${ms} ms after the end of their lifetimes`);
    lease?.release();
    most = Math.max(most, pool.stats().dialing);
  }
  assert.deepEqual([most, pool.stats().dials, pool.stats().closed.retired], [1, 6, 3]);
  assert.deepEqual(
    conns.map(({ closes }) => closes),
    [1, 1, 1, 0, 0, 0],
  );
});

test("a conn waits for its turn to be replaced for a second at most", async (t) => {
  const { pool, clock, conns } = await fullOfOld(t, 20);
  await clock.advance(11_000);
  assert.ok(conns.slice(0, 20).every(({ closes }) => closes === 1));
  await clock.advance(100);
  assert.deepEqual([pool.stats().open, pool.stats().dials], [20, 40]);
});

test("a conn that waits for its turn to be replaced stays where its lifetime is lifted, and where other limits change", async (t) => {
  const { pool, clock, conns } = await fullOfOld(t, 2);
  await clock.advance(10_000); // the first is being replaced, the second waits for that
  pool.configure({ maxWaiters: 7 });
  await clock.advance(10);
  assert.deepEqual([conns[1]?.closes, pool.stats().idle], [0, 1]);
  pool.configure({ maxLifetimeMs: 0 });
  await clock.advance(60_000);
  assert.deepEqual([conns[1]?.closes, pool.stats().open, pool.stats().dials], [0, 2, 3]);
});
