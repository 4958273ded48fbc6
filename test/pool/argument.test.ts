import assert from "node:assert/strict";
import { Socket } from "node:net";
import { test } from "node:test";
import type { Conn, Dial } from "../../src/contract.ts";
import { DialError, isPoolError } from "../../src/errors.ts";
import type { AcquireOptions, GetOptions, PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { rejection } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

const counts = [
  "capacity",
  "keyCapacity",
  "maxConns",
  "maxKeyConns",
  "maxStreams",
  "maxKeyDials",
  "maxWaiters",
  "maxUses",
  "minIdle",
];

const times = ["expirationMs", "waitTimeoutMs", "dialTimeoutMs", "maxLifetimeMs", "validateAfterMs"];

/** What must be refused, where TypeScript does not refuse it already. */
function untyped<T>(value: unknown): T {
  return value as T;
}

const numbers = [1.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0.5];
const strangers = ["1", true, null, {}, [], 1n, () => 1];

const wrongOptions: [name: string, value: unknown, error: "RangeError" | "TypeError"][] = [
  ...counts.flatMap((name) => numbers.map((value): [string, unknown, "RangeError"] => [name, value, "RangeError"])),
  ...counts.flatMap((name) => strangers.map((value): [string, unknown, "TypeError"] => [name, value, "TypeError"])),
  ...times.flatMap((name) =>
    [-1, Number.NaN, Number.POSITIVE_INFINITY].map((value): [string, unknown, "RangeError"] => [
      name,
      value,
      "RangeError",
    ]),
  ),
  ...times.flatMap((name) => strangers.map((value): [string, unknown, "TypeError"] => [name, value, "TypeError"])),
  ...["dial", "hashKey", "limits"].map((name): [string, unknown, "TypeError"] => [name, "no function", "TypeError"]),
  ["selection", "random", "TypeError"],
  ["name", Symbol("name"), "TypeError"],
  ["clock", { now: 1 }, "TypeError"],
  ["clock", {}, "TypeError"],
  ["clock", null, "TypeError"],
  ["backoff", "always", "TypeError"],
  ["backoff", { baseMs: 0 }, "RangeError"],
  ["backoff", { baseMs: "1" }, "TypeError"],
  ["backoff", { maxMs: -1 }, "RangeError"],
  ["backoff", { maxAttempts: 1.5 }, "RangeError"],
  ["backoff", { factor: 0.5 }, "RangeError"],
  ["backoff", { factor: "2" }, "TypeError"],
  ["backoff", { jitter: 1.5 }, "RangeError"],
  ["backoff", { jitter: "some" }, "TypeError"],
  ["backoff", { multiplier: 2 }, "TypeError"],
  ["maxConn", 5, "TypeError"], // unknown: a typing error in its name
  ["timeout", 5, "TypeError"],
];

test("wrong options are refused at once, each with a clear typed error that names it", () => {
  for (const [name, value, kind] of wrongOptions) {
    const options = untyped<PoolOptions<string, Conn>>({ [name]: value });
    assert.throws(
      () => new Pool(options),
      (error) => {
        const what = `${name}: ${typeof value}`;
        assert.ok(error instanceof Error && isPoolError(error), what);
        assert.ok(error instanceof (kind === "RangeError" ? RangeError : TypeError), `${what}: ${error.name}`);
        assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT", what);
        assert.ok(error.message.includes(name), `${what}: ${error.message}`);
        return true;
      },
    );
  }
});

test("options that are no object are refused; undefined ones are absent", (t) => {
  for (const options of [null, 5, "x", [], () => {}]) {
    assert.throws(() => new Pool(untyped<PoolOptions<string, Conn>>(options)), { code: "ERR_POOL_ARGUMENT" });
  }
  const absent = Object.fromEntries([...counts, ...times, "dial", "backoff", "name"].map((name) => [name, undefined]));
  pooled(t, untyped<PoolOptions<string, ScriptedConn>>(absent));
});

test("what the limits option returns is checked too, when the key appears", async (t) => {
  const { pool } = pooled(t, { limits: (key) => untyped(key === "bad" ? { maxKeyConns: 1.5 } : undefined) });
  const dial = scriptedDial();
  const error = await rejection(pool.acquire("bad", { dial }));
  assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
  (await pool.acquire("good", { dial })).release();
  assert.deepEqual([...pool.keys()], ["good"]);
});

test("the options of get, acquire, use, tryAcquire and close are checked", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const wrong: object[] = [
    { signal: "none" },
    { filter: 5 },
    { waitForReady: 1 },
    { timeout: 5 },
    { retryUnsend: true },
  ];
  for (const options of wrong) {
    assert.throws(() => pool.get("k", dial, untyped<GetOptions<Conn>>(options)), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.get("k", untyped<GetOptions<Conn>>(options)), { code: "ERR_POOL_ARGUMENT" });
    const acquire = untyped<AcquireOptions<string, Conn>>({ dial, ...options });
    for (const refused of [pool.acquire("k", acquire), pool.use("k", async () => {}, acquire)]) {
      const error = await rejection(refused);
      assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
    }
  }
  assert.throws(() => pool.get("k", untyped<Dial<string, Conn>>(null)), { code: "ERR_POOL_ARGUMENT" });
  assert.throws(() => pool.get("k", dial, untyped<GetOptions<Conn>>(null)), { code: "ERR_POOL_ARGUMENT" });
  assert.throws(() => pool.tryAcquire("k", untyped({ dial })), { code: "ERR_POOL_ARGUMENT" });
  assert.equal("code" in (await rejection(pool.use("k", untyped(undefined), { dial }))), true);
  for (const options of [{ graceMs: -1 }, { graceMs: Number.NaN }, { grace: 5 }]) {
    const error = await rejection(pool.close(untyped(options)));
    assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
  }
  assert.equal(dial.count, 0);
  assert.equal((await pool.acquire("k", { dial })).conn, dial.conns[0]); // the pool goes on
});

test("a timeout that is NaN or infinite is refused", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  for (const timeoutMs of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    for (const refused of [call(pool.get("k", dial), { timeoutMs }), pool.acquire("k", { dial, timeoutMs })]) {
      const error = await rejection(refused);
      assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
    }
  }
  assert.equal(dial.count, 0);
});

test("a missing dial is NoConnError at the first call; one that is no function is refused by get", async (t) => {
  const { pool } = pooled<Conn>(t);
  for (const refused of [call(pool.get("k")), pool.acquire("k"), pool.use("k", async () => {})]) {
    const error = await rejection(refused);
    assert.deepEqual([error.name, "code" in error && error.code], ["NoConnError", "ERR_POOL_NO_CONN"]);
  }
  assert.throws(() => pool.get("k", untyped<Dial<string, Conn>>("host:1")), { code: "ERR_POOL_ARGUMENT" });
  const error = await rejection(pool.acquire("k", { dial: untyped("host:1") }));
  assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
  assert.deepEqual([...pool.keys()], []);
});

test("a dial that returns what is no conn fails with a DialError that says what it got", async (t) => {
  const { pool } = pooled<Conn>(t);
  const socket = new Socket();
  const results: [unknown, RegExp][] = [
    [undefined, /undefined/],
    [null, /null/],
    [5, /5/],
    [{}, /close\(\)/],
    [{ close: () => {} }, /closed/],
    [{ close: () => {}, closed: true }, /socketConn/],
    [socket, /socketConn/],
    ["conn", /conn/],
    [{ closed: Promise.resolve() }, /close\(\)/],
    [{ closed: false, close: () => {}, destroy: () => {} }, /socketConn/],
  ];
  const dialsOf = (result: unknown) => [() => untyped<Conn>(result), async () => untyped<Conn>(result)];
  const dials = results.flatMap(([result, message]) => dialsOf(result).map((dial) => ({ dial, message })));
  for (const { dial, message } of dials) {
    const error = await rejection(pool.acquire("k", { dial }));
    assert.ok(error instanceof DialError && error.cause instanceof TypeError);
    assert.equal(error.name, "DialError");
    assert.match(error.message, message);
    assert.deepEqual([...pool.keys()], []);
  }
  await settle();
  assert.equal(socket.destroyed, true); // nothing is left open
  assert.deepEqual([pool.stats().dialErrors, pool.stats().open, [...pool.keys()]], [dials.length, 0, []]);
  assert.equal(await call(pool.get("k", scriptedDial({ answer: () => "world" }))), "world");
});

test("put refuses what is no conn, and a dial must not return a conn that is held already", async (t) => {
  const { pool } = pooled<Conn>(t);
  for (const value of [undefined, null, {}, { close: () => {} }, { close: () => {}, closed: true }, new Socket()]) {
    assert.throws(() => pool.put("k", untyped<Conn>(value)), { code: "ERR_POOL_ARGUMENT" });
  }
  assert.deepEqual([...pool.keys()], []);
  const conn = new ScriptedConn();
  await pool.acquire("k", { dial: () => conn });
  const error = await rejection(pool.acquire("other", { dial: () => conn }));
  assert.equal(error.name, "DialError");
  assert.equal(conn.closes, 0); // it serves the first key
});

test("a dial that throws at once, rejects with nothing or never settles harms nobody else", async (t) => {
  const { pool, clock } = pooled<Conn>(t, { dialTimeoutMs: 100 });
  const dials: Dial<string, Conn>[] = [
    () => {
      throw new Error("at once");
    },
    () => Promise.reject(undefined),
    () => new Promise(() => {}),
  ];
  const failed = dials.map((dial, i) => rejection(pool.acquire(`bad ${i}`, { dial })));
  const good = scriptedDial({ answer: () => "world" });
  assert.equal(await call(pool.get("good", good)), "world");
  await clock.advance(100);
  const names = (await Promise.all(failed)).map(({ name }) => name);
  assert.deepEqual(names, ["DialError", "DialError", "DialTimeoutError"]);
  assert.deepEqual([...pool.keys()], ["good"]);
});

test("messages show no contents of objects, which may hold credentials", () => {
  const secret = { password: "hunter2", toString: () => "hunter2" };
  assert.throws(
    () => new Pool(untyped<PoolOptions<string, Conn>>({ capacity: secret })),
    (error) => error instanceof Error && !error.message.includes("hunter2"),
  );
});
