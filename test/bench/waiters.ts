import { Sema } from "async-sema";
import { createPool as createGenericPool } from "generic-pool";
import { createPool as createLightningPool } from "lightning-pool";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { fresh } from "./fresh.ts";
import { NoopConn } from "./noop.ts";
import { race } from "./race.ts";
import { atLeast, atMost, type Contender, type Line, type Pace, type Section } from "./row.ts";

const callers = 1000;
const conns = 10;

/** The least that a queue can be: the resolvers of those that wait. */
class Fifo {
  #free = conns;
  readonly #resolvers: (() => void)[] = [];

  acquire(): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#resolvers.push(resolve));
  }

  release(): void {
    const resolve = this.#resolvers.shift();
    if (resolve === undefined) this.#free++;
    else resolve();
  }
}

/** A thousand callers at a time. Each gives back one microtask after it has got; nothing here is made for a caller. */
function crowd<T>(name: string, acquire: () => Promise<T>, release: (held: T) => unknown): Contender {
  let running = 0;
  let done: () => void = () => {};
  const end = (held: T): void => {
    release(held);
    if (--running === 0) done();
  };
  const hold = (held: T): void => void Promise.resolve(held).then(end);
  return {
    name,
    together: callers,
    run: async (n) => {
      for (let i = 0; i < n; i++) {
        running = callers;
        await new Promise<void>((resolve) => {
          done = resolve;
          for (let caller = 0; caller < callers; caller++) void acquire().then(hold);
        });
      }
    },
  };
}

const contenders = {
  fifo: (): Contender => {
    const fifo = new Fifo();
    return crowd(
      "fifo",
      () => fifo.acquire(),
      () => fifo.release(),
    );
  },

  pool: (): Contender => {
    const pool = new Pool({ dial: (): Conn => new NoopConn(), maxKeyConns: conns });
    return crowd(
      "pool",
      () => pool.acquire("peer:1"),
      (lease) => lease.release(),
    );
  },

  "generic-pool": (): Contender => {
    const pool = createGenericPool<Conn>(
      { create: async () => new NoopConn(), destroy: (conn) => conn.close() },
      { max: conns },
    );
    return crowd(
      "generic-pool",
      () => pool.acquire(),
      (conn) => pool.release(conn),
    );
  },

  "lightning-pool": (): Contender => {
    const pool = createLightningPool(
      { create: (): Conn => new NoopConn(), destroy: (conn: Conn) => conn.close() },
      { max: conns, maxQueue: callers },
    );
    return crowd(
      "lightning-pool",
      () => pool.acquire(),
      (conn) => pool.release(conn),
    );
  },

  "async-sema": (): Contender => {
    const all = Array.from({ length: conns }, () => new NoopConn());
    const sema = new Sema(conns, { initFn: () => all.pop(), capacity: callers });
    return crowd(
      "async-sema",
      () => sema.acquire(),
      (conn) => sema.release(conn),
    );
  },
};

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const all = Object.values(contenders).map((make) => make());
  const times = await race(all, { ...pace, sliceMs: Math.max(pace.sliceMs, 5) });
  const value = (name: keyof typeof contenders) => ({ value: times.ns(name), unit: "ns" as const });
  const ratio = (name: keyof typeof contenders) => times.ratio(name, "fifo");
  const faster = (name: keyof typeof contenders) => times.ratio(name, "pool");
  yield { name: "bare array of resolvers", ...value("fifo"), ratio: 1 };
  yield { name: "pool.acquire + release", ...value("pool"), ratio: ratio("pool"), target: atMost(2, ratio("pool")) };
  for (const [name, limit] of [
    ["generic-pool", 3.5],
    ["lightning-pool", 2],
    ["async-sema", 1],
  ] as const) {
    yield { name, ...value(name), ratio: ratio(name), target: atLeast(limit, faster(name)), note: "of the pool" };
  }
  const alone = await fresh("waiters", ["fifo", "pool"], pace);
  const own = alone.ratio("pool", "fifo");
  yield {
    name: "pool.acquire, in a process of its own",
    value: alone.ns("pool"),
    unit: "ns",
    ratio: own,
    target: atMost(2, own),
  };
}

export const waiters: Section = { name: "waiters", title: "1,000 callers at 10 exclusive conns", run, contenders };
