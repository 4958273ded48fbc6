import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { Decision, HeldBackBy } from "../../src/explanation.ts";
import type { AcquireOptions, ExplainOptions, PoolOptions } from "../../src/options.ts";
import { settle } from "./clock.ts";
import { type Deferred, deferred, manualDial, ScriptedConn } from "./conn.ts";
import { outcome } from "./outcome.ts";
import { pooled } from "./pool.ts";

export type Options = PoolOptions<string, ScriptedConn>;
export type Request = AcquireOptions<string, ScriptedConn>;

/** A conn that answers pings when the test says so, which is never here. */
export class Silent extends ScriptedConn {
  bytesRead = 0;
  readonly pings: Deferred<void>[] = [];
  ping(): Promise<void> {
    this.pings.push(deferred());
    return this.pings[0]?.promise ?? Promise.resolve();
  }
}

/** A pool whose dials the test settles, and short words for what happens in it. */
export function world(t: TestContext, options: Options, slots?: number) {
  const dial = manualDial(slots);
  const { pool, clock } = pooled<ScriptedConn>(t, { dial, lifetimeJitter: 0, ...options });
  const ask = async (key: string, request: Request = {}) => {
    const asked = outcome(pool.acquire(key, request));
    await settle();
    return asked;
  };
  return {
    pool,
    clock,
    dial,
    slots,
    ask,
    /** A lease on a conn that is dialed for it. */
    async lease(key: string, conn = new ScriptedConn()) {
      const asked = await ask(key, { dial });
      dial.pending.at(-1)?.arrive(conn);
      await settle();
      assert.ok(asked.value !== undefined, `no lease: ${String(asked.error)}`);
      return asked.value;
    },
    async fail(error: unknown = new Error("refused")) {
      dial.pending.at(-1)?.fail(error);
      await settle();
    },
  };
}

export type World = ReturnType<typeof world>;

/** Something that happens, and how it is explained. */
export interface Cause {
  readonly name: string;
  readonly options?: Options;
  /** Streams that the dial function announces. */
  readonly slots?: number;
  readonly stage: (w: World) => unknown;
  /** The caller that it is about. */
  readonly caller?: (w: World) => ExplainOptions<string, ScriptedConn>;
  readonly decision: Decision;
  readonly by?: HeldBackBy;
  /** Of the limit that binds: used, and what it allows. */
  readonly numbers?: readonly [number, number];
  readonly code?: string;
  readonly ways?: readonly string[];
  /** What the text must say, too. */
  readonly says?: RegExp;
}

export const nothing = () => {};
export const none = () => false;
export const thrower = (): boolean => {
  throw new Error("bug in the filter");
};
export const forever = () => new Promise<never>(nothing);
export const backoff = { baseMs: 1e6, maxMs: 1e6 };

/** What nothing holds back, or what gets an error at once. */
export const otherCauses: readonly Cause[] = [
  // A conn at once.
  { name: "an idle conn", stage: async (w) => (await w.lease("k")).release(), decision: "lease" },
  {
    name: "a conn that runs streams and has room",
    stage: (w) => w.lease("k", new ScriptedConn({ maxStreams: 2 })),
    decision: "lease",
  },
  {
    name: "a conn that passes the filter",
    stage: async (w) => (await w.lease("k", new ScriptedConn({ tags: { zone: "a" } }))).release(),
    caller: () => ({ filter: (conn) => conn.tags?.["zone"] === "a" }),
    decision: "lease",
  },
  {
    name: "a conn that was validated or used a moment ago",
    options: { validate: forever },
    stage: async (w) => (await w.lease("k")).release(),
    decision: "lease",
  },
  {
    name: "a free conn beside a waiter whose filter refuses it",
    options: { maxKeyConns: 1 },
    stage: async (w) => {
      (await w.lease("k")).release();
      await w.ask("k", { filter: none });
    },
    decision: "lease",
  },
  {
    name: "a conn that gained a slot without a word",
    options: { maxKeyConns: 1 },
    stage: async (w) => {
      const { conn } = await w.lease("k");
      conn.maxStreams = 2;
    },
    decision: "lease",
  },

  // A dial, begun for it or in flight.
  { name: "a key that nobody has used", stage: nothing, decision: "dial" },
  { name: "all conns in use, and no limit", stage: (w) => w.lease("k"), decision: "dial" },
  { name: "a first dial, which may serve any number", stage: (w) => w.ask("k"), decision: "dial", says: /in flight/ },
  {
    name: "a dial in flight with room for more",
    slots: 5,
    stage: (w) => w.ask("k"),
    decision: "dial",
    says: /in flight/,
  },
  { name: "a dial in flight that is another's", slots: 1, stage: (w) => w.ask("k"), decision: "dial" },
  {
    name: "a conn that is blocked",
    stage: async (w) => {
      const lease = await w.lease("k");
      lease.conn.blockedUntil = forever();
      lease.release();
    },
    decision: "dial",
    says: /blocked/,
  },
  {
    name: "a conn that drains",
    stage: async (w) => {
      const { conn } = await w.lease("k", new ScriptedConn({ maxStreams: 5 }));
      conn.draining = true;
      conn.changed();
    },
    decision: "dial",
    says: /draining/,
  },
  {
    name: "a conn that has begun to drain without a word",
    options: { maxKeyConns: 1 },
    stage: async (w) => {
      const { conn } = await w.lease("k", new ScriptedConn({ maxStreams: 5 }));
      conn.draining = true;
    },
    decision: "dial",
    says: /draining/,
  },
  {
    name: "an idle conn that has begun to drain without a word, in a full pool",
    options: { maxConns: 1 },
    stage: async (w) => {
      const lease = await w.lease("k");
      lease.conn.draining = true;
      lease.release();
    },
    decision: "dial",
    says: /draining/,
  },
  {
    name: "a conn that throws when it is asked",
    stage: async (w) => {
      const lease = await w.lease("k");
      lease.conn.unblocked = () => {
        throw new Error("broken");
      };
      lease.release();
    },
    decision: "dial",
    says: /unreadable/,
  },
  {
    name: "a conn whose peer allows no streams now",
    stage: (w) =>
      w.lease("k", new ScriptedConn({ maxStreams: 1 })).then(({ conn }) => {
        conn.maxStreams = 0;
      }),
    decision: "dial",
    says: /noSlots/,
  },
  {
    name: "a conn that is being reset",
    options: { reset: forever },
    stage: async (w) => (await w.lease("k")).release(),
    decision: "dial",
    says: /: reset/,
  },
  {
    name: "a conn that is suspect",
    stage: async (w) => {
      const lease = await w.lease("k", new Silent({ maxStreams: 9 }));
      await w.clock.advance(1000);
      lease.release({ unanswered: true });
    },
    decision: "dial",
    says: /: suspect/,
  },
  {
    name: "conns that do not pass the filter, and a dial that may",
    stage: async (w) => (await w.lease("k")).release(),
    caller: () => ({ filter: none }),
    decision: "dial",
    says: /: filter/,
  },
  {
    name: "maxConns reached, with an idle conn of another key",
    options: { maxConns: 1 },
    stage: async (w) => (await w.lease("other")).release(),
    decision: "dial",
    says: /makes way/,
  },
  {
    name: "a key whose last dial failed, without backoff",
    stage: async (w) => {
      await w.ask("k", { waitForReady: true });
      await w.fail();
    },
    decision: "dial",
    says: /a dial failed: refused/,
  },

  // An error at once.
  {
    name: "a pool that is closed",
    stage: (w) => w.pool.close(),
    decision: "refuse",
    by: "closed",
    code: "ERR_POOL_CLOSED",
  },
  {
    name: "no conn, and no dial function",
    options: { dial: undefined },
    stage: nothing,
    decision: "refuse",
    by: "dial",
    code: "ERR_POOL_NO_CONN",
    says: /give a `dial`/,
  },
  {
    name: "a filter that no conn passes, and no dial function",
    options: { dial: undefined },
    stage: (w) => w.pool.put("k", new ScriptedConn()),
    caller: () => ({ filter: none }),
    decision: "refuse",
    by: "filter",
    code: "ERR_POOL_NO_MATCH",
  },
  {
    name: "a filter that throws",
    options: { dial: undefined },
    stage: (w) => w.pool.put("k", new ScriptedConn()),
    caller: () => ({ filter: thrower }),
    decision: "refuse",
    by: "filter",
    code: "ERR_POOL_NO_MATCH",
  },
  {
    name: "a filter for which a conn was dialed that does not pass it",
    stage: async (w) => {
      await w.ask("k", { filter: none });
      w.dial.pending[0]?.arrive();
      await settle();
    },
    caller: () => ({ filter: none }),
    decision: "refuse",
    by: "filter",
    code: "ERR_POOL_NO_MATCH",
  },
  {
    name: "maxWaiters",
    options: { maxWaiters: 1, maxKeyConns: 1 },
    stage: async (w) => {
      await w.lease("k");
      await w.ask("k");
    },
    decision: "refuse",
    by: "maxWaiters",
    numbers: [1, 1],
    code: "ERR_POOL_QUEUE_FULL",
    ways: ["`maxWaiters` 2 would wait", "`maxKeyConns` 3 would dial"],
  },
  {
    name: "maxWaiters that allows none",
    options: { maxWaiters: -1, maxConns: 1 },
    stage: (w) => w.lease("other"),
    decision: "refuse",
    by: "maxWaiters",
    code: "ERR_POOL_QUEUE_FULL",
    ways: ["`maxWaiters` 1 would wait", "`maxConns` 2 would dial"],
  },
  {
    name: "a backoff",
    options: { backoff },
    stage: async (w) => {
      await w.ask("k");
      await w.fail();
    },
    decision: "refuse",
    by: "backoff",
    code: "ERR_POOL_DIAL",
    ways: ["`backoff` false would dial"],
    says: /a dial failed: refused/,
  },
  {
    name: "a backoff after a dial that took too long",
    options: { backoff, dialTimeoutMs: 50 },
    stage: async (w) => {
      await w.ask("k");
      await w.clock.advance(50);
    },
    decision: "refuse",
    by: "backoff",
    code: "ERR_POOL_DIAL_TIMEOUT",
    ways: ["`backoff` false would dial"],
    says: /not done within dialTimeoutMs/,
  },
];
