import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallOptions, Conn, Rpc, Stream } from "../../src/contract.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

test("row 40: one deadline for wait, dial and call: the call gets what the wait and the dial have left", async (t) => {
  const { pool, clock } = pooled<Conn>(t);
  const dial = scriptedDial({}, { manual: true });
  const unary = call(pool.get("k", dial), { timeoutMs: 1000, metadata: { who: "me" } });
  const stream = pool.get("s", dial).newStream(echo, { timeoutMs: 1000 });
  await clock.advance(300);
  for (const pending of dial.pending) pending.arrive();
  await settle();
  const options = dial.conns.map((conn) => [...conn.calls][0]?.options);
  assert.deepEqual(options, [{ timeoutMs: 700, metadata: { who: "me" } }, { timeoutMs: 700 }]);
  for (const conn of dial.conns) for (const running of conn.calls) running.answer("done");
  assert.equal(await unary, "done");
  await stream;
});

test("row 40: on a hit the whole budget is the call's", async (t) => {
  const { pool } = pooled<Conn>(t);
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const running = call(pool.get("k"), { timeoutMs: 1000 });
  assert.equal([...conn.calls][0]?.options?.timeoutMs, 1000);
  for (const one of conn.calls) one.answer("done");
  await running;
});

test("row 40: the error says where the time went: waited, dialed, and the counts", async (t) => {
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
    "waited 1000 ms",
    "250 ms of it dialing",
    "1 open",
    "0 idle",
    "1 leased",
    "waiting: 1",
  ]) {
    assert.ok(error.message.includes(part), `"${part}" is not in "${error.message}"`);
  }
  assert.equal(error.cause, undefined); // no dial has failed
  for (const one of dial.conns[0]?.calls ?? []) one.answer("done");
  await first;
});

test("row 40: a lease that is dialed for has the same deadline, and its dial is abandoned then", async (t) => {
  const { pool, clock } = pooled<Conn>(t);
  const dial = scriptedDial({}, { manual: true });
  const waiting = rejection(pool.acquire("k", { dial, timeoutMs: 100 }));
  await clock.advance(100);
  const error = await waiting;
  assert.equal(error.name, "WaitTimeoutError");
  assert.match(error.message, /waited 100 ms, 100 ms of it dialing/);
  assert.equal(dial.pending[0]?.signal.aborted, true);
  assert.deepEqual([pool.stats().timeouts, [...pool.keys()]], [1, []]);
});

test("row 40: a timeout of zero, a negative one or NaN is refused", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  for (const timeoutMs of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const refused of [call(pool.get("k", dial), { timeoutMs }), pool.acquire("k", { dial, timeoutMs })]) {
      const error = await rejection(refused);
      assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
    }
  }
  assert.equal(dial.count, 0);
});

/** A conn whose RPCs fail with what `errors` holds, one after the other, and then succeed. */
function failing(errors: Error[]) {
  let sent = 0;
  class Failing extends ScriptedConn {
    override async invoke<I, O>(_rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
      sent++;
      const error = errors.shift();
      if (error !== undefined) throw error;
      return super.invoke<I, O>(_rpc, request, options);
    }
    override async newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
      sent++;
      const error = errors.shift();
      if (error !== undefined) throw error;
      return super.newStream(rpc, options);
    }
  }
  return { dial: () => new Failing({ answer: () => "world" }), sent: () => sent };
}
const unsent = () => new ConnClosedError("died", false);

test("row 22: retryUnsent sends again what certainly never reached the peer", async (t) => {
  const { pool } = pooled<Conn>(t);
  const { dial, sent } = failing([unsent()]);
  assert.equal(await call(pool.get("k", dial, { retryUnsent: true })), "world");
  assert.equal(sent(), 2);
  const stream = failing([unsent()]);
  await (await pool.get("s", stream.dial, { retryUnsent: true }).newStream(echo)).close();
  assert.equal(stream.sent(), 2);
  assert.deepEqual([pool.stats().streams, pool.stats().leased], [0, 0]);
});

test("row 22: a call on a conn that has closed in the same turn moves to another conn", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial({ answer: () => "world" });
  const handle = pool.get("k", dial, { retryUnsent: true });
  await call(handle);
  dial.conns[0]?.die(); // the pool will know one microtask later
  assert.equal(await call(handle), "world");
  assert.deepEqual([dial.count, dial.conns[1]?.started], [2, 1]);
});

test("row 22: once: a second failure is the caller's", async (t) => {
  const { pool } = pooled<Conn>(t);
  const second = unsent();
  const { dial, sent } = failing([unsent(), second]);
  assert.equal(await rejection(call(pool.get("k", dial, { retryUnsent: true }))), second);
  assert.equal(sent(), 2);
});

test("row 22: never when it may have been sent, and never unless asked to", async (t) => {
  const { pool } = pooled<Conn>(t);
  const errors = [new ConnClosedError("died", true), Object.assign(new Error("not the pool's"), { sent: false })];
  for (const error of errors) {
    const { dial, sent } = failing([error]);
    assert.equal(await rejection(call(pool.get(error.message, dial, { retryUnsent: true }))), error);
    assert.equal(sent(), 1);
  }
  const { dial, sent } = failing([unsent()]);
  assert.equal((await rejection(call(pool.get("default", dial)))).name, "ConnClosedError");
  assert.equal(sent(), 1);
});

test("row 22: the second attempt has what is left of the budget", async (t) => {
  const { pool, clock } = pooled<Conn>(t);
  const dial = scriptedDial({}, { manual: true });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  const running = call(pool.get("k", dial, { retryUnsent: true }), { timeoutMs: 1000 });
  await clock.advance(400);
  for (const one of conn.calls) one.fail(unsent());
  conn.die();
  await settle();
  await clock.advance(100);
  const second = dial.pending[0]?.arrive();
  await settle();
  assert.equal([...(second?.calls ?? [])][0]?.options?.timeoutMs, 500);
  for (const one of second?.calls ?? []) one.answer("done");
  assert.equal(await running, "done");
});

test("row 40: hours are kept like seconds", async (t) => {
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
