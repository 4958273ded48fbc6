import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, refusal, soon } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

const manual = (maxStreams: number): ReturnType<typeof scriptedDial> =>
  scriptedDial({ maxStreams }, { manual: true, maxStreams });

test("hazard 1: a cold start of 1,000 calls at 100 slots is 10 dials, and none more while they run", async () => {
  const dial = manual(100);
  const pool = testPool({ dial });
  const calls = Array.from({ length: 1000 }, () => outcome(pool.acquire("k")));
  assert.equal(dial.count, 10);
  for (const pending of dial.pending) pending.arrive();
  await settle();
  assert.ok(calls.every(({ state }) => state === "resolved"));
  assert.equal(dial.count, 10);
});

test("hazard 1: a conn that comes back before the dial is done serves the waiter, and the dial is abandoned", async () => {
  const dial = manual(1);
  const pool = testPool({ dial });
  const first = outcome(pool.acquire("k"));
  dial.pending[0]?.arrive();
  await settle();
  const second = outcome(pool.acquire("k"));
  assert.equal(dial.count, 2);
  first.value?.release();
  await settle();
  assert.equal(second.state, "resolved");
  assert.equal(dial.pending[1]?.signal.aborted, true);
});

test("hazard 2: a thousand callers share one signal and one dial, and leave no listener behind", async () => {
  const dial = manual(1000);
  const pool = testPool({ dial });
  const shared = new AbortController();
  const calls = Array.from({ length: 1000 }, () => outcome(pool.acquire("k", { signal: shared.signal })));
  const other = outcome(pool.acquire("k"));
  shared.abort("gone");
  await settle();
  assert.ok(calls.every(({ error }) => error === "gone"));
  assert.equal(getEventListeners(shared.signal, "abort").length, 0);
  assert.equal(dial.pending[0]?.signal.aborted, false);
  dial.pending[0]?.arrive();
  await settle();
  assert.equal(other.state, "resolved");
});

test("hazard 3: a conn given back after clear is closed, and so is one given back after close", async () => {
  for (const end of ["clear", "close"] as const) {
    const pool = testPool({ dial: scriptedDial() });
    const lease = await pool.acquire("k");
    const closing = end === "clear" ? pool.clear() : pool.close();
    assert.equal(lease.conn.closes, 0);
    lease.release();
    assert.equal(lease.conn.closes, 1);
    await closing;
    assert.deepEqual([...pool.keys()], []);
  }
});

test("hazard 4: whatever ends the RPCs, the slots in use are the RPCs in flight, always", async () => {
  const dial = scriptedDial({ maxStreams: 7 });
  const pool = new Pool<string, Conn>({ dial, clock: new FakeClock() });
  const handle = pool.get("k");
  const ends = ["answer", "fail", "abort", "answer", "fail"] as const;
  const aborts: AbortController[] = [];
  const running = () => dial.conns.reduce((sum, { calls }) => sum + calls.size, 0);
  for (let round = 0; round < 40; round++) {
    const abort = new AbortController();
    aborts.push(abort);
    outcome(handle.invoke(echo, "x", { signal: abort.signal }));
    outcome(handle.newStream(echo, { signal: abort.signal }));
    await settle();
    assert.equal(pool.stats().streams, running());
    const end = ends[round % ends.length];
    if (end === "abort") aborts[round]?.abort();
    for (const [call] of [dial.conns[0]?.calls ?? []]) {
      if (end === "answer") call?.answer(undefined);
      else if (end === "fail") call?.fail(new Error("NOT_FOUND"));
    }
    await settle();
    assert.equal(pool.stats().streams, running());
  }
  dial.conns[0]?.die();
  for (const abort of aborts) abort.abort();
  await settle();
  assert.deepEqual([pool.stats().streams, running()], [0, 0]);
});

test("hazard 5: a conn that flushes a cancelled RPC is skipped, counts as open, and is used again when it is free", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  let flushed = () => {};
  lease.conn.blockedUntil = new Promise<void>((resolve) => {
    flushed = resolve;
  });
  lease.release();
  const waiter = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual([waiter.state, dial.count, pool.stats().blocked], ["pending", 1, 1]);
  const { asked } = lease.conn;
  outcome(pool.acquire("k"));
  assert.equal(lease.conn.asked, asked, "it is not asked again before that");
  lease.conn.blockedUntil = undefined;
  flushed();
  await settle();
  assert.equal(waiter.value?.conn, lease.conn);
});

test("hazard 5: a conn whose flush fails is closed, and its place is the waiter's", async () => {
  const dial = scriptedDial();
  const pool = testPool({ dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  lease.conn.blockedUntil = Promise.reject(new Error("reset"));
  lease.release();
  const next = await soon(pool.acquire("k"));
  assert.deepEqual([lease.conn.closes, dial.count, pool.stats().closed.blocked], [1, 2, 1]);
  next.release();
});

test("hazard 6: at GOAWAY a conn is unselected, finishes what runs, and is closed once", async () => {
  const dial = scriptedDial({ maxStreams: 2 });
  const pool = testPool({ dial });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  a.release();
  Object.assign(b.conn, { draining: true });
  const c = await pool.acquire("k");
  assert.notEqual(c.conn, b.conn, "though it told nobody");
  assert.equal(b.conn.closes, 0);
  b.conn.changed();
  b.release();
  assert.deepEqual([b.conn.closes, pool.stats().closed.goaway], [1, 1]);
  c.release();
});

test("hazard 6: what was certainly not sent is sent again once, and what may have been is not", async () => {
  for (const [sent, attempts] of [
    [false, 2],
    [true, 1],
  ] as const) {
    const conns: ScriptedConn[] = [];
    const dial = () => {
      const conn = new ScriptedConn({ maxStreams: 10 });
      conns.push(conn);
      conn.invoke = () => {
        conn.started++;
        return Promise.reject(new ConnClosedError("goaway", sent));
      };
      return conn;
    };
    const pool = new Pool<string, Conn>({ dial, clock: new FakeClock() });
    const error = await refusal(pool.get("k", { retryUnsent: true }).invoke(echo, "x"));
    assert.ok(error instanceof ConnClosedError);
    assert.equal(
      conns.reduce((sum, { started }) => sum + started, 0),
      attempts,
    );
    assert.equal(pool.stats().streams, 0);
  }
});

test("hazard 7: a burst in one turn spreads over conns by their slots: none gets more than it has", async () => {
  const dial = scriptedDial({ maxStreams: 3 }, { maxStreams: 3 });
  const pool = new Pool<string, Conn>({ dial, clock: new FakeClock() });
  const handle = pool.get("k");
  for (let call = 0; call < 30; call++) outcome(handle.invoke(echo, "x"));
  await settle();
  assert.deepEqual(
    dial.conns.map(({ calls }) => calls.size),
    Array.from({ length: 10 }, () => 3),
  );
});
