import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, rejection } from "../support/outcome.ts";
import { call, pooled } from "../support/pool.ts";

nothingUnheard();

interface Target {
  readonly address: string;
  readonly identity?: string;
}

test("keys made of an address and a TLS identity: equal ones share conns, identities never mix", async (t) => {
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

test("with hashKey, a conn dialed for one identity is never handed to another", async () => {
  interface Peer {
    readonly address: string;
    readonly identity: string;
  }
  const dial = scriptedDial<Peer>(({ identity }) => ({ tags: { identity } }));
  const hashKey = ({ address, identity }: Peer) => JSON.stringify([address, identity]);
  const pool = new Pool<Peer, ScriptedConn>({ dial, hashKey, clock: new FakeClock() });
  const peers = ["a", "b", 'a","b', "a,b", "__proto__"].flatMap((address) =>
    ["x", "y", 'x"]', ""].map((identity) => ({ address, identity })),
  );
  for (let round = 0; round < 2; round++) {
    for (const peer of peers) {
      await pool.use({ ...peer }, async ({ tags }) => assert.equal(tags?.["identity"], peer.identity));
    }
  }
  assert.equal(dial.count, peers.length);
  assert.equal(pool.stats().keys, peers.length);
});

test("keys() and the dial see the first key of each hash", async (t) => {
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

test("without hashKey keys are told apart as a Map does, however alike they look", async (t) => {
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
    [],
    "constructor",
    Symbol("k"),
  ];
  const dial = scriptedDial<unknown>((key) => ({ answer: () => key }));
  for (const key of keys) await pool.use(key, async (conn) => assert.ok("started" in conn), { dial });
  assert.equal(dial.count, keys.length);
  for (const key of [...keys, -0, Number.NaN]) pool.tryAcquire(key)?.release();
  assert.equal(pool.stats().hits, keys.length + 2); // -0 is 0, NaN is NaN
  assert.equal(pool.stats().keys, keys.length);
  assert.equal(dial.count, keys.length);
  assert.equal(Object.getPrototypeOf({}), Object.prototype); // "__proto__" is a key like any other
});

test("undefined is no key, given or made by hashKey", async (t) => {
  const plain = pooled<Conn, string | undefined>(t);
  const hashed = pooled<Conn>(t, { hashKey: () => undefined });
  const dial = scriptedDial<string | undefined>();
  for (const { pool, key } of [{ pool: plain.pool, key: undefined }]) {
    assert.throws(() => pool.get(key, dial), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.put(key, new ScriptedConn()), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.tryAcquire(key), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => pool.take(key), { code: "ERR_POOL_ARGUMENT" });
    const error = await rejection(pool.acquire(key, { dial }));
    assert.ok(error instanceof TypeError);
    assert.equal(error.name, "PoolTypeError");
  }
  assert.throws(() => hashed.pool.get("k", dial), { code: "ERR_POOL_ARGUMENT" });
  assert.equal(dial.count, 0);
});

test("keys are listable, and whether a key has any conn is answerable", async (t) => {
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

test("emptied keys do not stay in the map", async (t) => {
  const { pool, lease } = pooled(t, { capacity: 10 });
  const dial = scriptedDial();
  for (let i = 0; i < 1000; i++) (await lease(`k${i}`, dial)).release();
  assert.equal(pool.stats().keys, 10);
  assert.equal([...pool.keys()].length, 10);
  assert.equal(pool.stats().dials, 1000); // what the forgotten ones counted is kept
  for (const conn of dial.conns) conn.die();
  await settle();
  assert.equal(pool.stats().keys, 0);
});

test("emptied keys leave no trace, whichever way they were emptied", async (t) => {
  const { pool, clock } = pooled(t, { dial: scriptedDial(), expirationMs: 100 });
  const empty = () => {
    assert.deepEqual([...pool.keys()], []);
    assert.equal(pool.stats().keys, 0);
    assert.equal(clock.timers, 0);
  };
  const used = async () => {
    const lease = await pool.acquire("k");
    lease.release();
    return lease.conn;
  };
  await used();
  await clock.advance(130);
  empty(); // expired
  (await used()).die();
  await settle();
  empty(); // died
  await used();
  pool.clear("k");
  empty(); // cleared
  await used();
  pool.take("k");
  empty(); // taken
  const conn = await used();
  Object.assign(conn, { draining: true }).changed();
  empty(); // gone away
  await used();
  pool.configure({ keyCapacity: -1 });
  empty(); // configured
  pool.put("k", new ScriptedConn());
  empty(); // evicted, as nobody may be idle
  pool.configure({ keyCapacity: 0, maxKeyConns: -1 });
  assert.equal(pool.put("k", new ScriptedConn()), false);
  empty(); // refused
  pool.configure({ maxKeyConns: 0 });
  const abort = new AbortController();
  outcome(pool.acquire("k", { signal: abort.signal, dial: () => new Promise(() => {}) }));
  abort.abort();
  empty(); // aborted
  const dead = new ScriptedConn();
  dead.die();
  pool.put("k", dead);
  await settle();
  empty(); // died before it came
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.take("k"), undefined);
  pool.clear("k");
  empty(); // asked for
});
