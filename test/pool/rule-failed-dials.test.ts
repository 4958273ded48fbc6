import assert from "node:assert/strict";
import { test } from "node:test";
import { DialError, DialTimeoutError } from "../../src/errors.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, type Outcome, outcome, refusal, soon } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

const manual = (maxStreams?: number): ReturnType<typeof scriptedDial> =>
  scriptedDial({ maxStreams: maxStreams ?? 1 }, { manual: true, ...(maxStreams === undefined ? {} : { maxStreams }) });
const states = (...all: Outcome<unknown>[]) => all.map(({ state }) => state);

function final(message: string): Error {
  return Object.assign(new Error(message), { final: true });
}

test("rule: a failed dial rejects those that it was to serve, with its error as the cause, and nobody else", async () => {
  const dial = manual(2);
  const pool = testPool({ dial });
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

test("rule: the younger of two dials fails: the waiters of the older stay", async () => {
  const dial = manual(1);
  const pool = testPool({ dial });
  const a = outcome(pool.acquire("k"));
  const b = outcome(pool.acquire("k"));
  dial.pending[1]?.fail(new Error("refused"));
  await settle();
  assert.deepEqual(states(a, b), ["pending", "rejected"]);
});

test("rule: where the slots are unknown, a failed dial rejects all of its key", async () => {
  const dial = manual();
  const pool = testPool({ dial });
  const all = Array.from({ length: 20 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 1);
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  assert.ok(all.every(({ state }) => state === "rejected"));
  assert.equal(dial.count, 1);
  assert.deepEqual([...pool.keys()], [], "and nothing is left of the key");
});

test("rule: those with waitForReady stay for the next dial, until their time is up", async () => {
  const clock = new FakeClock();
  const dial = manual();
  const pool = testPool({ clock, dial });
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  const limited = outcome(pool.acquire("k", { waitForReady: true, timeoutMs: 100 }));
  const other = outcome(pool.acquire("k"));
  const cause = new Error("first");
  dial.pending[0]?.fail(cause);
  await settle();
  assert.deepEqual(states(patient, limited, other), ["pending", "pending", "rejected"]);
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

test("rule: a dial that fails at once, time after time, does not starve what else the process does", async () => {
  let dials = 0;
  const stop = new AbortController();
  const dial = (): ScriptedConn => {
    dials++;
    throw new Error("no");
  };
  const pool = testPool({ dial });
  const waiter = outcome(pool.acquire("k", { waitForReady: true, signal: stop.signal }));
  let turns = 0;
  while (turns < 20) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    turns++;
  }
  assert.equal(waiter.state, "pending");
  assert.ok(dials < 1000, `${dials} dials`);
  stop.abort();
  await settle();
});

test("rule: an error with `final: true` rejects those with waitForReady too", async () => {
  const dial = manual();
  const pool = testPool({ dial });
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  const cause = final("no such host");
  dial.pending[0]?.fail(cause);
  await settle();
  assert.ok(patient.error instanceof DialError && patient.error.final && patient.error.cause === cause);
  assert.equal(dial.count, 1);
});

test("rule: a final error ends only the waiters that its dial was to serve", async () => {
  const pool = testPool({ maxStreams: 1, dial: manual() });
  const bad = manual();
  const good = manual();
  const first = outcome(pool.acquire("k", { dial: bad, waitForReady: true }));
  const second = outcome(pool.acquire("k", { dial: good, waitForReady: true }));
  bad.pending[0]?.fail(final("credentials refused"));
  await settle();
  assert.deepEqual(states(first, second), ["rejected", "pending"]);
  good.pending[0]?.arrive();
  await settle();
  assert.equal(second.state, "resolved");
});

test("rule: no other key notices a failed dial", async () => {
  const clock = new FakeClock();
  const bad = manual();
  const dial = scriptedDial();
  const pool = testPool({ clock, dial, backoff: { baseMs: 1000 }, maxConns: 2 });
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

test("rule: while a backoff runs, newcomers get the last error at once, and those with waitForReady wait", async () => {
  const clock = new FakeClock();
  const dial = manual();
  const pool = testPool({ clock, dial, dialTimeoutMs: 0, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const first = outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  assert.deepEqual([...pool.keys()], ["k"], "a running backoff is remembered");
  const newcomer = await refusal(pool.acquire("k"));
  assert.equal(newcomer, first.error);
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

test("rule: while a backoff runs, newcomers get the last error at once, though others wait and the key is at its limit", async () => {
  const clock = new FakeClock();
  const dial = manual();
  const pool = testPool({ clock, dial, maxKeyConns: 1, dialTimeoutMs: 0, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  const first = outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  pool.put("k", new ScriptedConn());
  assert.notEqual(pool.tryAcquire("k"), undefined);
  const patient = [1, 2].map(() => outcome(pool.acquire("k", { waitForReady: true })));
  assert.equal(await refusal(pool.acquire("k")), first.error);
  await settle();
  assert.deepEqual(states(...patient), ["pending", "pending"]);
});

test("rule: a backoff is remembered for maxMs after it has run out, and then leaves no trace", async () => {
  const clock = new FakeClock();
  const backoff = { baseMs: 1000, maxMs: 1000 };
  const pool = testPool({ clock, dial: () => Promise.reject(new Error("no")), backoff });
  await refusal(pool.acquire("k"));
  assert.deepEqual([...pool.keys()], ["k"]);
  await clock.advance(2001);
  assert.deepEqual([...pool.keys()], []);
  assert.equal(clock.timers, 0);
});

test("rule: clear() ends a backoff", async () => {
  const dial = manual();
  const pool = testPool({ dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
  outcome(pool.acquire("k"));
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  pool.clear("k");
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(patient.state, "resolved");
});

test("rule: a success ends the backoff that an earlier dial's failure began", async () => {
  const dial = manual(1);
  const pool = testPool({ dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
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

test("rule: a conn that comes back serves who waits through a backoff, and newcomers", async () => {
  const dial = manual(1);
  const pool = testPool({ dial, backoff: { baseMs: 1e6, maxMs: 1e6 } });
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

test("rule: nobody waits any longer after maxAttempts failed dials in a row", async () => {
  const clock = new FakeClock();
  const dial = manual();
  const pool = testPool({ clock, dial, backoff: { baseMs: 10, maxMs: 10, maxAttempts: 3 } });
  const patient = outcome(pool.acquire("k", { waitForReady: true }));
  for (let attempt = 0; attempt < 3; attempt++) {
    assert.equal(patient.state, "pending");
    dial.pending[attempt]?.fail(new Error(`attempt ${attempt}`));
    await settle();
    await clock.advance(11);
  }
  assert.equal(patient.state, "rejected");
  assert.equal(dial.count, 3);
});

test("rule: a dial whose time is up fails with DialTimeoutError, a DialError, and is dialed anew for the patient", async () => {
  const clock = new FakeClock();
  const dial = manual();
  const pool = testPool({ clock, dial, dialTimeoutMs: 500 });
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

for (const [what, brought] of Object.entries({
  nothing: undefined,
  null: null,
  "a string": "conn",
  "an object without close": { closed: Promise.resolve() },
  "a socket's shape": { closed: false, close: () => {}, destroy: () => {} },
})) {
  test(`rule: a dial that brings ${what} has failed, and says why`, async () => {
    const pool = testPool({ dial: () => brought as unknown as ScriptedConn });
    const error = await refusal(pool.acquire("k"));
    assert.ok(error instanceof DialError && error.cause instanceof TypeError);
    assert.deepEqual([...pool.keys()], []);
  });
}

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
  test(`rule: a dial that rejects with ${what} fails like any other`, async () => {
    const pool = testPool({ dial: () => Promise.reject(thrown) });
    const error = await refusal(pool.acquire("k"));
    assert.ok(error instanceof DialError);
    assert.equal(error.cause, thrown);
    assert.deepEqual([...pool.keys()], []);
  });
}
