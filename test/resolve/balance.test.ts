import assert from "node:assert/strict";
import { test } from "node:test";
import type { Lease } from "../../src/contract.ts";
import { FakeClock, type ScriptedConn, settle } from "../../src/testing/index.ts";
import { backends, type Client, client } from "./world.ts";

const refreshMs = 30_000;

/** `count` clients of one service, each with a seed of its own, that open conns by themselves. */
function clients(count: number, addresses: number, options: Parameters<typeof client>[1] = {}): Client[] {
  const clock = new FakeClock();
  return Array.from({ length: count }, (_, i) => {
    const one = client(addresses, { ...options, clock, service: { ...options.service, seed: `client ${i}` } });
    one.dial.attach(one.pool);
    return one;
  });
}

/** Streams that each client runs at once, by the backends that they run on. */
async function load(all: readonly Client[], streams: number): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  const leases: Lease<ScriptedConn>[] = [];
  for (const { pool } of all) for (let i = 0; i < streams; i++) leases.push(await pool.acquire("svc"));
  for (const { conn } of leases) {
    const address = String(conn.tags?.["address"]);
    counts.set(address, (counts.get(address) ?? 0) + 1);
  }
  for (const lease of leases) lease.release();
  await settle();
  return counts;
}

function busiestToMean(counts: ReadonlyMap<string, number>, addresses: number): number {
  const sum = [...counts.values()].reduce((a, b) => a + b, 0);
  return Math.max(...counts.values()) / (sum / addresses);
}

const closes = (all: readonly Client[]): number =>
  all.flatMap(({ backend }) => backend.conns).reduce((sum, conn) => sum + conn.closes, 0);
const dials = (all: readonly Client[]): number => all.reduce((sum, { dialed }) => sum + dialed.length, 0);

for (const { each, leastClosed, leastDialed } of [
  { each: 3, leastClosed: 0, leastDialed: 9 },
  { each: 12, leastClosed: 9, leastDialed: 9 },
  { each: 24, leastClosed: 18, leastDialed: 18 },
]) {
  test(`20 clients with ${each} conns, 3 backends that become 12: even after one refresh, with the least churn`, async () => {
    const all = clients(20, 3);
    for (const { pool } of all) await pool.warm("svc", each);
    const before = await load(all, 24);
    assert.equal(before.size, 3);
    assert.ok(busiestToMean(before, 3) <= 1.1);
    const [dialedBefore, closedBefore] = [dials(all), closes(all)];
    for (const one of all) one.addresses = backends(12);
    await all[0]?.clock.advance(refreshMs);
    const after = await load(all, 24);
    assert.equal(after.size, 12);
    assert.ok(busiestToMean(after, 12) <= 1.1, `the busiest carries ${busiestToMean(after, 12)} of the mean`);
    assert.ok(dials(all) - dialedBefore <= 1.2 * 20 * leastDialed, `${dials(all) - dialedBefore} dials`);
    assert.ok(closes(all) - closedBefore <= 1.2 * 20 * leastClosed, `${closes(all) - closedBefore} closed`);
  });
}

test("12 backends that become 3: as many conns as before, even, and what leaves finishes first", async () => {
  const all = clients(20, 12);
  for (const { pool } of all) await pool.warm("svc", 12);
  const held = await Promise.all(all.map(({ pool }) => pool.acquire("svc")));
  for (const one of all) one.addresses = backends(3);
  await all[0]?.clock.advance(refreshMs);
  for (const one of all) assert.deepEqual(Object.values(one.conns()), [4, 4, 4]);
  for (const { conn } of held) assert.equal(conn.dead, false);
  for (const lease of held) lease.release();
  await settle();
  assert.equal(closes(all), 20 * 9);
});

test("conns that move leave when the others have come, not before", async () => {
  const world = client(2, { manual: true, service: { attemptTimeoutMs: 0 }, pool: { dialTimeoutMs: 0 } });
  world.dial.attach(world.pool);
  const warm = world.pool.warm("svc", 4);
  await settle();
  for (const pending of world.backend.pending) pending.arrive();
  await settle();
  for (const pending of world.backend.pending) pending.arrive();
  await warm;
  assert.equal(world.pool.stats("svc").open, 4);
  world.addresses = backends(4);
  await world.clock.advance(refreshMs);
  assert.deepEqual(Object.values(world.conns()), [2, 2], "two dials are in flight, and nobody has left");
  for (const pending of world.backend.pending) pending.arrive();
  await settle();
  assert.deepEqual(Object.values(world.conns()), [1, 1, 1, 1]);
  assert.equal(world.dialed.length, 6);
});

test("without a pool to open conns in, those beyond their address's share leave, and calls open others", async () => {
  const world = client(2, { script: { maxStreams: 1 } });
  const first = await Promise.all([1, 2, 3, 4].map(() => world.pool.acquire("svc")));
  for (const lease of first) lease.release();
  assert.deepEqual(Object.values(world.conns()), [2, 2]);
  world.addresses = backends(4);
  await world.clock.advance(refreshMs);
  assert.deepEqual(Object.values(world.conns()), [1, 1]);
  const second = await Promise.all([1, 2, 3, 4].map(() => world.pool.acquire("svc")));
  assert.deepEqual(Object.values(world.conns()), [1, 1, 1, 1]);
  for (const lease of second) lease.release();
});

test("the first call is enough for each address to have a conn; attached later, it is made up for", async () => {
  const [early] = clients(1, 5);
  (await early?.pool.acquire("svc"))?.release();
  await settle();
  assert.deepEqual(Object.values(early?.conns() ?? {}), [1, 1, 1, 1, 1]);
  const late = client(5);
  (await late.pool.acquire("svc")).release();
  await settle();
  assert.deepEqual(Object.values(late.conns()), [1]);
  late.dial.attach(late.pool);
  await settle();
  assert.deepEqual(Object.values(late.conns()), [1, 1, 1, 1, 1]);
});

test("the conn that dies is replaced within a second; one that the pool closed is not", async () => {
  const [one] = clients(1, 3, { pool: { expirationMs: 5000 } });
  assert.ok(one);
  const lease = await one.pool.acquire("svc");
  await settle();
  one.backend.conns.find((conn) => conn.id !== lease.conn.id)?.die();
  await settle();
  assert.equal(Object.values(one.conns()).length, 2);
  await one.clock.advance(1000);
  assert.deepEqual(Object.values(one.conns()), [1, 1, 1]);
  await one.clock.advance(3 * refreshMs);
  assert.equal(one.pool.stats().closed.expired, 2);
  assert.equal(Object.values(one.conns()).length, 1);
  lease.release();
  await one.clock.advance(10_000);
  assert.equal(one.clock.timers, 0, "nothing is kept open for its own sake");
});

test("maxKeyConns holds: conns move within it", async () => {
  const [one] = clients(1, 3, { pool: { maxKeyConns: 6 } });
  assert.ok(one);
  await one.pool.warm("svc", 6);
  one.addresses = backends(6);
  await one.clock.advance(refreshMs);
  assert.deepEqual(Object.values(one.conns()), [1, 1, 1, 1, 1, 1]);
  assert.equal(one.dialed.length, 9);
});

test("of many addresses a part is used, each client its own: all are used by somebody, and little moves", async () => {
  const all = clients(100, 50, { service: { maxAddresses: 5 } });
  for (const { pool } of all) (await pool.acquire("svc")).release();
  await settle();
  const users = new Map<string, number>();
  for (const { dial } of all) {
    const used = dial.addresses("svc").map(({ address }) => address);
    assert.equal(used.length, 5);
    for (const address of used) users.set(address, (users.get(address) ?? 0) + 1);
  }
  assert.equal(users.size, 50);
  const dialedBefore = dials(all);
  for (const one of all) one.addresses = backends(50, 2); // the first goes, another comes
  await all[0]?.clock.advance(refreshMs);
  // 10 clients used the one that went, and 10 choose the one that came, on average.
  assert.ok(dials(all) - dialedBefore <= 40, `${dials(all) - dialedBefore} dials`);
});

test("addresses that change while conns move are seen to as well", async () => {
  const world = client(1, { manual: true, service: { attemptTimeoutMs: 0 }, pool: { dialTimeoutMs: 0 } });
  world.dial.attach(world.pool);
  const lease = world.pool.acquire("svc");
  await settle();
  world.backend.pending[0]?.arrive();
  (await lease).release();
  world.addresses = backends(2);
  await world.clock.advance(refreshMs);
  assert.equal(world.backend.pending.length, 2);
  world.addresses = backends(3);
  await world.dial.refresh("svc");
  await settle();
  for (let round = 0; round < 3; round++) {
    for (const pending of world.backend.pending) pending.arrive();
    await settle();
  }
  assert.deepEqual(Object.values(world.conns()), [1, 1, 1]);
});

test("no more addresses are used than the pool may have conns for the key", async () => {
  const { dial, pool } = client(6);
  dial.attach({
    warm: (key, count, options) => pool.warm(key, count, options),
    stats: (key) => ({ ...pool.stats(key), limits: { maxKeyConns: 2 } }),
  });
  (await pool.acquire("svc")).release();
  await settle();
  assert.deepEqual(
    dial.addresses("svc").map(({ conns }) => conns),
    [1, 1],
  );
});
