import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallOptions, Conn, Rpc } from "../../src/contract.ts";
import { WaitTimeoutError } from "../../src/errors.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "../support/clock.ts";
import { answered, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { rejection, soon } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

/** A clock that knows what time it is on the wall. */
class WallClock extends FakeClock {
  wallNow(): number {
    return this.now() + 1_000_000;
  }
}

test("a time limit of 0 or less, the usual result of a deadline that has passed, has timed out at once", async (t) => {
  const { pool } = pooled<Conn>(t, { dial: scriptedDial(answered) });
  (await pool.acquire("k")).release();
  for (const timeoutMs of [0, -1, -1e9]) {
    for (const refused of [
      call(pool.get("k"), { timeoutMs }),
      pool.acquire("k", { timeoutMs }),
      pool.use("k", async () => {}, { timeoutMs }),
      pool.acquire("another", { timeoutMs }),
      pool.warm("k", 5, { timeoutMs }),
    ]) {
      const error = await rejection(refused);
      assert.ok(error instanceof WaitTimeoutError);
      assert.match(error.message, /the time limit was over when it was asked for/);
    }
  }
  assert.equal(pool.stats().dials, 1);
  assert.deepEqual([pool.stats().timeouts, pool.stats().waiting, [...pool.keys()]], [15, 0, ["k"]]);
});

test("deadline is a time limit as a point in time, and the earlier of both counts", async (t) => {
  const clock = new WallClock();
  const { pool } = pooled<Conn>(t, { clock, maxKeyConns: 1, dial: scriptedDial() });
  await pool.acquire("k");
  const at = (ms: number) => clock.wallNow() + ms;
  const waiting = [
    pool.acquire("k", { deadline: at(100) }),
    pool.acquire("k", { deadline: new Date(at(100)) }),
    pool.acquire("k", { deadline: at(100), timeoutMs: 500 }),
    pool.acquire("k", { deadline: at(500), timeoutMs: 100 }),
    call(pool.get("k"), { deadline: at(100) }),
  ].map(rejection);
  await clock.advance(99);
  assert.equal(pool.stats().waiting, 5);
  await clock.advance(1);
  for (const error of await Promise.all(waiting)) assert.ok(error instanceof WaitTimeoutError);
  assert.ok((await rejection(pool.acquire("k", { deadline: at(-1) }))) instanceof WaitTimeoutError);
});

test("a deadline that is no time is refused", async (t) => {
  const { pool } = pooled<Conn>(t, { dial: scriptedDial() });
  for (const deadline of [new Date("never"), Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const refused of [pool.acquire("k", { deadline }), call(pool.get("k"), { deadline })]) {
      const error = await rejection(refused);
      assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
    }
  }
});

test("a conn gets what is left of the deadline as its timeoutMs", async (t) => {
  const clock = new WallClock();
  const seen: unknown[] = [];
  class Watched extends ScriptedConn {
    override invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
      seen.push([options?.timeoutMs, options?.deadline]);
      return super.invoke(rpc, request, options);
    }
  }
  const { pool } = pooled<Conn>(t, { clock });
  pool.put("k", new Watched(answered));
  await soon(call(pool.get("k"), { deadline: clock.wallNow() + 250, timeoutMs: 1000 }));
  assert.deepEqual(seen, [[250, undefined]]);
});

test("unknown names in the options of a call are refused, with the name that was probably meant", async (t) => {
  const { pool } = pooled<Conn>(t, { dial: scriptedDial(answered) });
  const error = await rejection(call(pool.get("k"), JSON.parse('{ "timeoutMS": 5 }')));
  assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
  assert.match(error.message, /unknown option `timeoutMS` in a call's options; did you mean `timeoutMs`\?/);
  for (const [meant, told] of Object.entries({
    maxKeyConn: "maxKeyConns",
    maxConnections: "maxConns",
    minIdleConns: "minIdle",
  }))
    assert.throws(() => new Pool(JSON.parse(`{ "${meant}": 5 }`)), new RegExp(`did you mean \`${told}\``));
  assert.throws(() => new Pool(JSON.parse('{ "connections": 5 }')), /in the pool's options; known are/);
});

test("a Metadata of grpc-js given to a handle says what to do", async (t) => {
  const { pool } = pooled<Conn>(t, { dial: scriptedDial(answered) });
  const metadata = { getMap: () => ({}) };
  const options = { metadata: metadata as unknown as Record<string, string> };
  const error = await rejection(call(pool.get("k"), options));
  assert.match(error.message, /give \{ metadata: metadata.getMap\(\) \}/);
  const inPlaceOfOptions = await rejection(call(pool.get("k"), metadata as unknown as CallOptions));
  assert.match(inPlaceOfOptions.message, /give \{ metadata: metadata.getMap\(\) \}/);
});

test("Headers, a Map and a list are no metadata: nothing of them would be sent", async (t) => {
  const { pool } = pooled<Conn>(t, { dial: scriptedDial(answered) });
  for (const metadata of [new Headers({ a: "b" }), new Map([["a", "b"]]), [["a", "b"]], "a=b"]) {
    const options = { metadata: metadata as unknown as Record<string, string> };
    const error = await rejection(call(pool.get("k"), options));
    assert.match(error.message, /expected `metadata` to be a plain object \(Object.fromEntries makes one\), got /);
  }
});
