import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { dialService } from "../../src/resolve/index.ts";
import { echo, FakeClock, ScriptedConn, scriptedDial, settle } from "../../src/testing/index.ts";
import { backends, client } from "./world.ts";

const refreshMs = 30_000;

/** Whether an error's cause says something. */
const causedBy = (message: RegExp) => (error: Error) =>
  error.cause instanceof Error && message.test(error.cause.message);

test("conns of one key go to the addresses that have the fewest, dials in flight counted", async () => {
  const { pool, dialed, backend, conns } = client(3, { manual: true, script: { maxStreams: 1 } });
  const leases = Array.from({ length: 7 }, () => pool.acquire("svc"));
  await settle();
  for (let arrived = 0; arrived < 7; arrived++) {
    backend.pending[arrived]?.arrive();
    await settle();
  }
  await Promise.all(leases);
  assert.deepEqual(
    Object.values(conns()).toSorted((a, b) => a - b),
    [2, 2, 3],
  );
  for (const round of [dialed.slice(0, 3), dialed.slice(3, 6)]) assert.equal(new Set(round).size, 3, `${round.join()}`);
});

test("clients with other seeds begin with other addresses", async () => {
  const firsts = new Set<string | undefined>();
  for (let seed = 0; seed < 20; seed++) {
    const { pool, dialed } = client(3, { service: { seed: `${seed}` } });
    (await pool.acquire("svc")).release();
    firsts.add(dialed[0]);
  }
  assert.equal(firsts.size, 3);
});

test("an address that cannot be reached is passed over in the same dial, and comes last until a refresh later", async () => {
  const down = new Set<string>();
  const { pool, dial, dialed, clock } = client(3, {
    script: (address) => {
      if (down.has(address)) throw new Error(`${address} is down`);
      return { maxStreams: 1 };
    },
  });
  const warm = client(3);
  (await warm.pool.acquire("svc")).release();
  const [first = ""] = warm.dialed; // the same seed begins with the same address
  down.add(first);
  const lease = await pool.acquire("svc");
  assert.deepEqual(dialed[0], first);
  assert.equal(dialed.length, 2);
  const others = await Promise.all([pool.acquire("svc"), pool.acquire("svc"), pool.acquire("svc")]);
  assert.equal(dialed.filter((address) => address === first).length, 1);
  assert.deepEqual(
    dial.addresses("svc").map(({ conns }) => conns),
    [0, 2, 2],
  );
  down.clear();
  await clock.advance(refreshMs);
  others.push(await pool.acquire("svc"));
  assert.equal(dialed.at(-1), first);
  for (const held of [lease, ...others]) held.release();
});

test("where none can be reached, the dial fails with the errors of all; of a single one with its own", async () => {
  const script = (address: string) => {
    throw Object.assign(new Error(address), { final: true });
  };
  await assert.rejects(client(3, { script }).pool.acquire("svc"), (error: Error & { final?: boolean }) => {
    assert.match(String((error.cause as Error).message), /none of the 3 addresses of "svc"/);
    assert.ok((error.cause as Error).cause instanceof AggregateError);
    return error.final === true;
  });
  await assert.rejects(client(1, { script }).pool.acquire("svc"), causedBy(/^10.0.0.1:1$/));
});

test("an address that does not answer is left for the next one, and what it brings too late is closed", async () => {
  const { pool, backend, clock } = client(2, { manual: true, service: { attemptTimeoutMs: 2000 } });
  const lease = pool.acquire("svc");
  await clock.advance(2000);
  assert.equal(backend.pending.length, 2);
  assert.equal(backend.pending[0]?.signal.aborted, true);
  backend.pending[1]?.arrive();
  (await lease).release();
  const late = backend.pending[0]?.arrive();
  await settle();
  assert.equal(late?.closes, 1);
});

test("a caller that goes away ends the dial, and that counts against no address", async () => {
  const { pool, dialed, backend } = client(2, { manual: true });
  const controller = new AbortController();
  const lease = pool.acquire("svc", { signal: controller.signal });
  await settle();
  controller.abort(new Error("gone"));
  await assert.rejects(lease, { message: "gone" });
  await settle();
  assert.equal(backend.pending[0]?.signal.aborted, true);
  const again = pool.acquire("svc");
  await settle();
  assert.deepEqual(dialed, [dialed[0], dialed[0]]);
  backend.pending[1]?.arrive();
  (await again).release();
});

test("conns to an address that is gone drain: what runs goes on, nothing new begins there", async () => {
  const world = client(2, { script: { maxStreams: 1 } });
  const { pool, clock } = world;
  const [one, two] = await Promise.all([pool.acquire("svc"), pool.acquire("svc")]);
  assert.equal(pool.stats("svc").open, 2);
  const gone = String(one.conn.tags?.["address"]);
  world.addresses = world.addresses.filter((address) => address !== gone);
  await clock.advance(refreshMs);
  assert.equal(one.conn.draining, true);
  assert.equal(two.conn.draining, false);
  assert.deepEqual(world.conns(), { [String(two.conn.tags?.["address"])]: 1 });
  assert.equal(one.conn.closes, 0);
  one.release();
  await settle();
  assert.equal(one.conn.closes, 1);
  assert.equal(pool.stats().closed.goaway, 1);
  two.release();
});

test("an empty answer, a failure and one that never comes leave the addresses in place", async () => {
  const told: (readonly [readonly string[], unknown])[] = [];
  let answer: () => readonly string[] | Promise<readonly string[]> = () => backends(2);
  const { pool, clock, dial } = client(0, {
    service: {
      resolve: () => answer(),
      onResolved: (_key, { addresses, error }) => {
        told.push([addresses, error instanceof Error ? error.message : error]);
        throw new Error("ignored");
      },
    },
  });
  const lease = await pool.acquire("svc");
  answer = () => [];
  await clock.advance(refreshMs);
  answer = () => Promise.reject(new Error("SERVFAIL"));
  await clock.advance(refreshMs);
  answer = () => new Promise(() => {});
  await clock.advance(3 * refreshMs);
  assert.equal(dial.addresses("svc").length, 2);
  assert.equal(lease.conn.draining, false);
  assert.deepEqual(new Set(told.map(([addresses]) => addresses.length)), new Set([2]));
  assert.deepEqual([...new Set(told.map(([, error]) => error))].slice(0, 3), [
    undefined,
    'no address was found for "svc"',
    "SERVFAIL",
  ]);
  answer = () => backends(3);
  await clock.advance(refreshMs);
  assert.equal(dial.addresses("svc").length, 3, "it was asked again");
  lease.release();
});

test("where nothing is known, the dial fails with what `resolve` failed with, and the next dial asks again", async () => {
  let answer: () => readonly string[] = () => {
    throw new Error("ENOTFOUND");
  };
  const { pool } = client(0, { service: { resolve: () => answer() } });
  await assert.rejects(pool.acquire("svc"), causedBy(/^ENOTFOUND$/));
  answer = () => [];
  await assert.rejects(pool.acquire("svc"), causedBy(/no address was found for "svc"/));
  answer = () => "10.0.0.1:1" as unknown as string[];
  await assert.rejects(pool.acquire("svc"), causedBy(/expected `resolve` to give a list/));
  answer = () => backends(1);
  (await pool.acquire("svc")).release();
});

test("a first answer that never comes fails the dial after a refresh's time", async () => {
  const { pool, clock } = client(0, { service: { resolve: () => new Promise(() => {}) }, pool: { dialTimeoutMs: 0 } });
  const refused = assert.rejects(pool.acquire("svc"), causedBy(/the addresses of "svc" were not found in time/));
  await clock.advance(refreshMs);
  await refused;
});

test("callers that come together share one resolution", async () => {
  const world = client(3);
  const leases = await Promise.all([1, 2, 3].map(() => world.pool.acquire("svc")));
  assert.equal(world.resolved, 1);
  for (const lease of leases) lease.release();
});

test("a conn that dies has its key resolved again within a second, one that the pool closes does not", async () => {
  const world = client(2, { pool: { expirationMs: 5000 }, script: { maxStreams: 1 } });
  const { pool, clock, backend } = world;
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => pool.acquire("svc")));
  one?.release();
  await clock.advance(8000);
  assert.equal(pool.stats().closed.expired, 1);
  assert.equal(world.resolved, 1);
  backend.conns.find(({ closes }) => closes === 0)?.die();
  await clock.advance(1000);
  assert.equal(world.resolved, 2);
  await clock.advance(20_000);
  assert.equal(world.resolved, 2, "and then no sooner than usual");
  two?.release();
  three?.release();
});

test("a resolver that watches tells new addresses when it likes, and is asked once", async () => {
  let tell: ((addresses: readonly string[]) => void) | undefined;
  let watched: AbortSignal | undefined;
  let asked = 0;
  const { pool, clock, dial } = client(0, {
    service: {
      refreshMs: 0,
      resolve: (_key, { signal, update }) => {
        asked++;
        tell = update;
        watched = signal;
        return backends(1);
      },
    },
    pool: { expirationMs: 1000 },
  });
  const lease = await pool.acquire("svc");
  tell?.(backends(2));
  assert.equal(dial.addresses("svc").length, 2);
  await clock.advance(1_000_000);
  assert.equal(asked, 1);
  assert.equal(watched?.aborted, false);
  lease.release();
  await clock.advance(2000);
  assert.equal(watched?.aborted, true, "nothing is left of the key");
  tell?.(backends(3));
  assert.deepEqual(dial.addresses("svc"), []);
});

test("nothing is left of a key whose conns have gone: no timer, no addresses", async () => {
  const { pool, clock, dial } = client(3);
  (await pool.acquire("svc")).release();
  assert.ok(clock.timers > 0);
  pool.clear();
  await settle();
  assert.equal(clock.timers, 0);
  assert.deepEqual(dial.addresses("svc"), []);
});

test("a fixed list needs no function; keys that are objects need the pool's hashKey", async (t) => {
  const clock = new FakeClock();
  const hashKey = ({ name }: { name: string }) => name;
  const keys: unknown[] = [];
  const dial = dialService<{ name: string }, ScriptedConn>({
    resolve: backends(2),
    dial: Object.assign(
      (_address: string, { key }: { key: { name: string } }) => {
        keys.push(key);
        return new ScriptedConn();
      },
      { maxStreams: 1 },
    ),
    hashKey,
    clock,
  });
  assert.equal(dial.maxStreams, 1);
  const pool = new Pool({ dial, hashKey, clock });
  t.after(() => pool.close());
  const leases = await Promise.all([pool.acquire({ name: "a" }), pool.acquire({ name: "a" })]);
  assert.deepEqual(keys, [{ name: "a" }, { name: "a" }]);
  assert.deepEqual(
    dial.addresses({ name: "a" }).map(({ conns }) => conns),
    [1, 1],
  );
  for (const lease of leases) lease.release();
});

test("RPCs run through a pool's handle", async (t) => {
  const dial = scriptedDial({ answer: (request) => `${String(request)}!` });
  const pool = new Pool({ dial: dialService<string, Conn>({ resolve: backends(2), dial }) });
  t.after(() => pool.close());
  assert.equal(await pool.get("svc").invoke(echo, "hello"), "hello!");
});

test("wrong options are refused at once", () => {
  const dial = scriptedDial();
  const wrong: readonly object[] = [
    {},
    { resolve: "10.0.0.1:1", dial },
    { resolve: [], dial: 5 },
    { resolve: [], dial, refreshMs: -1 },
    { resolve: [], dial, maxAddresses: -1 },
    { resolve: [], dial, attemptTimeoutMs: Number.NaN },
    { resolve: [], dial, refreshms: 1 },
    { resolve: [], dial, onResolved: 1 },
    { resolve: [], dial, hashKey: 1 },
    { resolve: [], dial, seed: 1 },
    { resolve: [], dial, clock: {} },
  ];
  for (const options of wrong)
    assert.throws(() => dialService(options as never), { code: "ERR_POOL_ARGUMENT" }, JSON.stringify(options));
  assert.throws(() => dialService({ resolve: [], dial }).attach({} as never), { code: "ERR_POOL_ARGUMENT" });
});
