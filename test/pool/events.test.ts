import assert from "node:assert/strict";
import { AsyncLocalStorage, type AsyncResource } from "node:async_hooks";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { DialError } from "../../src/errors.ts";
import type { PoolEventName } from "../../src/pool/events.ts";
import type { Pool } from "../../src/pool/pool.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, rejection, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

type Event = { key: unknown; pool: string; conn?: unknown; reason?: unknown; ms?: number | undefined; error?: unknown };

const names: PoolEventName[] = [
  "dialed",
  "dialFailed",
  "leased",
  "released",
  "waiting",
  "served",
  "timedOut",
  "evicted",
  "expired",
  "retired",
  "drained",
  "closed",
  "cleared",
];

/** All events in their order, as [name, event]. */
function record<C extends ScriptedConn>(pool: Pool<string, C>) {
  const events: [PoolEventName, Event][] = [];
  const stops = names.map((name) =>
    pool.on(name, (event) => {
      const { caller: _caller, ...rest }: Event & { caller?: unknown } = event; // tests of its own look at it
      events.push([name, rest]);
    }),
  );
  const take = async () => {
    await settle();
    return events.splice(0);
  };
  return { take, names: async () => (await take()).map(([name]) => name), stops };
}

test("dialed, leased, released, waiting and served come in order, with key, conn and durations", async (t) => {
  const { pool, clock } = pooled(t, { name: "mine", maxKeyConns: 1 });
  const { take } = record(pool);
  const dial = scriptedDial({}, { manual: true });
  const first = pool.acquire("k", { dial });
  await clock.advance(30);
  const conn = dial.pending[0]?.arrive();
  const lease = await first;
  assert.deepEqual(await take(), [
    ["waiting", { key: "k", pool: "mine" }],
    ["dialed", { key: "k", conn, ms: 30, pool: "mine" }],
    ["served", { key: "k", conn, ms: 30, pool: "mine" }],
    ["leased", { key: "k", conn, pool: "mine" }],
  ]);
  const second = pool.acquire("k", { dial });
  await clock.advance(20);
  lease.release();
  (await second).release();
  assert.deepEqual(await take(), [
    ["waiting", { key: "k", pool: "mine" }],
    ["released", { key: "k", conn, ms: 20, pool: "mine" }],
    ["served", { key: "k", conn, ms: 20, pool: "mine" }],
    ["leased", { key: "k", conn, pool: "mine" }],
    ["released", { key: "k", conn, ms: 0, pool: "mine" }],
  ]);
});

test("dialFailed and timedOut carry the caller's error and how long it took", async (t) => {
  const { pool, clock } = pooled(t);
  const { take } = record(pool);
  const dial = scriptedDial({}, { manual: true });
  const failed = rejection(pool.acquire("k", { dial }));
  await clock.advance(10);
  dial.pending[0]?.fail(new Error("ECONNREFUSED"));
  const error = await failed;
  const [name, event] = (await take())[1] ?? [];
  assert.equal(name, "dialFailed");
  assert.ok(event !== undefined && "error" in event && event.error instanceof DialError && error instanceof DialError);
  assert.deepEqual({ ...event, error: event.error.cause }, { key: "k", error: error.cause, ms: 10, pool: "pool" });
  const late = rejection(pool.acquire("k", { dial, timeoutMs: 50 }));
  await clock.advance(50);
  assert.deepEqual((await take())[1], ["timedOut", { key: "k", error: await late, ms: 50, pool: "pool" }]);
});

test("evicted, expired and retired each come before their closed, with reason, age and uses", async (t) => {
  const { pool, clock } = pooled(t, { keyCapacity: 1, expirationMs: 1000, maxUses: 2 });
  const [a, b, c] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
  const ended = async () => (await take()).filter(([name]) => name !== "leased" && name !== "released");
  pool.put("k", a);
  await clock.advance(10);
  const { take } = record(pool);
  pool.put("k", b);
  const evicted = { key: "k", conn: a, reason: "evicted", ageMs: 10, uses: 0, pool: "pool" };
  assert.deepEqual(await ended(), [
    ["evicted", evicted],
    ["closed", evicted],
  ]);
  pool.tryAcquire("k")?.release();
  pool.tryAcquire("k")?.release();
  const retired = { key: "k", conn: b, reason: "retired", ageMs: 0, uses: 2, pool: "pool" };
  assert.deepEqual(await ended(), [
    ["retired", retired],
    ["drained", retired],
    ["closed", retired],
  ]);
  pool.put("k", c);
  await clock.advance(1250);
  const [[name, expired] = [], closed] = await ended();
  assert.deepEqual([name, closed], ["expired", ["closed", expired]]);
  assert.deepEqual([expired?.conn, expired?.reason], [c, "expired"]);
});

test("drained comes when the last stream of a draining conn has ended, cleared with its key, closed with its error when close() has settled", async (t) => {
  const { pool } = pooled(t);
  const error = new Error("ECONNRESET");
  let settled: (error: Error) => void = () => {};
  const conn = new ScriptedConn({ close: () => new Promise((_, reject) => (settled = reject)) });
  pool.put("k", conn);
  const lease = pool.tryAcquire("k");
  const { take } = record(pool);
  pool.clear("k");
  assert.deepEqual(await take(), [["cleared", { key: "k", pool: "pool" }]]);
  lease?.release();
  const end = { key: "k", conn, reason: "cleared", ageMs: 0, uses: 1, pool: "pool" };
  assert.deepEqual(await take(), [
    ["released", { key: "k", conn, ms: undefined, pool: "pool" }],
    ["drained", end],
  ]);
  settled(error);
  assert.deepEqual(await take(), [["closed", { ...end, error }]]);
  pool.clear();
  assert.deepEqual(await take(), [["cleared", { key: undefined, pool: "pool" }]]);
});

test("an error of closing an evicted conn is not lost: the closed event carries it", async (t) => {
  const { pool } = pooled(t, { capacity: 1 });
  const errors: unknown[] = [];
  pool.on("closed", ({ error }) => errors.push(error));
  const failed = new Error("no");
  pool.put("a", new ScriptedConn({ close: () => Promise.reject(failed) }));
  pool.put("b", new ScriptedConn());
  await settle();
  assert.deepEqual(errors, [failed]);
});

test("every reason reaches the listeners, stats and events alike", async (t) => {
  const { pool } = pooled(t);
  const { take } = record(pool);
  for (const [reason, go] of [
    ["died", (conn: ScriptedConn) => conn.die()],
    ["goaway", (conn: ScriptedConn) => Object.assign(conn, { draining: true }).changed()],
    ["cleared", () => pool.clear()],
    ["configured", () => pool.configure({ keyCapacity: -1 })],
    ["pool", () => void pool.close()],
  ] as const) {
    pool.configure({ keyCapacity: 0 });
    const conn = new ScriptedConn();
    pool.put("k", conn);
    go(conn);
    const closed = (await take()).filter(([name]) => name === "closed");
    assert.deepEqual(
      closed.map(([, event]) => [event.conn, event.reason]),
      [[conn, reason]],
    );
    assert.equal(pool.stats().closed[reason], 1);
  }
});

test("the same events go to node:diagnostics_channel, of all pools, by name", async (t) => {
  const heard: Event[] = [];
  const hear = (event: unknown) => void heard.push(event as Event);
  subscribe("rpc-conn-pool:leased", hear);
  t.after(() => void unsubscribe("rpc-conn-pool:leased", hear));
  for (const name of ["a", "b"]) {
    const { pool } = pooled(t, { name });
    pool.put("k", new ScriptedConn());
    pool.tryAcquire("k");
  }
  await settle();
  assert.deepEqual(
    heard.map(({ pool, key }) => [pool, key]),
    [
      ["a", "k"],
      ["b", "k"],
    ],
  );
  assert.deepEqual(unsubscribe("rpc-conn-pool:leased", hear), true);
  const { pool } = pooled(t);
  pool.put("k", new ScriptedConn());
  pool.tryAcquire("k");
  await settle();
  assert.equal(heard.length, 2);
});

test("listeners that throw, reject or use the pool harm nobody; each is stopped by what on() returned", async (t) => {
  const { pool } = pooled(t, { keyCapacity: 5 });
  const warnings: string[] = [];
  const warn = (warning: Error) => void warnings.push(warning.message);
  process.on("warning", warn);
  t.after(() => void process.off("warning", warn));
  let heard = 0;
  const stops = [
    pool.on("leased", () => assert.fail("broken listener")),
    pool.on("leased", (async () => assert.fail("broken async listener")) as () => void),
    pool.on("released", ({ key }) => void (heard < 20 && pool.tryAcquire(key)?.release())),
    pool.on("leased", () => void heard++),
  ];
  pool.put("k", new ScriptedConn());
  pool.tryAcquire("k")?.release();
  assert.equal(heard, 0); // in a microtask: never in the middle of a change
  await settle();
  await settle();
  assert.equal(heard, 20);
  assert.deepEqual([warnings.includes("broken listener"), warnings.includes("broken async listener")], [true, true]);
  for (const stop of [...stops, ...stops]) stop();
  pool.tryAcquire("k")?.release();
  await settle();
  assert.equal(heard, 20);
  assert.throws(() => pool.on("nonsense" as "leased", () => {}), { code: "ERR_POOL_ARGUMENT" });
  assert.throws(() => pool.on("leased", undefined as never), { code: "ERR_POOL_ARGUMENT" });
});

test("released says how long each stream ran: of leases, use, unary calls and streams, side by side on one conn", async (t) => {
  const { pool, clock } = pooled<Conn>(t);
  const conn = new ScriptedConn({ maxStreams: 10 });
  pool.put("k", conn);
  const handle = pool.get("k");
  const before = pool.tryAcquire("k");
  const heard: (number | undefined)[] = [];
  const stop = pool.on("released", ({ ms }) => void heard.push(ms));
  before?.release(); // nobody listened when it began
  const lease = pool.tryAcquire("k");
  await clock.advance(1);
  const using = pool.use("k", () => new Promise<void>((resolve) => clock.setTimeout(resolve, 20)));
  await clock.advance(2);
  const call = handle.invoke(echo, "x");
  await settle();
  await clock.advance(4);
  const stream = await handle.newStream(echo);
  const [unary, streamed] = conn.calls;
  await clock.advance(8);
  unary?.answer("y"); // after 12
  await call;
  lease?.release(); // after 15
  await clock.advance(8);
  await using; // after 20
  streamed?.answer(""); // after 16
  await stream.closed;
  await settle();
  assert.deepEqual(heard, [undefined, 12, 15, 20, 16]);
  stop();
  await clock.advance(1);
  const quiet = handle.invoke(echo, "x");
  await settle();
  const { readings } = clock;
  for (const last of conn.calls) last.answer("y");
  await quiet;
  assert.equal(clock.readings, readings);
});

test("who waits is told with its async context, whatever becomes of it, and so is the dial that was begun for it", async (t) => {
  const { pool, clock } = pooled(t, { maxKeyConns: 1, maxWaiters: 4 });
  const { names: heardNames } = record(pool);
  const storage = new AsyncLocalStorage<string>();
  const heard: [PoolEventName, string | undefined, string | undefined][] = [];
  for (const name of names.concat("refused", "aborted", "failed", "abandoned")) {
    pool.on(name, (event: { key: unknown; caller?: AsyncResource | undefined }) => {
      if (name === "leased" || name === "released" || name === "closed") return;
      heard.push([name, event.caller?.runInAsyncScope(() => storage.getStore()), storage.getStore()]);
    });
  }
  const dial = scriptedDial({}, { manual: true });
  const as = (name: string, options: object) => storage.run(name, () => pool.acquire("k", { dial, ...options }));
  const first = as("first", {});
  await settle();
  dial.pending[0]?.arrive();
  const lease = await first;
  const controller = new AbortController();
  const others = [as("late", { timeoutMs: 5 }), as("gone", { signal: controller.signal }), as("patient", {})].map(
    (promise) => promise.catch(() => undefined),
  );
  controller.abort(new Error("gone"));
  await clock.advance(5);
  lease.release();
  (await others[2])?.release();
  await heardNames();
  assert.deepEqual(heard, [
    ["waiting", "first", undefined],
    ["dialed", "first", undefined],
    ["served", "first", undefined],
    ["waiting", "late", undefined],
    ["waiting", "gone", undefined],
    ["waiting", "patient", undefined],
    ["aborted", "gone", undefined],
    ["timedOut", "late", undefined],
    ["served", "patient", undefined],
  ]);
});

test("a listener may clear the pool in the middle of a hand-out", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  const warnings: Error[] = [];
  const hear = (warning: Error) => void warnings.push(warning);
  process.on("warning", hear);
  pool.on("leased", () => {
    throw new Error("thrown by a listener");
  });
  const off = pool.on("dialed", () => pool.clear());
  (await soon(pool.acquire("k"))).release();
  off();
  (await soon(pool.acquire("k"))).release();
  await settle();
  process.off("warning", hear);
  assert.ok(warnings.some(({ message }) => message.includes("thrown by a listener")));
});

test("while nobody listens no event is made, no clock read and no microtask queued", async (t) => {
  const { pool, clock } = pooled(t);
  pool.put("k", new ScriptedConn());
  pool.on("leased", () => assert.fail("stopped"))();
  clock.readings = 0;
  const { queueMicrotask } = globalThis;
  t.after(() => {
    globalThis.queueMicrotask = queueMicrotask;
  });
  let queued = 0;
  globalThis.queueMicrotask = (callback) => {
    queued++;
    queueMicrotask(callback);
  };
  for (let i = 0; i < 100; i++) pool.tryAcquire("k")?.release();
  assert.deepEqual([clock.readings, queued], [0, 0]);
  pool.clear();
  assert.deepEqual([clock.readings, queued], [1, 0], "a key remembers when a conn was closed");
});
