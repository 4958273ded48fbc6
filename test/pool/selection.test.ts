import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import type { ConnInfo, Selection } from "../../src/options.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn } from "../support/conn.ts";
import { soon } from "../support/outcome.ts";
import { pooled } from "../support/pooled.ts";

test('selection "least-loaded": the conn with the fewest streams, idle ones first', async (t) => {
  const { pool } = pooled(t, { selection: "least-loaded" });
  const conns = [1, 2, 3].map(() => new ScriptedConn({ maxStreams: 4 }));
  for (const conn of conns) pool.put("k", conn);
  const leases = Array.from({ length: 12 }, () => pool.tryAcquire("k"));
  assert.deepEqual(
    leases.map((lease) => conns.indexOf(lease?.conn ?? assert.fail())),
    [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
  );
  assert.equal(pool.tryAcquire("k"), undefined); // all full
  leases[1]?.release();
  leases[4]?.release();
  leases[2]?.release();
  const next = [1, 2, 3].map(() => pool.tryAcquire("k")?.conn);
  assert.deepEqual(next, [conns[1], conns[2], conns[1]]);
});

test('selection "fastest": the least mean call time, times the streams', async (t) => {
  const { pool, clock } = pooled(t, { selection: "fastest" });
  const [quick, slow] = [new ScriptedConn({ maxStreams: 10 }), new ScriptedConn({ maxStreams: 10 })];
  for (const conn of [slow, quick]) pool.put("k", conn);
  const run = async (conn: ScriptedConn, ms: number) => {
    const lease = pool.tryAcquire("k", { filter: (candidate) => candidate === conn });
    await clock.advance(ms);
    lease?.release();
  };
  await run(slow, 40);
  await run(quick, 10);
  const held = Array.from({ length: 10 }, () => pool.tryAcquire("k"));
  const onQuick = held.filter((lease) => lease?.conn === quick).length;
  assert.equal(onQuick, 8); // 8 x 10 ms is as much as 2 x 40 ms
  assert.equal(
    held.slice(0, 3).every((lease) => lease?.conn === quick),
    true,
  );
});

test('selection "fastest": a conn not yet tried is tried, one that slows down is left, and tried again some time', async (t) => {
  const { pool, clock } = pooled(t, { selection: "fastest" });
  const [a, b] = [new ScriptedConn(), new ScriptedConn()];
  for (const conn of [a, b]) pool.put("k", conn);
  const run = async (time: (conn: ScriptedConn | undefined) => number) => {
    const lease = pool.tryAcquire("k");
    await clock.advance(time(lease?.conn));
    lease?.release();
    return lease?.conn;
  };
  const even = () => 10;
  assert.notEqual(await run(even), await run(even));
  const worse = await run(() => 2000); // one peak is enough
  for (let i = 0; i < 20; i++) assert.notEqual(await run(even), worse);
  await clock.advance(100_000); // what is known of it is old
  assert.ok([await run(even), await run(even)].includes(worse));
});

test('selection "fastest": calls that run side by side are not slower for that', async (t) => {
  const { pool, clock } = pooled(t, { selection: "fastest" });
  const [busy, single] = [new ScriptedConn({ maxStreams: 10 }), new ScriptedConn({ maxStreams: 10 })];
  for (const conn of [busy, single]) pool.put("k", conn);
  const leases = (conn: ScriptedConn, count: number) =>
    Array.from({ length: count }, () => pool.tryAcquire("k", { filter: (candidate) => candidate === conn }));
  for (let round = 0; round < 3; round++) {
    const ten = leases(busy, 10); // 20 ms each
    await clock.advance(20);
    for (const lease of ten) lease?.release();
    const one = leases(single, 1); // 30 ms
    await clock.advance(30);
    one[0]?.release();
  }
  assert.equal(pool.tryAcquire("k")?.conn, busy);
});

test("row 9: also with selection fastest the oldest given back is evicted at the key cap", (t) => {
  const { pool } = pooled(t, { selection: "fastest", keyCapacity: 20 });
  const conns = Array.from({ length: 22 }, () => new ScriptedConn());
  for (const conn of conns.slice(0, 20)) pool.put("k", conn);
  const lease = pool.tryAcquire("k"); // some are compared, and go behind
  lease?.release();
  for (const conn of conns.slice(20)) pool.put("k", conn);
  const closed = conns.filter(({ closes }) => closes > 0);
  assert.deepEqual(closed, conns.filter((conn) => conn !== lease?.conn).slice(0, 2));
});

test("a selection of the caller's: it sees the conns with room and their facts, and is obeyed", async (t) => {
  const seen: { conns: readonly ScriptedConn[]; infos: readonly ConnInfo[] }[] = [];
  const { pool } = pooled(t, {
    selection: (conns, infos) => {
      seen.push({ conns, infos });
      return conns.at(-1);
    },
  });
  const conns = ["a", "b", "c"].map((name) => new ScriptedConn({ tags: { name } }));
  for (const conn of conns) pool.put("k", conn);
  assert.equal(pool.tryAcquire("k")?.conn, conns[2]);
  assert.deepEqual(seen[0]?.conns, conns);
  assert.deepEqual(
    seen[0]?.infos.map(({ tags, state, uses }) => [tags?.["name"], state, uses]),
    [
      ["a", "idle", 0],
      ["b", "idle", 0],
      ["c", "idle", 0],
    ],
  );
  const lease = await soon(pool.acquire("k", { filter: (_, { tags }) => tags?.["name"] !== "b" }));
  assert.equal(lease.conn, conns[0]);
  assert.deepEqual(seen.at(-1)?.conns, [conns[0]]); // among those that pass
});

for (const [what, selection] of [
  ["throws", () => assert.fail("broken selection")],
  ["chooses nothing", () => undefined],
  ["chooses what was not offered", () => new ScriptedConn()],
] as [string, Selection<ScriptedConn>][]) {
  test(`a selection of the caller's that ${what} gets the first`, (t) => {
    const { pool } = pooled(t, { selection });
    const first = new ScriptedConn();
    for (const conn of [first, new ScriptedConn()]) pool.put("k", conn);
    assert.equal(pool.tryAcquire("k")?.conn, first);
    assert.equal(pool.tryAcquire("k", { filter: (conn) => conn !== first })?.conn === first, false);
  });
}

test("a selection of the caller's may use the pool: what it takes is not handed out twice", async (t) => {
  let busy = false;
  const { pool } = pooled(t, {
    selection: (conns) => {
      if (busy) return conns[0];
      busy = true;
      pool.tryAcquire("k");
      busy = false;
      return conns[0];
    },
  });
  for (let i = 0; i < 3; i++) pool.put("k", new ScriptedConn());
  const lease = pool.tryAcquire("k");
  assert.deepEqual([lease === undefined, pool.stats().streams], [false, 2]);
  lease?.release();
  await settle();
});

const never = new Promise<void>(() => {});

for (const selection of ["oldest", "newest", "least-loaded", "fastest"] as const) {
  test(`selection "${selection}": choosing among 10,000 conns takes no longer than among 100, by far`, (t) => {
    const { pool } = pooled<PoolConn>(t, { selection });
    const time = (n: number) => {
      for (let i = 0; i < n; i++) pool.put(`${n}`, { close() {}, closed: never, maxStreams: 2 });
      for (let i = 0; i < n / 2; i++) pool.tryAcquire(`${n}`);
      let best = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 5; round++) {
        const start = performance.now();
        for (let i = 0; i < 200; i++) pool.tryAcquire(`${n}`)?.release();
        best = Math.min(best, performance.now() - start);
      }
      return best;
    };
    time(50);
    const few = time(100);
    const many = time(10_000);
    assert.ok(many < few * 20, `${many} ms among 10,000, ${few} ms among 100`); // linear would be 100 times
  });
}
