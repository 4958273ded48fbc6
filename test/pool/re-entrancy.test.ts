import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";
import { type Place, places, type Trap, TrapConn, TrapWorld } from "../support/traps.ts";

nothingUnheard();

/** A conn without `onChange`, whose getter of slots is the caller's. */
function asked(slots: () => number): ScriptedConn {
  const conn = new ScriptedConn();
  Object.defineProperty(conn, "maxStreams", { get: slots });
  Object.defineProperty(conn, "onChange", { value: undefined });
  return conn;
}

/** A pool whose one conn is leased, whose queue has one waiter, and whose getter of slots can be made to do something. */
async function heldBack(t: TestContext) {
  let trap: (() => void) | undefined;
  const conn = asked(() => {
    const spring = trap;
    trap = undefined;
    spring?.();
    return 1;
  });
  const { pool } = pooled(t, { dial: () => conn, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  const first = new AbortController();
  const waiter = outcome(pool.acquire("k", { signal: first.signal }));
  const newcomer = (spring: () => void, signal?: AbortSignal) => {
    trap = spring;
    const acquired = outcome(pool.acquire("k", { signal }));
    assert.equal(trap, undefined, "the getter was asked");
    return acquired;
  };
  return { pool, lease, first, waiter, newcomer };
}

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

/** How a callback misbehaves. */
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
  "returns a thenable that calls back at once and twice": (world) => {
    const then = (yes: (value: unknown) => void, no: (error: unknown) => void) => {
      world.lenient = true;
      yes(undefined);
      yes(undefined);
      no(new Error("after all"));
    };
    // oxlint-disable-next-line unicorn/no-thenable -- it is what is tested
    return { then };
  },
  "returns a thenable that throws": () => {
    const then = () => {
      throw new Error("thrown by then");
    };
    // oxlint-disable-next-line unicorn/no-thenable -- it is what is tested
    return { then };
  },
};

const mayReject: readonly Place[] = ["dial", "filter", "close", "unblocked"];

const thrownByListeners = [
  "throws",
  "throws nothing",
  "returns a thenable that calls back at once and twice",
  "returns a thenable that throws",
];

for (const place of places) {
  for (const [method, trap] of Object.entries(methods)) {
    test(`${place} may call ${method}`, async () => {
      for (const nth of [1, 3, 8]) await runAt(nth, place, (world) => void trap(world));
    });
  }
  for (const [what, trap] of Object.entries(misdeeds)) {
    if (what === "rejects" && !mayReject.includes(place)) continue; // nobody would hear it
    if (place === "abort" && thrownByListeners.includes(what)) continue; // Node itself reports what a signal's listener throws
    test(`${place} that ${what} harms nobody else`, async () => {
      for (const nth of [1, 3, 8]) await runAt(nth, place, trap);
    });
  }
}

test("a limits option that asks for a lease of its own key makes one record of it, not two", async (t) => {
  const inner: ReturnType<typeof outcome>[] = [];
  let asked = false;
  const { pool } = pooled(t, {
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
  assert.deepEqual(new Set([inner[0]?.state, outer.state]), new Set(["pending", "resolved"]));
  assert.deepEqual([pool.stats().open, pool.stats().waiting], [1, 1]);
});

test("a getter that closes the pool leaves no newcomer waiting", async (t) => {
  const { pool, newcomer } = await heldBack(t);
  const second = newcomer(() => void pool.close({ graceMs: 0 }));
  await settle();
  assert.equal(second.state, "rejected");
});

test("a getter that aborts the newcomer's signal is heard", async (t) => {
  const { newcomer } = await heldBack(t);
  const controller = new AbortController();
  const second = newcomer(() => controller.abort(), controller.signal);
  await settle();
  assert.equal(second.state, "rejected");
});

test("a getter that frees the conn serves the newcomer", async (t) => {
  const { lease, first, newcomer } = await heldBack(t);
  const second = newcomer(() => {
    first.abort();
    lease.release();
  });
  await settle();
  assert.equal(second.state, "resolved");
  second.value?.release();
});

test("a getter that clears while a conn is asked or validated harms nobody", async (t) => {
  let reads = 0;
  let clearAt = -1;
  const { pool, clock } = pooled(t, { maxKeyConns: 1, validate: async () => true, dial: scriptedDial() });
  for (let read = 0; read < 8; read++) {
    clearAt = -1;
    pool.put(
      "k",
      asked(() => {
        if (reads++ === clearAt) pool.clear();
        return 1;
      }),
    );
    await clock.advance(600);
    reads = 0;
    clearAt = read;
    const waiter = outcome(pool.acquire("k"));
    await settle();
    assert.equal(waiter.state, "resolved", `at reading ${read}: ${String(waiter.error)}`);
    waiter.value?.release();
    pool.clear();
    await settle();
    assert.deepEqual([pool.stats().open, pool.stats().idle], [0, 0]);
  }
});

test("a conn that a filter moves to another key is not handed out under its old one", (t) => {
  const { pool } = pooled(t);
  pool.put("a", new ScriptedConn());
  const filter = () => {
    const taken = pool.take("a");
    if (taken !== undefined) pool.put("b", taken);
    return true;
  };
  assert.equal(pool.tryAcquire("a", { filter }), undefined);
  assert.equal(pool.stats("b").idle, 1);
});

test("a conn that moves itself to another key when it is asked is not handed out under its old one", (t) => {
  const { pool } = pooled(t);
  class Mover extends ScriptedConn {
    moves = 0;

    override unblocked(): undefined {
      const taken = this.moves++ === 0 ? pool.take("a") : undefined; // `take` asks, too
      if (taken !== undefined) pool.put("b", taken);
    }
  }
  const conn = new Mover();
  pool.put("a", conn);
  assert.equal(pool.tryAcquire("a"), undefined);
  assert.deepEqual([pool.stats("a").open, pool.stats("b").idle, conn.closes], [0, 1, 0]);
});

test("a pool closed from inside a conn's close() keeps nothing that is being put in", async (t) => {
  const { pool } = pooled(t, { maxConns: 1 });
  pool.put("a", new ScriptedConn({ close: () => pool.close() }));
  const late = new ScriptedConn();
  assert.equal(pool.put("b", late), false);
  await settle();
  assert.deepEqual([late.closes, pool.stats().open], [1, 0]);
  await soon(pool.close());
});

test("conns that put another in their place when they are closed do not keep a put going round for ever", async (t) => {
  const { pool } = pooled(t, { maxConns: 1 });
  let made = 0;
  const replaced = (): ScriptedConn =>
    new ScriptedConn({
      close: () => {
        if (++made < 10) pool.put("a", replaced());
      },
    });
  pool.put("a", replaced());
  const late = new ScriptedConn();
  assert.equal(pool.put("b", late), false); // the place was taken again as soon as it was free
  assert.deepEqual([made, late.closes, pool.stats("a").open], [1, 1, 1]);
  made = 10;
});

/** A conn that does something, once, when the pool first asks whether it drains. */
function askedToDrain(surprise: () => void): ScriptedConn {
  const conn = new ScriptedConn();
  let isAsked = false;
  Object.defineProperty(conn, "draining", {
    get: () => {
      if (!isAsked) {
        isAsked = true;
        surprise();
      }
      return false;
    },
  });
  return conn;
}

test("conns that are put in while another is looked at leave no more conns than maxConns", async (t) => {
  const { pool } = pooled(t, { maxConns: 1 });
  const outer = askedToDrain(() => pool.put("b", new ScriptedConn()));
  pool.put("a", outer);
  await settle();
  assert.equal(pool.stats().open, 1);
});

test("a dial function that takes the last place when it is asked for its slots is not called", async (t) => {
  const { pool } = pooled(t, { maxConns: 1 });
  const dial = scriptedDial();
  let isAsked = false;
  Object.defineProperty(dial, "maxStreams", {
    get: () => {
      if (!isAsked) {
        isAsked = true;
        pool.put("b", new ScriptedConn());
      }
      return 1;
    },
  });
  const lease = pool.acquire("a", { dial });
  assert.ok(pool.stats().open + pool.stats().dialing <= 1);
  (await soon(lease)).release(); // the other key's conn has been evicted for it
  assert.deepEqual([dial.count, pool.stats().open, pool.stats().closed.evicted], [1, 1, 1]);
});

test("a conn that `limits` puts in while it is being put in is held once", async (t) => {
  const conn = new ScriptedConn();
  let isAsked = false;
  const { pool } = pooled(t, {
    limits: () => {
      if (!isAsked) {
        isAsked = true;
        pool.put("k", conn);
      }
      return {};
    },
  });
  assert.equal(pool.put("k", conn), true);
  assert.deepEqual([pool.stats().open, conn.closes], [1, 0]);
  pool.clear();
  await settle();
  assert.deepEqual([pool.stats().open, conn.closes], [0, 1]);
});

test("a conn that is taken while it is being put in was put in", async (t) => {
  const { pool } = pooled(t);
  const conn = new ScriptedConn();
  const waiter = pool.acquire("k", {
    dial: () => new Promise(() => {}),
    filter: () => {
      pool.take("k");
      return false;
    },
    timeoutMs: 1000,
  });
  const late = outcome(waiter);
  assert.equal(pool.put("k", conn), true);
  assert.deepEqual([pool.stats().open, conn.closes], [0, 0]);
  await pool.close();
  await settle();
  assert.equal(late.state, "rejected");
});

test("warm without a dial function is NoConnError when the conn that it counted on goes", async (t) => {
  let asked = 0;
  const { pool } = pooled(t, { maxKeyConns: 1 });
  pool.put("k", new ScriptedConn());
  const warm = outcome(pool.warm("k", 1, { filter: () => asked++ === 0 }));
  await settle();
  assert.equal(warm.state, "rejected");
  assert.match(String(warm.error), /no dial function/);
});
