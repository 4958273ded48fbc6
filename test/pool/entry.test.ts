import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import { configOf } from "../../src/pool/config.ts";
import { Entry } from "../../src/pool/entry.ts";
import { KeyPool } from "../../src/pool/key-pool.ts";
import { Pending } from "../../src/pool/pending.ts";

/** Every state and every event of a conn; the results are written by hand. */
type Conn = Entry<string, PoolConn>;

const keyPool = (key: string) => new KeyPool<string, PoolConn>(key, key, configOf({}).rules, 0, new Pending(undefined));
const home = keyPool("home");
const anotherHome = keyPool("another home");

const states: Record<string, () => Conn> = {
  taken: () => make(),
  idle: () => put(make()),
  "leased 1": () => leased(1),
  "leased 2": () => leased(2),
  "draining 1": () => draining(1),
  "draining 2": () => draining(2),
  "closed died": () => {
    const conn = put(make());
    conn.destroy("died");
    return conn;
  },
};

const events = {
  put: (conn) => conn.put(home),
  lease: (conn) => conn.lease(),
  release: (conn) => conn.release(),
  evict: (conn) => conn.drain("evicted"),
  expire: (conn) => conn.drain("expired"),
  retire: (conn) => conn.drain("retired"),
  clear: (conn) => conn.drain("cleared"),
  configure: (conn) => conn.drain("configured"),
  invalid: (conn) => conn.drain("invalid"),
  reset: (conn) => conn.drain("reset"),
  blocked: (conn) => conn.drain("blocked"),
  goaway: (conn) => conn.drain("goaway"),
  "pool close": (conn) => conn.drain("pool"),
  died: (conn) => conn.destroy("died"),
  "grace over": (conn) => conn.destroy("pool"),
  take: (conn) => conn.take(),
} satisfies Record<string, (conn: Conn) => void>;

/** The event throws in this state: only a bug in the pool brings it. */
const never = "never";

/** What all reasons to drain have in common. */
const leave = (reason: string) => ({
  taken: never,
  idle: `closed ${reason}`,
  "leased 1": `draining 1 ${reason}`,
  "leased 2": `draining 2 ${reason}`,
  "draining 1": "draining 1 cleared", // the first reason stays
  "draining 2": "draining 2 cleared",
  "closed died": "closed died",
});

const table: Record<keyof typeof events, Record<string, string>> = {
  put: {
    taken: "idle",
    idle: never,
    "leased 1": never,
    "leased 2": never,
    "draining 1": never,
    "draining 2": never,
    "closed died": never,
  },
  lease: {
    taken: never,
    idle: "leased 1",
    "leased 1": "leased 2",
    "leased 2": "leased 3",
    "draining 1": never,
    "draining 2": never,
    "closed died": never,
  },
  release: {
    taken: never,
    idle: never,
    "leased 1": "idle",
    "leased 2": "leased 1",
    "draining 1": "closed cleared",
    "draining 2": "draining 1 cleared",
    "closed died": "closed died", // its streams have died with it, and are given back later
  },
  evict: leave("evicted"),
  expire: leave("expired"),
  retire: leave("retired"),
  clear: leave("cleared"),
  configure: leave("configured"),
  invalid: leave("invalid"),
  reset: leave("reset"),
  blocked: leave("blocked"),
  goaway: leave("goaway"),
  "pool close": leave("pool"),
  died: {
    taken: "closed died", // out with its owner
    idle: "closed died",
    "leased 1": "closed died",
    "leased 2": "closed died",
    "draining 1": "closed cleared",
    "draining 2": "closed cleared",
    "closed died": "closed died",
  },
  "grace over": {
    taken: "closed pool", // adopted too late
    idle: "closed pool",
    "leased 1": "closed pool",
    "leased 2": "closed pool",
    "draining 1": "closed cleared",
    "draining 2": "closed cleared",
    "closed died": "closed died",
  },
  take: {
    taken: never,
    idle: "taken",
    "leased 1": never,
    "leased 2": never,
    "draining 1": never,
    "draining 2": never,
    "closed died": never,
  },
};

for (const [event, run] of Object.entries(events)) {
  describe(`the life of a conn: ${event}`, () => {
    for (const [state, start] of Object.entries(states)) {
      const expected = table[event as keyof typeof events][state]; // the keys of `events`
      test(`${state} -> ${expected}`, () => {
        const conn = start();
        const before = show(conn);
        if (expected === never) {
          assert.throws(() => run(conn), { code: "ERR_POOL_BUG" });
          assert.equal(show(conn), before); // and nothing has changed
        } else {
          run(conn);
          assert.equal(show(conn), expected);
        }
        checkFacts(conn);
      });
    }
  });
}

test("the life of a conn: uses count streams begun, and stay when it is taken and put back elsewhere", () => {
  const conn = leased(2);
  conn.release();
  conn.lease();
  conn.release();
  conn.release();
  conn.take();
  conn.put(anotherHome);
  assert.deepEqual([conn.uses, conn.key.id, conn.openedAt], [3, "another home", 5]);
});

function make(): Conn {
  return new Entry<string, PoolConn>({ close() {}, closed: new Promise(() => {}) }, home, 5);
}

function put(conn: Conn): Conn {
  conn.put(home);
  return conn;
}

function leased(streams: number): Conn {
  const conn = put(make());
  for (let i = 0; i < streams; i++) conn.lease();
  return conn;
}

function draining(streams: number): Conn {
  const conn = leased(streams);
  conn.drain("cleared");
  return conn;
}

function show({ state }: Conn): string {
  return Object.values(state).join(" ");
}

/** What is derived must agree with the state, and exactly one of them holds. */
function checkFacts(conn: Conn): void {
  const { name } = conn.state;
  assert.deepEqual(
    [conn.isIdle, conn.isReady, conn.isDraining, conn.isOpen, conn.isTaken],
    [
      name === "idle",
      name === "idle" || name === "leased",
      name === "draining",
      name !== "taken" && name !== "closed",
      name === "taken",
    ],
  );
  if (name === "idle" || name === "closed" || name === "taken") assert.equal(conn.streams, 0);
}

test("of what a conn says of itself, what is wrong counts as nothing: no slots, no bytes, no ping", () => {
  const trap = (): never => {
    throw new Error("a getter that throws");
  };
  const saying = (name: string, get: () => unknown): Conn => {
    const conn = { closed: new Promise<void>(() => {}), close: () => {} };
    return new Entry<string, PoolConn>(Object.defineProperty(conn, name, { get }), home, 0);
  };
  const slots: [unknown, number][] = [
    [7, 7],
    [0.5, 0.5],
    [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    [undefined, 1],
    [null, 1],
    [0, 0],
    [-1, 0],
    [Number.NaN, 0],
    ["5", 0],
    [5n, 0],
  ];
  for (const [said, taken] of slots) assert.equal(saying("maxStreams", () => said).maxStreams, taken, String(said));
  assert.equal(saying("maxStreams", trap).maxStreams, 0);
  for (const [said, read] of [
    [3, 3],
    ["3", Number.NaN],
    [undefined, Number.NaN],
  ] as const) {
    assert.equal(saying("bytesRead", () => said).bytesRead, read);
  }
  assert.equal(saying("bytesRead", trap).bytesRead, Number.NaN);
  assert.deepEqual([saying("ping", () => () => {}).canPing, saying("ping", trap).canPing], [true, false]);
  assert.equal(saying("draining", trap).saysDraining, undefined);
});
