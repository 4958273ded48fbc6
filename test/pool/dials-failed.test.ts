import assert from "node:assert/strict";
import { test } from "node:test";
import { DialError, DialTimeoutError } from "../../src/errors.ts";
import { settle, turns } from "../support/clock.ts";
import { manualDial, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, refusal, rejection, soon, states } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

function final(message: string): Error {
  return Object.assign(new Error(message), { final: true });
}

test("a failed dial rejects those that it was to serve, with its error as the cause, and nobody else", async (t) => {
  const dial = manualDial(2);
  const { pool } = pooled(t, { dial });
  const [a, b, c, d] = [1, 2, 3, 4].map(() => outcome(pool.acquire("k")));
  assert.ok(a && b && c && d);
  const cause = new Error("refused");
  dial.pending[0]?.fail(cause);
  await settle();
  assert.deepEqual(states(a, b, c, d), ["rejected", "rejected", "pending", "pending"]);
  assert.ok(a.error instanceof DialError && a.error.cause === cause && !a.error.final);
  dial.pending[1]?.arrive();
  await settle();
  assert.deepEqual(states(c, d), ["resolved", "resolved"]);
  assert.equal(dial.count, 2);
});

test("when the younger of two dials fails, the waiters of the older stay", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial });
  const a = outcome(pool.acquire("k"));
  const b = outcome(pool.acquire("k"));
  dial.pending[1]?.fail(new Error("refused"));
  await settle();
  assert.deepEqual(states(a, b), ["pending", "rejected"]);
});

test("where the slots are unknown, a failed dial rejects all of its key", async (t) => {
  const dial = manualDial();
  const { pool } = pooled(t, { dial });
  const all = Array.from({ length: 20 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 1);
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  assert.ok(all.every(({ state }) => state === "rejected"));
  assert.equal(dial.count, 1);
  assert.deepEqual([...pool.keys()], [], "and nothing is left of the key");
});

test("those with waitForReady stay for the next dial, until their time is up; the others are rejected", async (t) => {
  const dial = manualDial();
  const { pool, clock } = pooled(t, { dial });
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  const limited = outcome(pool.acquire("k", { waitForReady: true, timeoutMs: 100 }));
  const other = outcome(pool.acquire("k"));
  const cause = new Error("first");
  dial.pending[0]?.fail(cause);
  await settle();
  assert.deepEqual(states(patient, limited, other), ["pending", "pending", "rejected"]);
  assert.ok(other.error instanceof DialError);
  await clock.advance(50);
  assert.equal(dial.count, 2);
  await clock.advance(150);
  assert.deepEqual(states(patient, limited), ["pending", "rejected"]);
  const { error } = limited;
  assert.ok(error instanceof Error && error.cause instanceof DialError && error.cause.cause === cause);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(patient.state, "resolved");
});

test("a dial function that brings no conn is wrong: nobody waits for its next dial", async (t) => {
  const { pool } = pooled(t, {});
  const dial = () => undefined as never;
  const error = await rejection(pool.acquire("k", { dial, waitForReady: true }));
  assert.match(error.message, /to be a conn, got undefined; .*: correct what it is dialed with/);
  assert.equal(pool.stats().waiting, 0);
});

test("an error with `final: true` ends the wait of all whom the dial was to serve, waitForReady or not", async (t) => {
  for (const backoff of [undefined, { baseMs: 1000, maxMs: 1000 }]) {
    const { pool, clock } = pooled(t, { backoff });
    const dial = manualDial();
    const asked = [true, false, true].map((waitForReady) => rejection(pool.acquire("k", { dial, waitForReady })));
    const cause = final("certificate refused");
    dial.pending[0]?.fail(cause);
    for (const one of asked) {
      const error = await one;
      assert.ok(error instanceof DialError);
      assert.deepEqual([error.name, error.cause, error.final], ["DialError", cause, true]);
    }
    assert.equal(clock.now(), 1000);
    assert.equal(dial.count, 1);
  }
});

test("a final error ends only the waiters that its dial was to serve", async (t) => {
  const { pool } = pooled(t, { maxStreams: 1, dial: manualDial() });
  const bad = manualDial();
  const good = manualDial();
  const first = outcome(pool.acquire("k", { dial: bad, waitForReady: true }));
  const second = outcome(pool.acquire("k", { dial: good, waitForReady: true }));
  bad.pending[0]?.fail(final("credentials refused"));
  await settle();
  assert.deepEqual(states(first, second), ["rejected", "pending"]);
  good.pending[0]?.arrive();
  await settle();
  assert.equal(second.state, "resolved");
});

test("no other key notices a failed dial", async (t) => {
  const bad = manualDial();
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, backoff: { baseMs: 1000 }, maxConns: 2 });
  const other = outcome(pool.acquire("bad", { dial: bad }));
  const held = await pool.acquire("good");
  const waiting = outcome(pool.acquire("third"));
  bad.pending[0]?.fail(final("refused"));
  await settle();
  assert.deepEqual(states(other, waiting), ["rejected", "resolved"], "the place goes to the third key");
  held.release();
  await soon(pool.acquire("good"));
  assert.equal(dial.count, 2);
});

test("a dial that fails at once for ever starves nobody, though no backoff is set", async (t) => {
  const { pool, clock } = pooled(t);
  let dials = 0;
  const dial = () => {
    dials++;
    throw new Error("ECONNREFUSED");
  };
  const waiting = pool.acquire("k", { dial, waitForReady: true, timeoutMs: 10 });
  const state = outcome(waiting);
  await turns(5);
  assert.ok(dials < 20, `${dials} dials in 5 turns of the event loop`);
  await turns(15);
  assert.equal(state.state, "pending");
  await clock.advance(10);
  assert.equal((await rejection(waiting)).name, "WaitTimeoutError");
});

test("the dial timeout is over everything until usable; what comes later is closed", async (t) => {
  const { pool, clock } = pooled(t, { dialTimeoutMs: 300 });
  const dial = manualDial(1);
  const waiting = pool.acquire("k", { dial });
  const state = outcome(waiting);
  await clock.advance(299);
  assert.equal(state.state, "pending");
  await clock.advance(1);
  const error = await rejection(waiting);
  assert.deepEqual([error.name, "code" in error && error.code], ["DialTimeoutError", "ERR_POOL_DIAL_TIMEOUT"]);
  assert.equal(dial.pending[0]?.signal.aborted, true);
  assert.deepEqual([pool.stats().dialing, pool.stats().dialErrors, [...pool.keys()]], [0, 1, []]);
  const late = dial.pending[0]?.arrive();
  await settle();
  assert.equal(late?.closes, 1);
});

test("the dial timeout is 20 seconds by default; 0 is none", async (t) => {
  const standard = pooled(t);
  const patient = pooled(t, { dialTimeoutMs: 0 });
  const dial = manualDial();
  const asked = [outcome(standard.lease("k", dial)), outcome(patient.lease("k", dial))];
  const after = async (ms: number) => {
    await standard.clock.advance(ms);
    await patient.clock.advance(ms);
    return states(...asked);
  };
  assert.deepEqual(await after(19_999), ["pending", "pending"]);
  assert.deepEqual(await after(1), ["rejected", "pending"]);
  assert.deepEqual(await after(1_000_000), ["rejected", "pending"]);
});

test("a dial whose time is up fails with DialTimeoutError, a DialError, and is dialed again for those with `waitForReady`", async (t) => {
  const dial = manualDial();
  const { pool, clock } = pooled(t, { dial, dialTimeoutMs: 500 });
  const caller = outcome(pool.acquire("k"));
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  await clock.advance(499);
  assert.equal(caller.state, "pending");
  await clock.advance(1);
  await settle();
  assert.ok(caller.error instanceof DialTimeoutError && caller.error instanceof DialError);
  await clock.advance(50);
  assert.deepEqual([patient.state, dial.count], ["pending", 2]);
});

for (const [what, thrown] of Object.entries({
  nothing: undefined,
  "an object without a prototype": Object.create(null) as unknown,
  "an error that throws when it is read": new Proxy(new Error("x"), {
    get: () => {
      throw new Error("hands off");
    },
  }),
  "a revoked proxy": (() => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    return proxy;
  })(),
})) {
  test(`a dial that rejects with ${what} fails like any other`, async (t) => {
    const { pool } = pooled(t, { dial: () => Promise.reject(thrown) });
    const error = await refusal(pool.acquire("k"));
    assert.ok(error instanceof DialError);
    assert.equal(error.cause, thrown);
    assert.deepEqual([...pool.keys()], []);
  });
}
