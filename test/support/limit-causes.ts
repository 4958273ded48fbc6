import { backoff, type Cause, forever, none, nothing, Silent } from "./causes.ts";
import { settle } from "./clock.ts";
import { ScriptedConn } from "./conn.ts";

/** What a limit holds back, or something else that a caller waits for. */
export const limitCauses: readonly Cause[] = [
  {
    name: "maxKeyConns",
    options: { maxKeyConns: 1 },
    stage: (w) => w.lease("k"),
    decision: "wait",
    by: "maxKeyConns",
    numbers: [1, 1],
    ways: ["`maxKeyConns` 2 would dial"],
    says: /maxKeyConns: 1 of 1, 1 leased/,
  },
  {
    name: "maxKeyConns, with others before",
    options: { maxKeyConns: 1 },
    stage: async (w) => {
      await w.lease("k");
      for (let i = 0; i < 3; i++) await w.ask("k");
    },
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 5 would dial"],
    says: /waiting: 3/,
  },
  {
    name: "maxKeyConns of one key, said by `limits`",
    options: { limits: () => ({ maxKeyConns: 2 }) },
    stage: async (w) => {
      await w.lease("k");
      await w.lease("k");
    },
    decision: "wait",
    by: "maxKeyConns",
    numbers: [2, 2],
    ways: ["`maxKeyConns` 3 would dial"],
  },
  {
    name: "maxKeyConns with conns that maxStreams caps",
    options: { maxKeyConns: 1, maxStreams: 1 },
    stage: (w) => w.lease("k", new ScriptedConn({ maxStreams: 100 })),
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 would dial", "`maxStreams` 2 would lease"],
  },
  {
    name: "maxKeyConns with capped conns, and others before",
    options: { maxKeyConns: 1, maxStreams: 1 },
    stage: async (w) => {
      await w.lease("k", new ScriptedConn({ maxStreams: 100 }));
      await w.ask("k");
    },
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 3 would dial", "`maxStreams` 3 would lease"],
  },
  {
    name: "maxKeyConns with a conn that is blocked",
    options: { maxKeyConns: 1 },
    stage: async (w) => {
      const lease = await w.lease("k");
      lease.conn.blockedUntil = forever();
      lease.release();
      await w.ask("k"); // it is asked now
    },
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 3 would dial"],
    says: /1 idle, 1 of them blocked/,
  },
  {
    name: "maxKeyConns with a conn that is being reset",
    options: { maxKeyConns: 1, reset: forever },
    stage: async (w) => (await w.lease("k")).release(),
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 would dial"],
    says: /: reset/,
  },
  {
    name: "a suspect conn at maxKeyConns",
    options: { maxKeyConns: 1 },
    stage: async (w) => {
      const lease = await w.lease("k", new Silent({ maxStreams: 9 }));
      await w.clock.advance(1000);
      lease.release({ unanswered: true });
    },
    decision: "dial", // in its place
    says: /: suspect/,
  },
  {
    name: "maxKeyConns with conns that do not pass the filter",
    options: { maxKeyConns: 1 },
    stage: async (w) => (await w.lease("k")).release(),
    caller: () => ({ filter: none }),
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 would dial"],
  },
  {
    name: "maxKeyConns, a dial in flight included",
    options: { maxKeyConns: 1 },
    slots: 1,
    stage: (w) => w.ask("k"),
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 would dial"],
    says: /1 of 1, 1 dialing/,
  },
  {
    name: "maxKeyConns that allows none",
    options: { maxKeyConns: -1 },
    stage: nothing,
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 1 would dial"],
    says: /none allowed/,
  },
  {
    name: "maxStreams that allows none, beside a conn",
    options: { maxKeyConns: 1, maxStreams: -1 },
    stage: (w) => w.pool.put("k", new ScriptedConn()),
    decision: "wait",
    by: "maxStreams",
    ways: ["`maxStreams` 1 would lease"],
    says: /noSlots/,
  },
  {
    name: "maxStreams that allows none",
    options: { maxStreams: -1 },
    stage: nothing,
    decision: "wait",
    by: "maxStreams",
    ways: ["`maxStreams` 1 would dial"],
  },
  {
    name: "maxKeyDials",
    options: { maxKeyDials: 1 },
    slots: 1,
    stage: (w) => w.ask("k"),
    decision: "wait",
    by: "maxKeyDials",
    numbers: [1, 1],
    ways: ["`maxKeyDials` 2 would dial"],
  },
  {
    name: "maxKeyDials that allows none",
    options: { maxKeyDials: -1 },
    stage: nothing,
    decision: "wait",
    by: "maxKeyDials",
    ways: ["`maxKeyDials` 1 would dial"],
  },
  {
    name: "maxDials",
    options: { maxDials: 1 },
    stage: (w) => w.ask("other"),
    decision: "wait",
    by: "maxDials",
    numbers: [1, 1],
    ways: ["`maxDials` 2 would dial"],
    says: /all of other keys/,
  },
  {
    name: "maxDials, with another key before",
    options: { maxDials: 1 },
    stage: async (w) => {
      await w.ask("other");
      await w.ask("third");
    },
    decision: "wait",
    by: "maxDials",
    ways: ["`maxDials` 3 would dial"],
    says: /1 key in line before/,
  },
  {
    name: "maxDials that allows none",
    options: { maxDials: -1 },
    stage: nothing,
    decision: "wait",
    by: "maxDials",
    ways: ["`maxDials` 1 would dial"],
  },
  {
    name: "maxConns",
    options: { maxConns: 1 },
    stage: (w) => w.lease("other"),
    decision: "wait",
    by: "maxConns",
    numbers: [1, 1],
    ways: ["`maxConns` 2 would dial"],
    says: /maxConns: 1 of 1, all used by other keys/,
  },
  {
    name: "maxConns, with a dial of another key",
    options: { maxConns: 1 },
    stage: (w) => w.ask("other"),
    decision: "wait",
    by: "maxConns",
    ways: ["`maxConns` 2 would dial"],
  },
  {
    name: "maxConns, with conns of its own and of others",
    options: { maxConns: 2 },
    stage: async (w) => {
      await w.lease("k");
      await w.lease("other");
    },
    decision: "wait",
    by: "maxConns",
    ways: ["`maxConns` 3 would dial"],
    says: /2 of 2, 1 used by other keys/,
  },
  {
    name: "maxConns, with a conn that drains",
    options: { maxConns: 1 },
    stage: async (w) => {
      const { conn } = await w.lease("k");
      conn.draining = true;
      conn.changed();
    },
    decision: "wait",
    by: "maxConns",
    ways: ["`maxConns` 2 would dial"],
    says: /1 draining/,
  },
  {
    name: "maxConns, with a socket that is still there",
    options: { maxConns: 1 },
    stage: async (w) => {
      const lease = await w.lease("other", new ScriptedConn({ close: forever }));
      lease.conn.die = nothing;
      lease.discard();
      await settle();
    },
    decision: "wait",
    by: "maxConns",
    ways: ["`maxConns` 2 would dial"],
    says: /1 closing/,
  },
  {
    name: "maxConns, with other keys in line before",
    options: { maxConns: 1 },
    stage: async (w) => {
      await w.lease("other");
      for (const key of ["a", "b", "c"]) await w.ask(key);
    },
    decision: "wait",
    by: "maxConns",
    ways: ["`maxConns` 5 would dial"],
    says: /all used by other keys; 3 other keys in line[\s\S]*3 keys in line before this one/,
  },
  {
    name: "maxConns that allows none",
    options: { maxConns: -1 },
    stage: nothing,
    decision: "wait",
    by: "maxConns",
    ways: ["`maxConns` 1 would dial"],
  },
  {
    name: "two limits at once",
    options: { maxKeyConns: 1, maxConns: 1 },
    stage: (w) => w.lease("k"),
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 and `maxConns` 2 would dial"],
  },
  {
    name: "three limits at once",
    options: { maxKeyConns: 1, maxConns: 2, maxDials: 1 },
    stage: async (w) => {
      await w.lease("k");
      await w.ask("other");
    },
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 and `maxDials` 2 and `maxConns` 3 would dial"],
  },
  {
    name: "a conn that is due for validation",
    options: { validate: forever },
    stage: async (w) => {
      (await w.lease("k")).release();
      await w.clock.advance(600);
    },
    decision: "wait",
    by: "validate",
    ways: ["`validateAfterMs` 601 would lease"],
    says: /validationDue/,
  },
  {
    name: "maxKeyConns with a conn that is being validated for another",
    options: { validate: forever, maxKeyConns: 1 },
    slots: 2,
    stage: async (w) => {
      (await w.lease("k")).release();
      await w.clock.advance(600);
      await w.ask("k");
    },
    decision: "wait",
    by: "maxKeyConns",
    ways: ["`maxKeyConns` 2 would dial"],
    says: /: validating/,
  },
  {
    name: "a key that fails, and a dial of it in flight",
    slots: 1,
    stage: async (w) => {
      await w.ask("k", { waitForReady: true });
      await w.fail();
      await w.clock.advance(100);
    },
    decision: "wait",
    by: "pace",
    ways: [],
    says: /1 failed dial in a row/,
  },
  {
    name: "a key that fails, and another who waits for it to be dialed again",
    slots: 1,
    stage: async (w) => {
      await w.ask("k", { waitForReady: true });
      await w.fail();
    },
    decision: "wait",
    by: "pace",
    ways: [],
  },
  {
    name: "a backoff, for who waits until the key is ready",
    options: { backoff },
    stage: async (w) => {
      await w.ask("k");
      await w.fail();
    },
    caller: () => ({ waitForReady: true }),
    decision: "wait",
    by: "backoff",
    ways: ["`backoff` false would dial"],
    says: /not dialed again for/,
  },
  {
    name: "no dial function, and a conn in use",
    options: { dial: undefined },
    stage: (w) => w.lease("k"),
    decision: "wait",
    by: "dial",
    ways: [],
    says: /no dial function, and 1 leased/,
  },
  {
    name: "no dial function, and what others dial",
    options: { dial: undefined },
    slots: 1,
    stage: (w) => w.ask("k", { dial: w.dial }),
    decision: "wait",
    by: "dial",
    ways: [],
  },
];
