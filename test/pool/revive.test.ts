import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled, rejection } from "../support/pooled.ts";

const refused = () => new Error("ECONNREFUSED");

test("row 21: waitForReady outlives failed dials, until its time is up", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 100 } });
  const dial = scriptedDial({}, { manual: true });
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

test("row 21: without waitForReady the first failed dial ends the wait", async (t) => {
  const { pool, clock } = pooled(t);
  const dial = scriptedDial({}, { manual: true });
  const impatient = pool.acquire("k", { dial });
  const patient = pool.acquire("k", { dial, waitForReady: true });
  dial.pending[0]?.fail(refused());
  assert.equal((await rejection(impatient)).name, "DialError");
  await clock.advance(50);
  assert.equal(dial.count, 2); // for the patient one, who would also wait if nobody had set a backoff
  dial.pending[1]?.arrive();
  (await patient).release();
});

test("row 21: while a backoff runs, newcomers without waitForReady get the last dial error at once", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 1000, maxMs: 1000 } });
  const dial = scriptedDial({}, { manual: true });
  const first = rejection(pool.acquire("k", { dial }));
  dial.pending[0]?.fail(refused());
  const error = await first;
  assert.equal(await rejection(pool.acquire("k", { dial })), error);
  assert.equal(dial.count, 1);
  const patient = pool.acquire("k", { dial, waitForReady: true });
  await clock.advance(1000);
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive();
  (await patient).release();
});

test("row 21: a dial may say never again (final: true): then all fail at once, waitForReady or not", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 1000, maxMs: 1000 } });
  const dial = scriptedDial({}, { manual: true });
  const asked = [true, false, true].map((waitForReady) => rejection(pool.acquire("k", { dial, waitForReady })));
  const cause = Object.assign(new Error("certificate refused"), { final: true });
  dial.pending[0]?.fail(cause);
  for (const one of asked) {
    const error = await one;
    assert.deepEqual([error.name, error.cause, "final" in error && error.final], ["DialError", cause, true]);
  }
  assert.equal(clock.now(), 1000);
  assert.equal(dial.count, 1);
});

test("row 21: at most maxAttempts dials in a row, then its waiters fail", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 100, maxAttempts: 3 } });
  const dial = scriptedDial({}, { manual: true });
  const waiting = rejection(pool.acquire("k", { dial, waitForReady: true }));
  for (let i = 0; i < 3; i++) {
    dial.pending[i]?.fail(refused());
    await clock.advance(100);
  }
  assert.equal((await waiting).name, "DialError");
  assert.equal(dial.count, 3);
  assert.equal(pool.stats().waiting, 0);
});

test("row 32: dial retries pause exponentially with full jitter, up to a cap, reset by a success", async (t) => {
  const keys = Array.from({ length: 300 }, (_, i) => `k${i}`);
  const { pool, clock } = pooled(t, { backoff: { baseMs: 1000, maxMs: 4000 } });
  const dial = scriptedDial({}, { manual: true });
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

test("row 32: retries stop when the callers' time is up", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 100 } });
  const dial = scriptedDial({}, { manual: true });
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

test("row 32: and never hold up other keys", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 60_000, maxMs: 60_000 }, maxConns: 1 });
  const bad = scriptedDial({}, { manual: true });
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

test("row 32: without a backoff, a dial that fails at once for ever starves nobody", async (t) => {
  const { pool, clock } = pooled(t);
  let dials = 0;
  const dial = () => {
    dials++;
    throw refused();
  };
  const waiting = rejection(pool.acquire("k", { dial, waitForReady: true, timeoutMs: 10 }));
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(dials < 20, `${dials} dials in 5 turns of the event loop`);
  await clock.advance(10);
  assert.equal((await waiting).name, "WaitTimeoutError");
});

test("row 32: the pauses grow for callers who fail fast and come back, too: a dead peer is not dialed at the first pace", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 100, maxMs: 1600 } });
  const dial = scriptedDial({}, { manual: true });
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

test("row 32: maxAttempts counts on while callers come back", async (t) => {
  const { pool, clock } = pooled(t, { backoff: { baseMs: 10, maxMs: 10, maxAttempts: 3 } });
  const dial = scriptedDial({}, { manual: true });
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
