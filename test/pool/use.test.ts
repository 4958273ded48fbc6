import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, PoolConn } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { deferred, type ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

const failure = new Error("on the way out");
/** Every way out of `use`. */
const ways: Record<string, { fn: (conn: ScriptedConn) => Promise<string>; throws?: Error }> = {
  "a value": { fn: async () => "value" },
  "a rejection": { fn: () => Promise.reject(failure), throws: failure },
  "a throw before the first await": {
    fn: () => {
      throw failure;
    },
    throws: failure,
  },
  "an abort": {
    fn: async (conn) => {
      const signal = AbortSignal.abort(failure);
      conn.started++;
      signal.throwIfAborted();
      return "not reached";
    },
    throws: failure,
  },
};

for (const [way, { fn, throws }] of Object.entries(ways)) {
  test(`row 30: use gives its slot back on ${way}, before the caller learns`, async (t) => {
    const { pool } = pooled(t, { dial: scriptedDial() });
    const free = () => pool.stats().idle === 1 && pool.stats().streams === 0;
    const seen = await pool.use("k", fn).then(
      (value) => ({ value, free: free() }),
      (error: unknown) => ({ error, free: free() }),
    );
    assert.deepEqual(seen, throws === undefined ? { value: "value", free: true } : { error: throws, free: true });
    assert.equal(await pool.use("k", async () => "again"), "again");
    assert.equal(pool.stats().dials, 1);
  });
}

test("row 30: use holds the slot until fn has settled, and the conn it was given stays open", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial(), capacity: -1 });
  const running = deferred<string>();
  const used = pool.use("k", () => running.promise);
  await settle();
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().streams, 1);
  running.resolve("done");
  assert.equal(await used, "done");
  assert.equal(pool.stats().open, 0);
});

test("row 30: an abort or a timeout ends the wait of use, and fn is not called", async (t) => {
  const { pool, clock } = pooled(t, { maxKeyConns: 1, dial: scriptedDial() });
  const held = await pool.acquire("k");
  const caller = new AbortController();
  let calls = 0;
  const fn = async () => calls++;
  const aborted = pool.use("k", fn, { signal: caller.signal });
  const late = rejection(pool.use("k", fn, { timeoutMs: 10 }));
  caller.abort(failure);
  assert.equal(await rejection(aborted), failure);
  await clock.advance(10);
  assert.equal((await late).name, "WaitTimeoutError");
  held.release();
  await settle();
  assert.deepEqual([calls, pool.stats().idle], [0, 1]);
});

test("row 30: a conn that dies under fn is not given back", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  await pool.use("k", async (conn) => conn.die());
  await settle();
  assert.deepEqual([pool.stats().open, [...pool.keys()]], [0, []]);
});

/** The least that a conn can be. */
function thing() {
  const closed = deferred();
  const made = {
    closes: 0,
    closed: closed.promise,
    close() {
      made.closes++;
      closed.resolve();
    },
  };
  return made;
}

test("row 24: anything with close and closed can be pooled, exclusive by default", async (t) => {
  const { pool, clock } = pooled<ReturnType<typeof thing>>(t, { keyCapacity: 1, expirationMs: 1000 });
  const things: ReturnType<typeof thing>[] = [];
  const dial = () => {
    const made = thing();
    things.push(made);
    return made;
  };
  const [one, two] = [await pool.acquire("k", { dial }), await pool.acquire("k", { dial })];
  assert.equal(things.length, 2);
  one.release();
  two.release();
  assert.deepEqual(
    things.map(({ closes }) => closes),
    [1, 0],
  ); // capacity
  assert.equal(await pool.use("k", async (conn) => conn === things[1]), true);
  await clock.advance(1250);
  assert.deepEqual(
    things.map(({ closes }) => closes),
    [1, 1],
  ); // expiration
  const again = await pool.acquire("k", { dial });
  again.conn.close(); // it ends by itself
  await settle();
  assert.deepEqual([pool.stats().open, things[2]?.closes], [0, 1]);
});

test("row 24: the core knows no protocol: closed may be any thenable, and a conn may be a function", async (t) => {
  const { pool } = pooled<PoolConn>(t);
  let end: () => void = () => {};
  const then = (settled: () => void) => {
    end = settled;
  };
  const conn = Object.assign(() => {}, {
    close: () => {},
    // oxlint-disable-next-line unicorn/no-thenable -- a thenable that is no promise is what is tested
    closed: { then } as unknown as PromiseLike<void>,
  });
  assert.equal(pool.put("k", conn), true);
  assert.equal(pool.tryAcquire("k")?.conn, conn);
  end();
  assert.equal(pool.stats().open, 0);
});

test("row 24: what carries no RPCs is refused by get's calls with an error that says what to do, and stays", async (t) => {
  const { pool } = pooled<Conn>(t);
  const plain = thing();
  const handle = pool.get("k", () => plain as unknown as Conn);
  for (let i = 0; i < 2; i++) {
    const error = await rejection(call(handle));
    assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
    assert.match(error.message, /acquire or use/);
  }
  assert.deepEqual([pool.stats().idle, pool.stats().streams, plain.closes], [1, 0, 0]);
});

test("row 24: a close() that rejects, throws or hangs holds up neither its key nor another", async (t) => {
  const closes: (() => unknown)[] = [
    () => Promise.reject(new Error("rejected")),
    () => {
      throw new Error("thrown");
    },
    () => new Promise(() => {}),
  ];
  for (const close of closes) {
    const { pool } = pooled<PoolConn>(t, { capacity: 1 });
    const make = () => ({ close, closed: new Promise<void>(() => {}) });
    pool.put("a", make());
    pool.put("b", make());
    pool.put("b", make());
    const states = ["a", "b"].map((key) => outcome(pool.acquire(key, { dial: make })));
    await settle();
    assert.deepEqual(
      states.map(({ state }) => state),
      ["resolved", "resolved"],
    );
  }
});
