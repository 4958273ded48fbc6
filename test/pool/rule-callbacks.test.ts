import { test } from "node:test";
import { nothingUnheard } from "../support/outcome.ts";
import { places, type Trap, TrapConn, TrapWorld } from "../support/traps.ts";

nothingUnheard();

/** Every method of the pool, called from inside a callback of the pool's. */
const methods: Record<string, Trap> = {
  acquire: (world) => void world.call("a"),
  "acquire of another key": (world) => void world.call("d"),
  tryAcquire: (world) => world.attempt(() => world.pool.tryAcquire("a")?.release()),
  use: (world) => void world.pool.use("a", async () => {}).catch((error: unknown) => world.errors.push(error)),
  put: (world) => void world.attempt(() => world.pool.put("a", new TrapConn(world))),
  "put under another key": (world) => void world.attempt(() => world.pool.put("d", new TrapConn(world))),
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

for (const place of places) {
  for (const [method, trap] of Object.entries(methods)) {
    test(`rule: outside calls: ${place} may call ${method}`, async () => {
      for (const nth of [1, 2, 3, 5, 8, 13]) {
        const world = new TrapWorld(place, nth, (w) => void trap(w));
        try {
          await world.run();
          world.check();
        } catch (error) {
          if (error instanceof Error)
            error.message += ` (call ${nth} of ${place}, which was called ${world.calls} times)`;
          throw error;
        }
      }
    });
  }
}
