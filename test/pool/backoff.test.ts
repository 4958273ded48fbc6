import assert from "node:assert/strict";
import { test } from "node:test";
import { DialError } from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, refusal, rejection, states } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

const refused = () => new Error("ECONNREFUSED");
test("dial retries pause exponentially with full jitter, up to a cap, reset by a success", async (t) => {
  const keys = Array.from({ length: 300 }, (_, i) => `k${i}`);
  const { pool, clock } = pooled(t, { backoff: { baseMs: 1000, maxMs: 4000 } });
  const dial = manualDial();
  const waiting = keys.map((key) => pool.acquire(key, { dial, waitForReady: true }));
  let failed = 0;
  const failAll = async () => {
    const last = dial.count;
    for (; failed < last; failed++) dial.pending[failed]?.fail(refused());
    await settle();
    return last;
  };
  for (const longest of [1000, 2000, 4000, 4000]) {
    const before = await failAll();
    await clock.advance(longest / 2);
    const half = dial.count - before;
    assert.ok(half > 90 && half < 210, `${half} of 300 dialed again within half of ${longest} ms`);
    await clock.advance(longest / 2);
    assert.equal(dial.count - before, 300); // none later than the bound, none twice
  }
  for (const pending of dial.pending.slice(-300)) pending.arrive();
  await settle();
  const again = keys.map((key) => pool.acquire(key, { dial, waitForReady: true })); // the conns are full
  await settle();
  failed = dial.count - 300;
  await failAll();
  const before = dial.count;
  await clock.advance(1000);
  assert.equal(dial.count - before, 300); // the first pause again
  for (const pending of dial.pending.slice(-300)) pending.arrive();
  await Promise.all([...waiting, ...again]);
});

test("`factor` and `jitter` make other pauses: so many times as long each time, so much more or less", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 1000, maxMs: 2000, factor: 1.6, jitter: 0.2 } });
  const dial = manualDial();
  const waiting = Array.from({ length: 100 }, (_, i) => outcome(pool.acquire(`k${i}`, { dial, waitForReady: true })));
  await settle();
  for (const pauseMs of [1000, 1600, 2000, 2000]) {
    const before = dial.count;
    for (const pending of dial.pending.slice(-100)) pending.fail(refused());
    await settle();
    await clock.advance(0.8 * pauseMs - 1);
    assert.equal(dial.count, before);
    await clock.advance(0.2 * pauseMs + 1);
    assert.ok(dial.count > before && dial.count < before + 100);
    await clock.advance(0.2 * pauseMs);
    assert.equal(dial.count, before + 100);
  }
  for (const pending of dial.pending.slice(-100)) pending.arrive();
  await settle();
  assert.ok(waiting.every(({ state }) => state === "resolved"));
});

test("waitForReady outlives failed dials, until its time is up", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 100 } });
  const dial = manualDial();
  const waiting = pool.acquire("k", { dial, waitForReady: true, timeoutMs: 10_000 });
  for (let i = 0; i < 10; i++) {
    dial.pending[i]?.fail(refused());
    await clock.advance(100);
    assert.equal(dial.count, i + 2);
  }
  const conn = dial.pending[10]?.arrive();
  const lease = await waiting;
  assert.equal(lease.conn, conn);

  const late = rejection(pool.acquire("k", { dial, waitForReady: true, timeoutMs: 50 }));
  await settle();
  const cause = refused();
  dial.pending[11]?.fail(cause);
  await clock.advance(50);
  const error = await late;
  assert.equal(error.name, "WaitTimeoutError");
  assert.ok(error.cause instanceof Error);
  assert.equal(error.cause.cause, cause); // the last dial failure
});

test("a newcomer who is refused in a pause leaves no dial behind that only it could want", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const conn = new ScriptedConn({ maxStreams: 1 });
  pool.put("k", conn);
  const held = pool.tryAcquire("k");
  const waiting = [outcome(pool.acquire("k")), outcome(pool.acquire("k"))];
  dial.pending[0]?.fail(refused());
  await settle();
  conn.maxStreams = 2; // it says nothing: whoever comes next finds out
  const newcomer = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual(states(...waiting, newcomer), ["rejected", "resolved", "rejected"]);
  assert.deepEqual([dial.count, dial.pending[1]?.signal.aborted], [2, true]);
  held?.release();
  waiting[1]?.value?.release();
});

test("while a backoff runs, newcomers get the last error at once, and those with waitForReady wait", async (t) => {
  const dial = manualDial();
  const { pool, clock } = pooled(t, { dial, dialTimeoutMs: 0, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const first = outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  assert.deepEqual([...pool.keys()], ["k"], "a running backoff is remembered");
  const newcomer = await refusal(pool.acquire("k"));
  assert.ok(newcomer instanceof DialError && first.error instanceof DialError);
  assert.equal(newcomer.cause, first.error.cause);
  assert.match(newcomer.message, /refused; not dialed again for [\d,]+ ms \(backoff\)/);
  assert.equal(newcomer.heldBackBy?.by, "backoff");
  assert.equal(pool.tryAcquire("k"), undefined);
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  await settle();
  assert.equal(patient.state, "pending");
  assert.equal(dial.count, 1);
  await clock.advance(1e6 + 1);
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(patient.state, "resolved");
});

test("while a backoff runs, newcomers get the last error at once, though others wait and the key is at its limit", async (t) => {
  const dial = manualDial();
  const { pool } = pooled(t, { dial, maxKeyConns: 1, dialTimeoutMs: 0, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const first = outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  pool.put("k", new ScriptedConn());
  assert.notEqual(pool.tryAcquire("k"), undefined);
  const patient = [1, 2].map(() => outcome(pool.acquire("k", { waitForReady: true })));
  const newcomer = await refusal(pool.acquire("k"));
  assert.ok(newcomer instanceof DialError && first.error instanceof DialError);
  assert.equal(newcomer.cause, first.error.cause);
  await settle();
  assert.deepEqual(states(...patient), ["pending", "pending"]);
});

test("a backoff is remembered for maxMs after it has run out, and then leaves no trace", async (t) => {
  const backoff = { baseMs: 1000, maxMs: 1000 };
  const { pool, clock } = pooled(t, { dial: () => Promise.reject(new Error("no")), backoff });
  await refusal(pool.acquire("k"));
  assert.deepEqual([...pool.keys()], ["k"]);
  await clock.advance(2001);
  assert.deepEqual([...pool.keys()], []);
  assert.equal(clock.timers, 0);
});

test("a success ends the backoff that an earlier dial's failure began", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const first = outcome(pool.acquire("k"));
  const second = outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  dial.pending[1]?.arrive();
  await settle();
  assert.deepEqual(states(first, second), ["rejected", "resolved"]);
  const third = outcome(pool.acquire("k"));
  assert.equal(dial.count, 3, "the peer answers: it is dialed at once");
  dial.pending[2]?.arrive();
  await settle();
  assert.equal(third.state, "resolved");
});

test("a conn that comes back serves who waits through a backoff, and newcomers", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const held = outcome(pool.acquire("k"));
  dial.pending[0]?.arrive();
  await settle();
  outcome(pool.acquire("k"));
  dial.pending[1]?.fail(new Error("refused"));
  await settle();
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  held.value?.release();
  await settle();
  assert.equal(patient.state, "resolved");
  patient.value?.release();
  assert.ok(pool.tryAcquire("k") !== undefined);
});

test("nobody waits any longer after maxAttempts failed dials in a row", async (t) => {
  const dial = manualDial();
  const { pool, clock } = pooled(t, { dial, backoff: { baseMs: 10, maxMs: 10, maxAttempts: 3 } });
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  for (let attempt = 0; attempt < 3; attempt++) {
    assert.equal(patient.state, "pending");
    dial.pending[attempt]?.fail(new Error(`attempt ${attempt}`));
    await settle();
    await clock.advance(11);
  }
  assert.ok(patient.error instanceof DialError);
  assert.deepEqual([patient.state, dial.count, pool.stats().waiting], ["rejected", 3, 0]);
});

test("maxAttempts counts on while callers come back", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 10, maxMs: 10, maxAttempts: 3 } });
  const dial = manualDial();
  for (let i = 0; i < 2; i++) {
    const failed = rejection(pool.acquire("k", { dial }));
    dial.pending[i]?.fail(refused());
    await failed;
    await clock.advance(10);
  }
  const patient = rejection(pool.acquire("k", { dial, waitForReady: true }));
  dial.pending[2]?.fail(refused());
  assert.equal((await patient).name, "DialError");
});

test("retries stop when the callers' time is up", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 100 } });
  const dial = manualDial();
  const caller = new AbortController();
  const waiting = [
    rejection(pool.acquire("k", { dial, waitForReady: true, timeoutMs: 150 })),
    rejection(pool.acquire("k", { dial, waitForReady: true, signal: caller.signal })),
  ];
  dial.pending[0]?.fail(refused());
  await clock.advance(100);
  assert.equal(dial.count, 2);
  dial.pending[1]?.fail(refused());
  await settle();
  caller.abort(new Error("gone"));
  await clock.advance(50);
  await Promise.all(waiting);
  const { count } = dial;
  await clock.advance(10_000);
  assert.equal(dial.count, count);
  assert.deepEqual([...pool.keys()], []); // the backoff has ended, and left nothing
});

test("pauses between dials hold up no other key", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 60_000, maxMs: 60_000 }, maxConns: 1 });
  const bad = manualDial();
  const good = scriptedDial();
  const waiting = outcome(pool.acquire("bad", { dial: bad, waitForReady: true }));
  bad.pending[0]?.fail(refused());
  await settle();
  for (let i = 0; i < 3; i++) {
    const lease = await pool.acquire(`good ${i}`, { dial: good });
    lease.release();
  }
  assert.deepEqual([good.count, waiting.state, clock.now()], [3, "pending", 1000]);
});

test("the pauses grow for callers who fail fast and come back, too: a dead peer is not dialed at the first pace", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 1600 } });
  const dial = manualDial();
  let failed = 0;
  const ask = async (ms: number) => {
    for (const end = clock.now() + ms; clock.now() < end; ) {
      const asked = outcome(pool.acquire("k", { dial }));
      await settle();
      for (; failed < dial.count; failed++) dial.pending[failed]?.fail(refused());
      await clock.advance(5);
      assert.equal(asked.state, "rejected");
    }
  };
  await ask(20_000);
  assert.ok(dial.count > 12 && dial.count < 60, `${dial.count} dials in 20 s`); // 29 on average; at the first pace 400
  await clock.advance(5000); // nobody asks: what was is forgotten
  assert.deepEqual([...pool.keys()], []);
  const { count } = dial;
  await ask(101);
  assert.ok(dial.count - count >= 2); // the first pace again
});
