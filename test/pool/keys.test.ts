import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

interface Target {
  readonly address: string;
  readonly identity?: string;
}

test("row 13a: keys made of an address and a TLS identity: equal ones share conns, identities never mix", async (t) => {
  const { pool } = pooled<Conn, Target>(t, {
    hashKey: ({ address, identity }) => JSON.stringify([address, identity]),
  });
  const dial = scriptedDial<Target>(({ identity }) => ({ answer: () => `as ${identity}` }));
  const check = async (key: Target, dials: number, answer: string) => {
    assert.equal(await call(pool.get(key, dial)), answer);
    assert.equal(dial.count, dials);
  };
  await check({ address: "a:1", identity: "alice" }, 1, "as alice");
  await check({ address: "a:1", identity: "alice" }, 1, "as alice"); // another object, the same peer
  await check({ address: "a:1", identity: "bob" }, 2, "as bob"); // another identity
  await check({ address: "a:1" }, 3, "as undefined"); // none
  await check({ address: "a:2", identity: "alice" }, 4, "as alice"); // another address
  await check({ address: 'a:1","alice' }, 5, "as undefined"); // an address that looks like both
  await check({ address: "a:1", identity: "bob" }, 5, "as bob");
  assert.equal(pool.stats().keys, 5);
});

test("row 13a: keys() and the dial see the first key of each hash", async (t) => {
  const { pool } = pooled<ScriptedConn, Target>(t, { hashKey: ({ address }) => address });
  const first = { address: "a:1", identity: "first" };
  const second = { address: "a:1", identity: "second" };
  const dial = scriptedDial<Target>({}, { manual: true, maxStreams: 1 });
  const leases = [pool.acquire(first, { dial }), pool.acquire(second, { dial })];
  for (const pending of dial.pending) {
    assert.equal(pending.key, first);
    pending.arrive();
  }
  await Promise.all(leases);
  assert.deepEqual([...pool.keys()], [first]);
});

test("row 13a: without hashKey keys are told apart as a Map does", async (t) => {
  const { pool } = pooled<Conn, unknown>(t);
  const object = {};
  const keys = [
    1,
    "1",
    true,
    "true",
    null,
    "null",
    Number.NaN,
    "NaN",
    object,
    {},
    "[object Object]",
    "__proto__",
    0,
    "",
    1n,
  ];
  const dial = scriptedDial<unknown>((key) => ({ answer: () => key }));
  for (const key of keys) await pool.use(key, async (conn) => assert.ok("started" in conn), { dial });
  assert.equal(dial.count, keys.length);
  for (const key of [...keys, -0, Number.NaN]) pool.tryAcquire(key)?.release();
  assert.equal(pool.stats().hits, keys.length + 2); // -0 is 0, NaN is NaN
  assert.equal(pool.stats().keys, keys.length);
});

test("row 13a: undefined is no key, given or made by hashKey", async (t) => {
  const plain = pooled<Conn, string | undefined>(t);
  const hashed = pooled<Conn>(t, { hashKey: () => undefined });
  const dial = scriptedDial<string | undefined>();
  for (const { pool, key } of [{ pool: plain.pool, key: undefined }]) {
    assert.throws(() => pool.get(key, dial), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.put(key, new ScriptedConn()), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.tryAcquire(key), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.take(key), { code: "ERR_POOL_ARGUMENT" });
    assert.equal((await rejection(pool.acquire(key, { dial }))).name, "PoolTypeError");
  }
  assert.throws(() => hashed.pool.get("k", dial), { code: "ERR_POOL_ARGUMENT" });
  assert.equal(dial.count, 0);
});

test("row 13d: the peer's state of the conn in use is at hand: lease.conn is what dial returned", async (t) => {
  const { pool } = pooled(t);
  const dial = scriptedDial({ tags: { node: 7 } });
  const lease = await pool.acquire("k", { dial });
  assert.equal(lease.conn, dial.conns[0]);
  assert.equal(lease.conn.tags?.["node"], 7);
  lease.release();
  assert.equal(await pool.use("k", async (conn) => conn), dial.conns[0]);
});

test("row 13e: dials and hits are counted, for the pool and for each key", async (t) => {
  const { pool, lease } = pooled(t, { maxKeyConns: 1 });
  const dial = scriptedDial();
  const check = (key: string | undefined, hits: number, misses: number, dials: number, why: string) => {
    const stats = pool.stats(key);
    assert.deepEqual([stats.hits, stats.misses, stats.dials], [hits, misses, dials], why);
  };
  check(undefined, 0, 0, 0, "nothing has happened");
  (await lease("a", dial)).release();
  check("a", 0, 1, 1, "nothing was cached");
  (await lease("a", dial)).release();
  pool.tryAcquire("a")?.release();
  check("a", 2, 1, 1, "two hits");
  const held = await lease("b", dial);
  const waiting = lease("b", dial);
  held.release();
  (await waiting).release();
  check("b", 0, 2, 1, "one dialed for, one waited: neither found a conn with room");
  pool.tryAcquire("nobody");
  check(undefined, 2, 3, 2, "the pool's are those of all keys; no record of a key that nobody used");
  pool.clear("a");
  check("a", 0, 0, 0, "a key's counts are since it last appeared");
  check(undefined, 2, 3, 2, "the pool's stay");
  const refused = new Error("refused");
  await rejection(pool.acquire("c", { dial: () => Promise.reject(refused) }));
  assert.deepEqual([pool.stats().dials, pool.stats().dialErrors], [3, 1]);
});

test("row 23: stats(key) lists each conn's state, tags, age, uses and streams; it is a frozen snapshot", async (t) => {
  const { pool, clock } = pooled(t);
  const make = (name: string, maxStreams: number) => new ScriptedConn({ tags: { name }, maxStreams });
  pool.put("k", make("draining", 2));
  pool.tryAcquire("k");
  pool.clear("k");
  await clock.advance(100);
  pool.put("k", make("leased", 2));
  pool.tryAcquire("k")?.release();
  pool.tryAcquire("k");
  await clock.advance(50);
  pool.put("k", make("idle", 3));
  const stats = pool.stats("k");
  const infos = [...(stats.conns ?? [])].sort((a, b) => b.ageMs - a.ageMs);
  const base = { blocked: false };
  assert.deepEqual(infos, [
    { ...base, state: "draining", streams: 1, maxStreams: 2, tags: { name: "draining" }, ageMs: 150, uses: 1 },
    { ...base, state: "leased", streams: 1, maxStreams: 2, tags: { name: "leased" }, ageMs: 50, uses: 2 },
    { ...base, state: "idle", streams: 0, maxStreams: 3, tags: { name: "idle" }, ageMs: 0, uses: 0 },
  ]);
  const { open, idle, leased, draining, streams } = stats;
  assert.deepEqual([open, idle, leased, draining, streams], [3, 1, 1, 1, 2]);
  for (const part of [stats, stats.closed, stats.conns, infos[0]]) assert.ok(Object.isFrozen(part));
  pool.clear();
  assert.equal(stats.idle, 1); // a snapshot
  assert.equal(pool.stats().conns, undefined); // only with a key
});

test("row 23: keys are listable, and whether a key has any conn is answerable", async (t) => {
  const { pool, lease } = pooled(t);
  const dial = scriptedDial({}, { manual: true });
  pool.put("idle", new ScriptedConn());
  pool.put("leased", new ScriptedConn());
  pool.tryAcquire("leased");
  const dialing = lease("dialing", dial);
  assert.deepEqual([...pool.keys()].sort(), ["dialing", "idle", "leased"]);
  const open = (key: string) => pool.stats(key).open;
  assert.deepEqual([open("idle"), open("leased"), open("dialing"), open("unknown")], [1, 1, 0, 0]);
  assert.deepEqual([pool.stats("dialing").dialing, pool.stats("dialing").waiting], [1, 1]);
  assert.deepEqual(pool.stats("unknown").conns, []);
  assert.equal([...pool.keys()].length, 3); // asking left no trace
  pool.take("idle"); // pop
  assert.deepEqual([...pool.keys()].sort(), ["dialing", "leased"]);
  dial.pending[0]?.arrive();
  await dialing;
});
