import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";
import { type Place, places, type Trap, TrapConn, TrapWorld } from "../support/traps.ts";

nothingUnheard();

/** Every method of the pool, called from inside a callback of the pool's. */
const methods: Record<string, Trap> = {
  acquire: (world) => void world.call("a"),
  "acquire of another key": (world) => void world.call("d"),
  tryAcquire: (world) => world.attempt(() => world.pool.tryAcquire("a")?.release()),
  use: (world) => void world.pool.use("a", async () => {}).catch((error: unknown) => world.errors.push(error)),
  put: (world) => world.put("a", new TrapConn(world)),
  "put under another key": (world) => world.put("d", new TrapConn(world)),
  take: (world) => {
    const conn = world.attempt(() => world.pool.take("a"));
    if (conn !== undefined) world.owned.add(conn);
  },
  "clear of the key": (world) => world.attempt(() => world.pool.clear("a")),
  clear: (world) => world.attempt(() => world.pool.clear()),
  configure: (world) => world.attempt(() => world.pool.configure({ maxKeyConns: 1, capacity: 1, expirationMs: 20 })),
  "configure of the key": (world) => world.attempt(() => world.pool.configure({ maxKeyConns: 1 }, "a")),
  "keys and stats": (world) =>
    void world.attempt(() => [...world.pool.keys()].map((key) => world.pool.stats(key)).concat(world.pool.stats())),
  close: (world) => {
    world.closed = true;
    world.pool.close().catch((error: unknown) => world.errors.push(error));
  },
  "close at once": (world) => {
    world.closed = true;
    world.pool.close({ graceMs: 0 }).catch((error: unknown) => world.errors.push(error));
  },
};

/** What a callback does instead of its duty. */
const misdeeds: Record<string, Trap> = {
  throws: () => {
    throw new Error("thrown by a callback");
  },
  "throws nothing": () => {
    throw undefined;
  },
  rejects: () => Promise.reject(new Error("rejected by a callback")),
  "never settles": () => new Promise(() => {}),
  "returns null": () => null,
  "returns NaN": () => Number.NaN,
  "returns a string": () => "nonsense",
  "returns true": () => true,
  "returns a thenable that calls back at once and twice": (world) => ({
    // biome-ignore lint/suspicious/noThenProperty: it is what is tested
    then: (yes: (value: unknown) => void, no: (error: unknown) => void) => {
      world.lenient = true;
      yes(undefined);
      yes(undefined);
      no(new Error("after all"));
    },
  }),
  "returns a thenable that throws": () => ({
    // biome-ignore lint/suspicious/noThenProperty: it is what is tested
    then: () => {
      throw new Error("thrown by then");
    },
  }),
};

const mayReject: readonly Place[] = ["dial", "filter", "close", "unblocked"];

async function runAt(nth: number, place: Place, trap: Trap): Promise<void> {
  const world = new TrapWorld(place, nth, trap);
  try {
    await world.run();
    world.check();
  } catch (error) {
    if (error instanceof Error) error.message += ` (call ${nth} of ${place}, which was called ${world.calls} times)`;
    throw error;
  }
}

for (const place of places) {
  for (const [method, trap] of Object.entries(methods)) {
    test(`rule: outside calls: ${place} may call ${method}`, async () => {
      for (const nth of [1, 3, 8]) await runAt(nth, place, (world) => void trap(world));
    });
  }
  for (const [what, trap] of Object.entries(misdeeds)) {
    if (what === "rejects" && !mayReject.includes(place)) continue; // nobody would hear it
    test(`rule: outside calls: ${place} that ${what} harms nobody else`, async () => {
      for (const nth of [1, 3, 8]) await runAt(nth, place, trap);
    });
  }
}

test("rule: outside calls: limits that asks for a lease of its own key makes one record of it, not two", async () => {
  const inner: ReturnType<typeof outcome>[] = [];
  let asked = false;
  const pool = testPool({
    dial: scriptedDial(),
    maxKeyConns: 1,
    limits: (key) => {
      if (asked) return {};
      asked = true;
      inner.push(outcome(pool.acquire(key)));
      return {};
    },
  });
  const outer = outcome(pool.acquire("k"));
  await settle();
  assert.deepEqual([inner[0]?.state, outer.state].toSorted(), ["pending", "resolved"]);
  assert.deepEqual([pool.stats().open, pool.stats().waiting], [1, 1]);
});
