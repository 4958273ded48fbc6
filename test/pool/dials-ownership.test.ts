import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import type { Pool } from "../../src/pool/pool.ts";
import { type FakeClock, settle } from "../support/clock.ts";
import { answered, manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, rejection } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

nothingUnheard();

interface Dialed {
  readonly dial: { arrive(conn?: ScriptedConn): ScriptedConn; fail(error: unknown): void };
  readonly conn: ScriptedConn;
  abort(): void;
  advance(ms: number): Promise<void>;
  close(): Promise<void>;
  arriveDead(): void;
}

interface Row {
  readonly does: (it: Dialed) => unknown;
  readonly open: number;
  readonly idle: number;
  /** Calls of `close()` on what arrives, however late. */
  readonly closes: number;
  readonly caller: string;
}

/** What becomes of a dial in flight, and of the conn that it brings late. */
const table = {
  dialed: { does: (it) => void it.dial.arrive(it.conn), open: 1, idle: 0, closes: 0, caller: "has a lease" },
  failed: { does: (it) => it.dial.fail(new Error("no")), open: 0, idle: 0, closes: 0, caller: "ERR_POOL_DIAL" },
  "the caller has gone": { does: (it) => it.abort(), open: 0, idle: 0, closes: 1, caller: "gone" },
  "its time is up": { does: (it) => it.advance(20_001), open: 0, idle: 0, closes: 1, caller: "ERR_POOL_DIAL_TIMEOUT" },
  "the pool was closed": { does: (it) => it.close(), open: 0, idle: 0, closes: 1, caller: "ERR_POOL_CLOSED" },
  "the conn died first": { does: (it) => it.arriveDead(), open: 0, idle: 0, closes: 0, caller: "ERR_POOL_DIAL" },
} satisfies Record<string, Row>;

for (const [event, row] of Object.entries(table)) {
  test(`a dial in flight has one end: ${event}`, async (t) => {
    const dial = manualDial();
    const { pool, clock } = pooled(t, { dial });
    const conn = new ScriptedConn();
    const controller = new AbortController();
    let caller = "waits";
    const ended = pool.acquire("k", { signal: controller.signal }).then(
      () => {
        caller = "has a lease";
      },
      (error: { code?: string }) => {
        caller = error.code ?? "gone";
      },
    );
    const [pending] = dial.pending;
    assert.ok(pending);
    assert.deepEqual([pool.stats().dialing, pool.stats().open, caller], [1, 0, "waits"]);
    await row.does({
      dial: pending,
      conn,
      abort: () => controller.abort({ code: "gone" }),
      advance: (ms) => clock.advance(ms),
      close: () => pool.close({ graceMs: 0 }),
      arriveDead: () => {
        conn.die();
        pending.arrive(conn);
      },
    });
    await ended;
    await settle();
    assert.deepEqual(
      [caller, pool.stats().dialing, pool.stats().open, pool.stats().idle],
      [row.caller, 0, row.open, row.idle],
    );
    assert.equal(pending.signal.aborted, row.closes > 0); // abandoned
    pending.arrive(conn); // late, or for the second time
    pending.fail(new Error("late"));
    await settle();
    assert.deepEqual([conn.closes, pool.stats().open], [row.closes, row.open]);
    await pool.close({ graceMs: 0 });
  });
}

test("a dial has a signal of the pool's: the caller that caused it may go, the others are served", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true, maxStreams: 2 });
  const caller = new AbortController();
  const handle = pool.get("a", dial);
  const first = call(handle, { signal: caller.signal });
  const second = call(handle);
  assert.equal(dial.pending.length, 1); // two slots: one dial for both
  caller.abort(new Error("gone"));
  assert.equal((await rejection(first)).message, "gone");
  assert.equal(dial.pending[0]?.signal.aborted, false);
  dial.pending[0]?.arrive();
  assert.equal(await second, "world");
  assert.equal(dial.count, 1);
});

test("when all callers of a dial have gone, its signal aborts", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true, maxStreams: 2 });
  const caller = new AbortController();
  const handle = pool.get("a", dial, { signal: caller.signal });
  const calls = [call(handle), call(handle)];
  caller.abort(new Error("gone"));
  for (const one of calls) assert.equal((await rejection(one)).message, "gone");
  assert.equal(dial.pending[0]?.signal.aborted, true);
  const late = dial.pending[0]?.arrive();
  await settle();
  assert.equal(late?.closes, 1); // what it still brings is closed
  assert.deepEqual([...pool.keys()], []);
});

/** Each way in which a dial becomes unwanted while it is in flight. */
const ends: Record<string, (pool: Pool<string, ScriptedConn>, abort: AbortController, clock: FakeClock) => unknown> = {
  "all its callers have gone": (_pool, abort) => abort.abort(),
  "its time is up": (_pool, _abort, clock) => clock.advance(1000),
  "its callers' time is up": (_pool, _abort, clock) => clock.advance(900),
  "clear() came": (pool) => pool.clear(),
  "clear(key) came": (pool) => pool.clear("k"),
  "close() came": (pool) => pool.close(),
};

for (const [what, end] of Object.entries(ends)) {
  test(`when ${what}, a dial is abandoned: aborted, not counted, its late conn closed`, async (t) => {
    const dial = manualDial();
    const timeoutMs = what.startsWith("its callers") ? 900 : 5000;
    const { pool, clock } = pooled(t, { dialTimeoutMs: 1000, maxWaiters: 0 });
    const abort = new AbortController();
    outcome(pool.acquire("k", { dial, signal: abort.signal, timeoutMs }));
    await settle();
    const pending = dial.pending[0];
    await end(pool, abort, clock);
    assert.equal(pending?.signal.aborted, true);
    const cleared = what.startsWith("clear");
    assert.equal(pool.stats().dialing, cleared ? 1 : 0, "it stops counting at once");
    const late = pending?.arrive();
    await settle();
    assert.deepEqual([late?.closes, pool.stats().open], [1, 0]);
    if (cleared) assert.equal(dial.count, 2, "the waiter stays, and gets a new dial");
  });

  test(`when ${what}, the errors that an abandoned dial still brings are swallowed`, async (t) => {
    const { pool, clock } = pooled(t, { dialTimeoutMs: 1000 });
    const timeoutMs = what.startsWith("its callers") ? 900 : 5000;
    const abort = new AbortController();
    const dials = [manualDial(), manualDial(), manualDial()];
    for (const dial of dials) outcome(pool.acquire("k", { dial, signal: abort.signal, timeoutMs }));
    await settle();
    await end(pool, abort, clock);
    const before = pool.stats().dialErrors;
    const throwing = new ScriptedConn({ close: () => Promise.reject(new Error("late close")) });
    throwing.die();
    const [first, ...others] = dials.flatMap(({ pending }) => pending);
    first?.fail(new Error("late"));
    for (const pending of others) if (pending.signal.aborted) pending.arrive(throwing);
    await settle();
    assert.equal(pool.stats().dialErrors, before);
  });
}

test("a dial that abandoned callers left makes room under maxKeyDials and maxConns at once", async (t) => {
  for (const limits of [{ maxKeyDials: 1 }, { maxConns: 1 }, { maxKeyConns: 1 }]) {
    const dial = manualDial(1);
    const { pool } = pooled(t, { dial, ...limits });
    const abort = new AbortController();
    outcome(pool.acquire("k", { signal: abort.signal }));
    abort.abort();
    const next = outcome(pool.acquire("k"));
    assert.equal(dial.count, 2, JSON.stringify(limits));
    dial.pending[1]?.arrive();
    await settle();
    assert.equal(next.state, "resolved");
  }
});

test("who comes after all others have gone starts a new dial", async (t) => {
  const dial = manualDial(10);
  const { pool } = pooled(t, { dial });
  const abort = new AbortController();
  outcome(pool.acquire("k", { signal: abort.signal }));
  outcome(pool.acquire("k", { signal: abort.signal }));
  abort.abort();
  const next = outcome(pool.acquire("k"));
  assert.equal(dial.count, 2);
  const late = dial.pending[0]?.arrive();
  await settle();
  assert.deepEqual([next.state, late?.closes], ["pending", 1]);
  dial.pending[1]?.arrive();
  await settle();
  assert.equal(next.state, "resolved");
});

test("after a death, the new dial uses the function of the oldest caller that it is for", async (t) => {
  const { pool } = pooled<Conn>(t, { maxKeyConns: 1 });
  const [first, second, third] = [scriptedDial(), scriptedDial(answered), scriptedDial(answered)];
  const running = call(pool.get("a", first));
  await settle();
  const waiting = [call(pool.get("a", second)), call(pool.get("a", third))];
  first.conns[0]?.die();
  await rejection(running);
  assert.deepEqual(await Promise.all(waiting), ["world", "world"]);
  assert.deepEqual([first.count, second.count, third.count], [1, 1, 0]); // the third shares the second's conn
});

test("a dial uses the function of the oldest waiter that it is for, also when others have left", async (t) => {
  const names: string[] = [];
  const dialOf = (name: string) => (): Promise<ScriptedConn> => {
    names.push(name);
    return new Promise(() => {});
  };
  const { pool } = pooled(t, { maxStreams: 1, maxKeyDials: 2 });
  const aborts = ["a", "b", "c", "d"].map((name) => {
    const abort = new AbortController();
    outcome(pool.acquire("k", { dial: dialOf(name), signal: abort.signal }));
    return abort;
  });
  assert.deepEqual(names, ["a", "b"]);
  aborts[0]?.abort();
  aborts[1]?.abort();
  assert.deepEqual(names, ["a", "b"], "the dials in flight are for those who are left");
  pool.clear();
  assert.deepEqual(names, ["a", "b", "c", "d"]);
});
