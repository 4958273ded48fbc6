import assert from "node:assert/strict";
import { test } from "node:test";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, turns, until } from "../support/clock.ts";
import { type Deferred, deferred, PlainConn } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

/** A conn whose every member is asked, at next to no cost, so that the pool's own steps are what is measured. */
class LightConn extends PlainConn {
  readonly maxStreams = 1;

  unblocked(): undefined {}
}

type LightPool = Pool<string, LightConn>;

const pools: LightPool[] = [];

/** The processor time of a course, in microseconds: the least of some runs. */
async function cost(course: (count: number) => Promise<() => unknown>, count: number, runs: number): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let run = 0; run < runs; run++) {
    const measured = await course(count);
    const before = process.cpuUsage();
    await measured();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, user + system);
    await Promise.all(pools.splice(0).map((pool) => pool.close({ graceMs: 0 })));
    await turns(1);
  }
  return least;
}

const few = 1000;

const many = 10_000;

type Options = ConstructorParameters<typeof Pool<string, LightConn>>[0];

/** How long a measurement may take on a busy machine. */
const patienceMs = 60_000;

function make(options: Options = {}): LightPool {
  const pool: LightPool = new Pool({ clock: new FakeClock(), maxWaiters: 0, ...options });
  pools.push(pool);
  return pool;
}

/** A dial that announces one slot and waits for the test. */
function slowDial(): {
  (key: string): Promise<LightConn>;
  maxStreams: number;
  readonly pending: Deferred<LightConn>[];
} {
  const pending: Deferred<LightConn>[] = [];
  const dial = () => {
    const next = deferred<LightConn>();
    pending.push(next);
    return next.promise;
  };
  return Object.assign(dial, { maxStreams: 1, pending });
}

const times = <T>(count: number, each: (number: number) => T): T[] => Array.from({ length: count }, (_, n) => each(n));

const quiet = (promise: Promise<unknown>): void => void promise.catch(() => {});

/** Each prepares `count` of something in one key, and returns what is measured. */
const courses: Record<string, (count: number) => Promise<() => unknown>> = {
  "waiters that abort, newest first, each with a dial of its own": async (count) => {
    const pool = make({ dial: slowDial() });
    const aborts = times(count, () => new AbortController());
    for (const { signal } of aborts) quiet(pool.acquire("k", { signal }));
    return () => {
      for (const abort of aborts.reverse()) abort.abort();
    };
  },
  "waiters that abort, oldest first, each with a dial of its own": async (count) => {
    const pool = make({ dial: slowDial() });
    const aborts = times(count, () => new AbortController());
    for (const { signal } of aborts) quiet(pool.acquire("k", { signal }));
    return () => {
      for (const abort of aborts) abort.abort();
    };
  },
  "waiters that come, each with a dial of its own": async (count) => {
    const pool = make({ dial: slowDial() });
    return () => times(count, () => quiet(pool.acquire("k")));
  },
  "waiters that come, of whom the first has a filter, while nothing is free": async (count) => {
    const pool = make({ dial: () => new LightConn(), maxKeyConns: 1 });
    await pool.acquire("k");
    return () => times(count, () => quiet(pool.acquire("k", { filter: () => false })));
  },
  "waiters that come without a dial of their own": async (count) => {
    const pool = make();
    pool.put("k", new LightConn());
    await pool.acquire("k");
    return () => times(count, () => quiet(pool.acquire("k")));
  },
  "waiters without a dial of their own that one conn serves": async (count) => {
    const pool = make();
    pool.put("k", new LightConn());
    const lease = await pool.acquire("k");
    let served = 0;
    for (let waiter = 0; waiter < count; waiter++) quiet(pool.use("k", async () => void served++));
    return async () => {
      lease.release();
      await until(() => served === count, "all are served", patienceMs);
    };
  },
  "dials that bring conns, newest first": async (count) => {
    const dial = slowDial();
    const pool = make({ dial });
    for (let waiter = 0; waiter < count; waiter++) quiet(pool.acquire("k"));
    return async () => {
      for (const pending of dial.pending.reverse()) pending.resolve(new LightConn());
      await until(() => pool.stats().leased === count, "all are served", patienceMs);
    };
  },
  "dials that fail, newest first": async (count) => {
    const dial = slowDial();
    const pool = make({ dial });
    for (let waiter = 0; waiter < count; waiter++) quiet(pool.acquire("k"));
    return async () => {
      for (const pending of dial.pending.reverse()) pending.reject(new Error("no"));
      await until(() => pool.stats().keys === 0, "all are served", patienceMs);
    };
  },
  "dials that a clear abandons and starts again": async (count) => {
    const pool = make({ dial: slowDial() });
    for (let waiter = 0; waiter < count; waiter++) quiet(pool.acquire("k"));
    return () => pool.clear("k");
  },
  "streams that end while another key waits for a place": async (count) => {
    const pool = make({ maxConns: count, dial: slowDial() });
    for (let conn = 0; conn < count; conn++) pool.put("k", new LightConn());
    const leases = times(count, () => pool.tryAcquire("k"));
    const waiters = times(count, () => pool.acquire("k"));
    waiters.forEach(quiet);
    quiet(pool.acquire("other"));
    return () => {
      for (const lease of leases) lease?.release();
    };
  },
};

for (const [what, course] of Object.entries(courses)) {
  test(`ten times as many in one key cost far less than a hundred times as much: ${what}`, async () => {
    const small = Math.max(await cost(course, few, 3), 2000);
    let ratio = Number.POSITIVE_INFINITY;
    // Other work on the machine adds to the time, so the best of a few attempts counts.
    for (let attempt = 0; attempt < 3 && ratio >= 40; attempt++) {
      ratio = Math.min(ratio, (await cost(course, many, 1)) / small);
    }
    assert.ok(ratio < 40, `${many} cost ${ratio.toFixed(1)} times as much as ${few}`);
  });
}
