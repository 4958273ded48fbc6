import assert from "node:assert/strict";
import { test } from "node:test";
import type { ConnInfo, Selection } from "../../src/options.ts";
import { EntriesByLoad } from "../../src/pool/selector.ts";
import type { Linked, List } from "../../src/runtime/list.ts";
import { settle } from "../support/clock.ts";
import { namedConns, ScriptedConn } from "../support/conn.ts";
import { soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

test('with selection "oldest" choosing scans oldest first: the conn given back first is taken first', (t) => {
  const { pool } = pooled(t, { selection: "oldest" });
  const { a, b, c } = namedConns("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  const check = (expected: ScriptedConn, why: string) => {
    const lease = pool.tryAcquire("k");
    assert.equal(lease?.conn, expected, why);
    lease?.release();
  };
  check(a, "put first");
  check(b, "a was given back just now");
  check(c, "so was b");
  check(a, "round again");
});

test("conns that run streams come before idle ones, the one longest with room first", (t) => {
  const { pool } = pooled(t, { selection: "oldest" });
  const [a, b, c] = [1, 2, 3].map(() => new ScriptedConn({ maxStreams: 2 }));
  for (const conn of [a, b, c]) if (conn !== undefined) pool.put("k", conn);
  const take = () => pool.tryAcquire("k")?.conn;
  assert.equal(take(), a); // all idle: the oldest
  assert.equal(take(), a); // it runs a stream and has room
  assert.equal(take(), b); // a is full
  assert.equal(take(), b);
  assert.equal(take(), c);
  assert.equal(take(), c);
  assert.equal(take(), undefined); // all full
});

test("a conn with room keeps its turn when one of its streams ends and others run on", (t) => {
  const { pool } = pooled(t, { selection: "oldest" });
  const [a, b] = [1, 2].map(() => new ScriptedConn({ maxStreams: 3 }));
  for (const conn of [a, b]) if (conn !== undefined) pool.put("k", conn);
  const [onA, , , onB] = Array.from({ length: 5 }, () => pool.tryAcquire("k")); // three on a, two on b
  onA?.release(); // a has room again, and stands behind b
  onB?.release();
  assert.equal(pool.tryAcquire("k")?.conn, b);
});

test('selection "newest", the default, is the same from the other end', (t) => {
  const { pool } = pooled(t);
  const { a, b, c } = namedConns("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  assert.equal(pool.tryAcquire("k")?.conn, c);
  assert.equal(pool.tryAcquire("k")?.conn, b);
  assert.equal(pool.tryAcquire("k")?.conn, a);
});

test('selection "least-loaded" takes the conn with the fewest streams, idle ones first', async (t) => {
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

test('selection "fastest" takes the conn with the least mean call time, times its streams', async (t) => {
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

test('selection "least-loaded" takes the least loaded of those that pass a filter, too', async (t) => {
  const { pool } = pooled(t, { selection: "least-loaded" });
  const conns = [1, 2, 3, 4].map((load) => new ScriptedConn({ maxStreams: 6, tags: { load } }));
  for (const conn of conns) pool.put("k", conn);
  // Loads come in an order of their own: 3 before 2 and 4.
  for (const load of [3, 1, 4, 2])
    for (let i = 0; i < load; i++) pool.tryAcquire("k", { filter: ({ tags }) => tags?.["load"] === load });
  const taken = [1, 2, 3].map(() => pool.tryAcquire("k", { filter: ({ tags }) => tags?.["load"] !== 1 })?.conn);
  assert.deepEqual(
    taken.map((conn) => conn?.tags?.["load"]),
    [2, 3, 2],
  );
  assert.equal(pool.tryAcquire("k")?.conn, conns[0]);
});

test("conns stand in the order of their loads, whichever loads come first and are left out", () => {
  class Node implements Linked<Node> {
    prev: Node | undefined = undefined;
    next: Node | undefined = undefined;
    list: List<Node> | undefined = undefined;
    readonly load: number;
    constructor(load: number) {
      this.load = load;
    }
  }
  const byLoad = new EntriesByLoad<Node>();
  for (const load of [5, 1, 3, 9, 7, 2, 3]) byLoad.of(load).push(new Node(load));
  assert.deepEqual(
    [...byLoad].map(({ load }) => load),
    [1, 2, 3, 3, 5, 7, 9],
  );
  for (const load of [1, 2, 3, 3, 5, 7, 9]) {
    assert.equal(byLoad.least?.load, load);
    byLoad.least.list?.remove(byLoad.least);
  }
  assert.equal(byLoad.least, undefined);
});

test('selection "fastest" takes the fastest of those that pass a filter, too', async (t) => {
  const { pool, clock } = pooled(t, { selection: "fastest" });
  const [slow, quick, medium] = [new ScriptedConn(), new ScriptedConn(), new ScriptedConn()];
  for (const [conn, ms] of [
    [slow, 40],
    [quick, 10],
    [medium, 20],
  ] as const) {
    pool.put("k", conn);
    const lease = pool.tryAcquire("k", { filter: (candidate) => candidate === conn });
    await clock.advance(ms);
    lease?.release();
  }
  const taken = [1, 2, 3].map(() => pool.tryAcquire("k", { filter: () => true })?.conn);
  for (const [i, conn] of [quick, medium, slow].entries()) assert.equal(taken[i], conn);
});

test('with selection "fastest" a conn not yet tried is tried, one that slows down is left, and tried again some time', async (t) => {
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

test('selection "fastest" takes the one longest idle of those that are equally fast, none tried yet, say', (t) => {
  const { pool } = pooled(t, { selection: "fastest" });
  const { a, b, c } = namedConns("a", "b", "c");
  for (const conn of [a, b, c]) pool.put("k", conn);
  const taken = [1, 2, 3].map(() => pool.tryAcquire("k")?.conn);
  assert.deepEqual(taken, [a, b, c]);
});

test('selection "fastest" compares sixteen of many idle conns at a time, and the others at the next choice', async (t) => {
  const { pool, clock } = pooled(t, { selection: "fastest" });
  const conns = Array.from({ length: 17 }, () => new ScriptedConn());
  for (const conn of conns) {
    pool.put("k", conn);
    const lease = pool.tryAcquire("k", { filter: (candidate) => candidate === conn });
    await clock.advance(conn === conns[16] ? 1 : 100);
    lease?.release();
  }
  const [first, second] = [pool.tryAcquire("k"), pool.tryAcquire("k")];
  assert.notEqual(first?.conn, conns[16]);
  assert.equal(second?.conn, conns[16]); // the fastest by far, but the last in turn
});

test('for selection "fastest" calls that run side by side are not slower for that', async (t) => {
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

test("a selection of the caller's sees the conns with room and their facts, and is obeyed", async (t) => {
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

test("load concentrates by default, and spare conns expire: a trickle shrinks a pool", async (t) => {
  const { pool, clock } = pooled(t, { dial: () => new ScriptedConn(), expirationMs: 60_000 });
  const burst = await Promise.all(Array.from({ length: 8 }, () => pool.acquire("k")));
  for (const lease of burst) lease.release();
  assert.equal(pool.stats().open, 8);
  for (let second = 0; second < 90; second += 10) {
    (await pool.acquire("k")).release();
    await clock.advance(10_000);
  }
  assert.equal(pool.stats().open, 1);
});
