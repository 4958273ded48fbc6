import assert from "node:assert/strict";
import { test } from "node:test";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

test("dials and hits are counted, for the pool and for each key", async (t) => {
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

test("tryAcquire that finds the last conn draining is counted as a miss", async (t) => {
  const conn = new ScriptedConn();
  const { pool } = pooled(t);
  pool.put("k", conn);
  conn.draining = true;
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.stats().misses, 1);
});

test("stats(key) lists each conn's state, tags, age, uses and streams; it is a frozen snapshot", async (t) => {
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
