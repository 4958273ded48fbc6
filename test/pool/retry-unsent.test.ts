import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallOptions, Conn, Rpc, Stream } from "../../src/contract.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { rejection } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

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

test("retryUnsent sends again what certainly never reached the peer", async (t) => {
  const { pool } = pooled<Conn>(t);
  const { dial, sent } = failing([unsent()]);
  assert.equal(await call(pool.get("k", dial, { retryUnsent: true })), "world");
  assert.equal(sent(), 2);
  const stream = failing([unsent()]);
  await (await pool.get("s", stream.dial, { retryUnsent: true }).newStream(echo)).close();
  assert.equal(stream.sent(), 2);
  assert.deepEqual([pool.stats().streams, pool.stats().leased], [0, 0]);
});

test("a call on a conn that has closed in the same turn moves to another conn", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial({ answer: () => "world" });
  const handle = pool.get("k", dial, { retryUnsent: true });
  await call(handle);
  dial.conns[0]?.die(); // the pool will know one microtask later
  assert.equal(await call(handle), "world");
  assert.deepEqual([dial.count, dial.conns[1]?.started], [2, 1]);
});

test("an RPC is sent again once: a second failure is the caller's", async (t) => {
  const { pool } = pooled<Conn>(t);
  const second = unsent();
  const { dial, sent } = failing([unsent(), second]);
  assert.equal(await rejection(call(pool.get("k", dial, { retryUnsent: true }))), second);
  assert.deepEqual([sent(), pool.stats().streams], [2, 0]);
});

test("an RPC is never sent again when it may have been sent, and never unless asked to", async (t) => {
  const { pool } = pooled<Conn>(t);
  const errors = [new ConnClosedError("died", true), Object.assign(new Error("not the pool's"), { sent: false })];
  for (const error of errors) {
    const { dial, sent } = failing([error]);
    assert.equal(await rejection(call(pool.get(error.message, dial, { retryUnsent: true }))), error);
    assert.deepEqual([sent(), pool.stats().streams], [1, 0]);
  }
  const { dial, sent } = failing([unsent()]);
  assert.equal((await rejection(call(pool.get("default", dial)))).name, "ConnClosedError");
  assert.equal(sent(), 1);
});

test("the second attempt has what is left of the budget", async (t) => {
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
