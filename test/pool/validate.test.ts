import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { settle } from "../support/clock.ts";
import { HeldConn, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, rejection, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";
import { questions } from "../support/questions.ts";

nothingUnheard();

/** The one stream that runs on `conn` ends while the conn is being validated for another caller, who leaves. */
async function endWhileValidated(
  t: TestContext,
  conn: ScriptedConn,
  reset?: () => void,
  held?: () => void,
): Promise<void> {
  let answer: (() => void) | undefined;
  const { pool, clock } = pooled(t, {
    maxKeyConns: 1,
    reset,
    validate: () =>
      new Promise((resolve) => {
        answer = () => resolve(true);
      }),
  });
  pool.put("k", conn);
  const lease = await pool.acquire("k");
  held?.();
  await clock.advance(600);
  const abort = new AbortController();
  outcome(pool.acquire("k", { signal: abort.signal }));
  lease.release();
  abort.abort();
  assert.ok(answer);
  answer();
  await settle();
  assert.equal(pool.stats("k").idle, 1);
}

test("a conn is validated before reuse, unless it was used within validateAfterMs", async (t) => {
  const { asked, validate } = questions(true);
  const { pool, clock } = pooled(t, { validate, validateAfterMs: 1000 });
  const dial = scriptedDial();
  const use = async (expected: number, why: string) => {
    (await pool.acquire("k", { dial })).release();
    assert.equal(asked.length, expected, why);
  };
  await use(0, "just dialed");
  await use(0, "just used");
  await clock.advance(999);
  await use(0, "used within the time");
  await clock.advance(1000);
  await use(1, "idle for so long");
  await use(1, "validated, and used, just now");
  assert.deepEqual([dial.count, pool.stats().streams, pool.stats().blocked], [1, 0, 0]);
});

test("validateAfterMs 0 validates before each reuse, and 500 is the default", async (t) => {
  for (const [validateAfterMs, pause, expected] of [
    [0, 0, 3],
    [undefined, 499, 0],
    [undefined, 500, 3],
  ] as const) {
    const { asked, validate } = questions(true);
    const { pool, clock } = pooled(t, { validate, validateAfterMs });
    const dial = scriptedDial();
    for (let i = 0; i < 4; i++) {
      (await pool.acquire("k", { dial })).release();
      await clock.advance(pause);
    }
    assert.equal(asked.length, expected, `${validateAfterMs}, ${pause} ms between`);
  }
});

test("a lowered validateAfterMs counts at once, and so does a raised one", async (t) => {
  const { asked, validate } = questions(true);
  const { pool, clock } = pooled(t, { validate, validateAfterMs: 10_000 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  await clock.advance(1000);
  pool.configure({ validateAfterMs: 1000 });
  assert.equal(pool.tryAcquire("k"), undefined);
  pool.configure({ validateAfterMs: 1001 });
  assert.equal(pool.tryAcquire("k")?.conn, conn);
  assert.equal(asked.length, 0);
});

test("a conn that waited unused, dialed by the pool or put, is validated before its first use too", async (t) => {
  const { asked, validate } = questions(true);
  const { pool, clock } = pooled(t, { validate, validateAfterMs: 0 });
  pool.put("k", new ScriptedConn());
  assert.notEqual(pool.tryAcquire("k"), undefined); // it came just now
  const second = new ScriptedConn();
  pool.put("k", second);
  await clock.advance(500);
  assert.equal((await pool.acquire("k")).conn, second);
  assert.equal(asked.length, 1);
});

test("a conn that fails is closed as invalid, and the caller gets another: the next idle one, else a dialed one", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate, selection: "oldest" });
  const [a, b, c] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
  for (const conn of [a, b]) pool.put("k", conn);
  await clock.advance(500);
  const waiting = pool.acquire("k", { dial: () => c, timeoutMs: 100 });
  await settle();
  assert.deepEqual([asked.length, asked[0]?.conn], [1, a]);
  asked[0]?.resolve(false);
  await settle();
  assert.deepEqual([asked.length, asked[1]?.conn, a.closes], [2, b, 1]);
  asked[1]?.reject(new Error("broken pipe"));
  assert.equal((await soon(waiting)).conn, c);
  assert.deepEqual([asked.length, b.closes, pool.stats().closed.invalid], [2, 1, 2]);
});

for (const [what, answer] of [
  ["throws", () => assert.fail("broken validation")],
  ["answers what is not true", () => "yes"],
  ["is no async function", () => false],
] as const) {
  test(`a validation that ${what} refuses the conn`, async (t) => {
    const { pool, clock } = pooled(t, { validate: answer as never });
    const [a, b] = [new ScriptedConn(), new ScriptedConn()];
    pool.put("k", a);
    await clock.advance(500);
    assert.equal((await pool.acquire("k", { dial: () => b })).conn, b);
    assert.deepEqual([a.closes, pool.stats().closed.invalid], [1, 1]);
  });
}

test("a validation holds a slot: nobody else uses, takes or validates the conn meanwhile", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate, maxUses: 2 });
  const conn = new ScriptedConn({ maxStreams: 2 });
  pool.put("k", conn);
  await clock.advance(500);
  const waiting = [pool.acquire("k"), pool.acquire("k")].map(outcome);
  await clock.advance(1000);
  assert.deepEqual([asked.length, pool.tryAcquire("k"), pool.take("k")], [1, undefined, undefined]);
  assert.deepEqual([pool.stats().streams, pool.stats().blocked, pool.stats().idle], [1, 1, 0]);
  asked[0]?.resolve(true);
  await settle();
  assert.deepEqual(
    waiting.map(({ state }) => state),
    ["resolved", "resolved"], // both of its uses were left: to validate is no use
  );
  assert.equal(pool.stats().streams, 2);
});

test("tryAcquire skips what is due for validation; take hands over the oldest, due or not", async (t) => {
  const { asked, validate } = questions(true);
  const { pool, clock } = pooled(t, { validate });
  const [old, young] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("k", old);
  await clock.advance(500);
  pool.put("k", young);
  const lease = pool.tryAcquire("k");
  assert.equal(lease?.conn, young);
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.tryAcquire("k", { filter: () => true }), undefined);
  lease?.release();
  assert.equal(pool.take("k"), old);
  assert.equal(asked.length, 0);
});

test("with a filter, what passes is validated, and nothing else", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate });
  const conns = ["a", "b", "c"].map((name) => new ScriptedConn({ tags: { name } }));
  for (const conn of conns) pool.put("k", conn);
  await clock.advance(500);
  const waiting = outcome(pool.acquire("k", { filter: (_, { tags }) => tags?.["name"] === "b" }));
  await settle();
  assert.deepEqual([asked.length, asked[0]?.conn], [1, conns[1]]);
  asked[0]?.resolve(true);
  await settle();
  assert.equal(waiting.value?.conn, conns[1]);
});

test("the caller's own deadline holds while a conn is validated, and the conn is there for the next", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  await clock.advance(500);
  const dial = scriptedDial();
  const late = rejection(pool.acquire("k", { dial, timeoutMs: 50 }));
  await clock.advance(50);
  assert.equal((await late).name, "WaitTimeoutError");
  assert.equal(asked[0]?.signal.aborted, false); // the validation is the pool's
  asked[0]?.resolve(true);
  await settle();
  assert.deepEqual([pool.tryAcquire("k")?.conn, dial.count], [conn, 0]);
});

test("a validation that hangs ends after dialTimeoutMs, and its signal aborts; the caller gets another", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate, dialTimeoutMs: 2000 });
  const [a, b] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("k", a);
  await clock.advance(500);
  const waiting = outcome(pool.acquire("k", { dial: () => b }));
  await clock.advance(1999);
  assert.deepEqual([waiting.state, asked[0]?.signal.aborted], ["pending", false]);
  await clock.advance(1);
  assert.deepEqual([waiting.value?.conn, asked[0]?.signal.aborted], [b, true]);
  assert.deepEqual([a.closes, pool.stats().closed.invalid], [1, 1]);
  asked[0]?.resolve(true); // too late
  await settle();
  assert.equal(pool.stats().open, 1);
});

for (const dialTimeoutMs of [20_000, 0]) {
  test(`a conn that goes while it is validated holds nobody up, dialTimeoutMs ${dialTimeoutMs}`, async (t) => {
    for (const [reason, go] of [
      ["died", (conn: ScriptedConn) => conn.die()],
      ["cleared", (_: ScriptedConn, clear: () => void) => clear()],
      ["goaway", (conn: ScriptedConn) => Object.assign(conn, { draining: true }).changed()],
    ] as const) {
      const { asked, validate } = questions();
      const { pool, clock } = pooled(t, { validate, dialTimeoutMs });
      const [a, b] = [new ScriptedConn({ maxStreams: 100 }), new ScriptedConn()];
      pool.put("k", a);
      await clock.advance(500);
      const waiting = outcome(pool.acquire("k", { dial: () => b }));
      await settle();
      go(a, () => pool.clear());
      await settle();
      assert.deepEqual([waiting.value?.conn, asked[0]?.signal.aborted], [b, true], reason);
      assert.deepEqual([pool.stats().open, pool.stats().closed[reason]], [1, 1]);
    }
  });
}

test("a conn whose last stream ends while it is validated does not hold the process", async (t) => {
  const conn = Object.assign(new HeldConn({ maxStreams: 2 }), { held: false });
  await endWhileValidated(t, conn, undefined, () => assert.equal(conn.held, true));
  assert.equal(conn.held, false);
});

test("a conn whose last stream ends while it is validated is reset", async (t) => {
  let resets = 0;
  await endWhileValidated(t, new ScriptedConn({ maxStreams: 2 }), () => void resets++);
  assert.equal(resets, 1);
});

test("closing the pool waits for no validation", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate, dialTimeoutMs: 0 });
  pool.put("k", new ScriptedConn());
  await clock.advance(500);
  const waiting = rejection(pool.acquire("k"));
  await settle();
  const closing = outcome(pool.close());
  await settle();
  assert.deepEqual([closing.state, asked[0]?.signal.aborted], ["resolved", true]);
  assert.equal((await waiting).name, "PoolClosedError");
});

test("there is no validation storm: as many conns are validated as callers wait for, and none without", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate });
  const dial = scriptedDial();
  for (let i = 0; i < 50; i++) pool.put("k", new ScriptedConn());
  for (let i = 0; i < 10; i++) pool.put("wide", new ScriptedConn({ maxStreams: 10 }));
  await clock.advance(60_000);
  assert.equal(asked.length, 0); // nobody asks for them
  const narrow = [1, 2, 3].map(() => outcome(pool.acquire("k", { dial })));
  await settle();
  assert.equal(asked.length, 3);
  const wide = Array.from({ length: 15 }, () => outcome(pool.acquire("wide", { dial })));
  await settle();
  assert.equal(asked.length, 5); // ten slots each
  for (const question of asked) question.resolve(true);
  await settle();
  assert.ok([...narrow, ...wide].every(({ state }) => state === "resolved"));
  assert.deepEqual([asked.length, dial.count], [5, 0]);
});

test("a failing validation of one key delays no other", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate, maxConns: 2 });
  pool.put("bad", new ScriptedConn());
  await clock.advance(500);
  const waiting = outcome(pool.acquire("bad"));
  await settle();
  const dial = scriptedDial();
  for (const key of ["a", "b", "c"]) (await soon(pool.acquire(key, { dial }))).release();
  assert.deepEqual([waiting.state, asked.length, dial.count], ["pending", 1, 3]);
});
