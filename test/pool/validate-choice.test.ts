import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn } from "../support/conn.ts";
import { outcome } from "../support/outcome.ts";
import { pooled } from "../support/pooled.ts";
import { questions } from "../support/questions.ts";

test("row 26: tryAcquire and take: the one skips what is due, the other hands over the oldest, due or not", async (t) => {
  const { asked, validate } = questions(true);
  const { pool, clock } = pooled(t, { validate });
  const [old, young] = [new ScriptedConn(), new ScriptedConn()];
  pool.put("k", old);
  await clock.advance(500);
  pool.put("k", young);
  const lease = pool.tryAcquire("k");
  assert.equal(lease?.conn, young);
  assert.equal(pool.tryAcquire("k"), undefined);
  assert.equal(pool.tryAcquire("k", { filter: () => true }), undefined);
  lease?.release();
  assert.equal(pool.take("k"), old);
  assert.equal(asked.length, 0);
});

test("row 9: at the key cap the oldest conn goes, though a search had set it aside as due", async (t) => {
  const { validate } = questions(true);
  const { pool, clock } = pooled(t, { validate, keyCapacity: 3 });
  const conns = Array.from({ length: 6 }, () => new ScriptedConn());
  for (const conn of conns.slice(0, 3)) {
    pool.put("k", conn);
    await clock.advance(10);
  }
  await clock.advance(500);
  assert.equal(pool.tryAcquire("k"), undefined); // all three are due
  for (const conn of conns.slice(3)) pool.put("k", conn);
  assert.deepEqual(
    conns.map(({ closes }) => closes),
    [1, 1, 1, 0, 0, 0],
  );
});

test("row 26: with a filter, what passes is validated, and nothing else", async (t) => {
  const { asked, validate } = questions();
  const { pool, clock } = pooled(t, { validate });
  const conns = ["a", "b", "c"].map((name) => new ScriptedConn({ tags: { name } }));
  for (const conn of conns) pool.put("k", conn);
  await clock.advance(500);
  const waiting = outcome(pool.acquire("k", { filter: (_, { tags }) => tags?.["name"] === "b" }));
  await settle();
  assert.deepEqual([asked.length, asked[0]?.conn], [1, conns[1]]);
  asked[0]?.resolve(true);
  await settle();
  assert.equal(waiting.value?.conn, conns[1]);
});

test("row 26: a lowered validateAfterMs counts at once, and so does a raised one", async (t) => {
  const { asked, validate } = questions(true);
  const { pool, clock } = pooled(t, { validate, validateAfterMs: 10_000 });
  const conn = new ScriptedConn();
  pool.put("k", conn);
  pool.tryAcquire("k")?.release();
  await clock.advance(1000);
  pool.configure({ validateAfterMs: 1000 });
  assert.equal(pool.tryAcquire("k"), undefined);
  pool.configure({ validateAfterMs: 1001 });
  assert.equal(pool.tryAcquire("k")?.conn, conn);
  assert.equal(asked.length, 0);
});

test("row 26: with validation on, choosing among 10,000 conns that are due costs no more than among 10", async (t) => {
  let reads = 0;
  const closed = new Promise<void>(() => {});
  const counted = () => ({
    close() {},
    closed,
    get maxStreams() {
      reads++;
      return 1;
    },
  });
  const { pool, clock } = pooled<PoolConn>(t, { validate: async () => true });
  const cost = async (n: number) => {
    for (let i = 0; i < n; i++) pool.put(`${n}`, counted());
    await clock.advance(500);
    (await pool.acquire(`${n}`)).release();
    reads = 0;
    clock.readings = 0;
    for (let i = 0; i < 50; i++) (await pool.acquire(`${n}`)).release();
    return reads + clock.readings;
  };
  const few = await cost(10);
  const many = await cost(10_000);
  assert.ok(many <= few * 2, `${many} steps among 10,000, ${few} among 10`);
});
