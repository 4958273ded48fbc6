import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { PoolClosedError, WaitTimeoutError } from "../../src/errors.ts";
import { spentMs } from "../../src/explanation.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome, rejection } from "../support/outcome.ts";
import { call, fullKey, pooled } from "../support/pool.ts";

test("one deadline for wait, dial and call: the call gets what the wait and the dial have left", async (t) => {
  const { pool, clock } = pooled<Conn>(t);
  const dial = scriptedDial({}, { manual: true });
  const unary = call(pool.get("k", dial), { timeoutMs: 1000, metadata: { who: "me" } });
  const stream = pool.get("s", dial).newStream(echo, { timeoutMs: 1000 });
  await clock.advance(300);
  for (const pending of dial.pending) pending.arrive();
  await settle();
  const options = dial.conns.map((conn) => [...conn.calls][0]?.options);
  const left = { timeoutMs: 700, [spentMs]: 300 };
  assert.deepEqual(options, [{ ...left, metadata: { who: "me" } }, left]);
  for (const conn of dial.conns) for (const running of conn.calls) running.answer("done");
  assert.equal(await unary, "done");
  await stream;
});

test("on a hit the whole budget is the call's", async (t) => {
  const { pool } = pooled<Conn>(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const running = call(pool.get("k"), { timeoutMs: 1000 });
  assert.equal([...conn.calls][0]?.options?.timeoutMs, 1000);
  for (const one of conn.calls) one.answer("done");
  await running;
});

test("the error says where the time went: waited, dialed, and the counts", async (t) => {
  const { pool, clock } = pooled<Conn>(t, { maxKeyConns: 1 });
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const handle = pool.get("host:1", dial);
  const first = call(handle);
  const second = rejection(call(handle, { timeoutMs: 1000 }));
  await clock.advance(250);
  dial.pending[0]?.arrive();
  await clock.advance(750);
  const error = await second;
  assert.deepEqual([error.name, "code" in error && error.code], ["WaitTimeoutError", "ERR_POOL_WAIT_TIMEOUT"]);
  for (const part of [
    "host:1",
    "within 1,000 ms",
    "waited 750 ms for a slot and 250 ms for a dial",
    "held back by maxKeyConns: 1 of 1, 1 leased",
  ]) {
    assert.ok(error.message.includes(part), `"${part}" is not in "${error.message}"`);
  }
  assert.equal(error.cause, undefined); // no dial has failed
  for (const one of dial.conns[0]?.calls ?? []) one.answer("done");
  await first;
});

test("callers without a time limit are told how long each has waited, whoever came before", async (t) => {
  const { ask, pool, clock } = fullKey(t);
  const held = await ask("held");
  const first = rejection(ask("first"));
  await clock.advance(50);
  const second = rejection(ask("second"));
  const third = rejection(ask("third"));
  await clock.advance(30);
  const closing = pool.close();
  for (const [caller, waitedMs] of [
    [first, 80],
    [second, 30],
    [third, 30],
  ] as const) {
    const error = await caller;
    assert.ok(error instanceof PoolClosedError);
    assert.equal(error.waitedMs, waitedMs);
  }
  held.release();
  await closing;
});

test("of a dial that was in flight before, a caller is told no more than what it has waited for it", async (t) => {
  const { pool, clock } = pooled<Conn>(t, { maxKeyConns: 1 });
  const dial = scriptedDial({}, { manual: true });
  const first = pool.acquire("k", { dial });
  await clock.advance(50);
  const second = rejection(pool.acquire("k", { dial, timeoutMs: 100 }));
  await clock.advance(10);
  dial.pending[0]?.arrive();
  await clock.advance(90);
  const error = await second;
  assert.ok(error instanceof WaitTimeoutError);
  assert.deepEqual([error.dialMs, error.slotMs], [10, 90]);
  (await first).release();
});

test("a lease that is dialed for has the same deadline, and its dial is abandoned then", async (t) => {
  const { pool, clock } = pooled<Conn>(t);
  const dial = scriptedDial({}, { manual: true });
  const waiting = rejection(pool.acquire("k", { dial, timeoutMs: 100 }));
  await clock.advance(100);
  const error = await waiting;
  assert.equal(error.name, "WaitTimeoutError");
  assert.match(error.message, /waited 100 ms for a dial; .*1 dial in flight, the oldest for 100 ms/);
  assert.equal(dial.pending[0]?.signal.aborted, true);
  assert.deepEqual([pool.stats().timeouts, [...pool.keys()]], [1, []]);
});

test("a waiter says how long it waits; others wait as long as waitTimeoutMs says, or for ever", async (t) => {
  const { ask, clock, pool } = fullKey(t, { waitTimeoutMs: 500 });
  const held = await ask("held");
  const [standard, short, long] = [ask("x"), ask("x", { timeoutMs: 100 }), ask("x", { timeoutMs: 900 })];
  const [a, b, c] = [outcome(standard), outcome(short), outcome(long)];
  const states = () => [a.state, b.state, c.state];
  await clock.advance(99);
  assert.deepEqual(states(), ["pending", "pending", "pending"]);
  await clock.advance(1);
  assert.deepEqual(states(), ["pending", "rejected", "pending"]);
  await clock.advance(399);
  assert.deepEqual(states(), ["pending", "rejected", "pending"]);
  await clock.advance(1);
  assert.deepEqual(states(), ["rejected", "rejected", "pending"]);
  await clock.advance(399);
  assert.equal(c.state, "pending");
  held.release();
  (await long).release();
  pool.configure({ waitTimeoutMs: 0 });
  const again = await ask("held");
  const patient = ask("x");
  await clock.advance(10_000_000);
  again.release();
  (await patient).release();
});

test("a deadline of hours is kept like one of seconds", async (t) => {
  const { pool, clock } = pooled<Conn>(t, { maxKeyConns: 1 });
  pool.put("k", new ScriptedConn());
  pool.tryAcquire("k");
  const hours = 10_000_000;
  const waiting = outcome(pool.acquire("k", { timeoutMs: hours }));
  await clock.advance(hours - 1);
  assert.equal(waiting.state, "pending");
  await clock.advance(1);
  assert.equal(waiting.state, "rejected");
});
