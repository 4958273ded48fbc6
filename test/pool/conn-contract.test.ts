import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { deferred, PlainConn, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

const never = new Promise<void>(() => {});

test("anything with close and closed can be pooled, exclusive by default", async (t) => {
  const { pool, clock } = pooled<PlainConn>(t, { keyCapacity: 1, expirationMs: 1000 });
  const things: PlainConn[] = [];
  const dial = () => {
    const made = new PlainConn();
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

test("closed may be any thenable, and a conn may be a function: the core knows no protocol", async (t) => {
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

test("a conn whose closed rejects is dead too", async (t) => {
  const { pool } = pooled<PoolConn>(t);
  const closed = deferred();
  pool.put("k", { close: () => assert.fail("it is closed already"), closed: closed.promise });
  closed.reject(new Error("ECONNRESET"));
  await settle();
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().open, 0);
});

test("a conn that is put in and says in the same breath that it is closed is not held", async (t) => {
  const { pool } = pooled(t);
  const conn = new ScriptedConn();
  const then = (yes?: ((value: undefined) => unknown) | null) => void yes?.(undefined);
  // oxlint-disable-next-line unicorn/no-thenable -- it is what is tested
  Object.defineProperty(conn, "closed", { value: { then } });
  assert.equal(pool.put("k", conn), false);
  await settle();
  assert.deepEqual([[...pool.keys()], pool.stats().open, conn.closes], [[], 0, 0]);
});

test("a close() that rejects, throws or hangs holds up neither its key nor another", async (t) => {
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

test("a slow close() of an evicted conn blocks no key, its own included", async (t) => {
  const { lease } = pooled(t, { capacity: 1 });
  const dial = scriptedDial({ close: () => never });
  (await lease("slow", dial)).release();
  (await lease("other", dial)).release(); // evicts the slow one, whose close hangs
  assert.equal(dial.conns[0]?.closes, 1);
  assert.equal((await lease("third", dial)).conn, dial.conns[2]);
  assert.equal((await lease("slow", dial)).conn, dial.conns[3]);
});

test("a slow close() frees the conn's place under maxConns at once", async (t) => {
  const dial = scriptedDial<string>((key) => (key === "slow" ? { close: () => never } : {}));
  const { pool } = pooled(t, { dial, maxConns: 1 });
  (await soon(pool.acquire("slow"))).release();
  (await soon(pool.acquire("fast"))).release();
  (await soon(pool.acquire("slow"))).release();
  const lease = await soon(pool.acquire("fast"));
  assert.equal(dial.count, 4);
  lease.release();
});
