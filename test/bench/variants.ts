import type { Conn } from "../../src/contract.ts";
import type { AcquireOptions, GetOptions, PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { NoopConn, rpc } from "./noop.ts";
import type { Contender } from "./row.ts";

const key = "peer:1";
/** How many slots are taken before the event loop turns, and what they set going (delivered events, say) runs. */
const atOnce = 100;

/** A pool, and what is done with it. */
export interface Variant {
  readonly title: string;
  readonly options?: PoolOptions<string, Conn>;
  readonly get?: GetOptions<Conn>;
  readonly tryAcquire?: Pick<AcquireOptions<string, Conn>, "filter">;
  /** Before anything is measured. */
  prepare?(pool: Pool): unknown;
  /** Once in each round. */
  eachRound?(pool: Pool): unknown;
}

class TaggedConn extends NoopConn {
  readonly tags: Readonly<Record<string, unknown>> = { zone: "a" };
}

const checks = { validate: async () => true, validateAfterMs: 0, reset: async () => {} };
const measures = { minIdle: 1, selection: "fastest" } as const;

/** What a pool may have, none of it on while it is measured: what is off should cost nothing. */
export const off = {
  default: { title: "default" },
  again: { title: "default once more (A/A)" },
  stats: { title: "stats() read in each round", eachRound: (pool) => pool.stats() },
  listeners: { title: "listeners added and removed", prepare: listenForAWhile },
  options: { title: "an empty options object", get: {} },
  checked: { title: "validate, reset on another pool", prepare: () => use(makePool(checks)) },
  measured: { title: 'minIdle, "fastest" on another pool', prepare: () => use(makePool(measures)) },
  tags: { title: "conns with tags", options: { dial: () => new TaggedConn() } },
} as const satisfies Readonly<Record<string, Variant>>;

/** What each costs that asks for it. */
export const on = {
  listener: { title: "listeners of leased and released", prepare: listen },
  filter: { title: "a filter", get: { filter: () => true }, tryAcquire: { filter: () => true } },
  validate: { title: "validate (nothing is due)", options: { validate: async () => true } },
  reset: { title: "reset", options: { reset: () => undefined } },
  minIdle: { title: "minIdle: 1", options: { minIdle: 1 } },
  leaks: { title: "leakAfterMs", options: { leakAfterMs: 60_000 } },
  fastest: { title: 'selection: "fastest"', options: { selection: "fastest" } },
} as const satisfies Readonly<Record<string, Variant>>;

/** Calls that somebody hears of; then nobody does. */
async function listenForAWhile(pool: Pool): Promise<void> {
  const stop = [pool.on("leased", () => {}), pool.on("released", () => {}), pool.on("closed", () => {})];
  await use(pool);
  for (const one of stop) one();
}

function listen(pool: Pool): void {
  pool.on("leased", () => {});
  pool.on("released", () => {});
}

async function use(pool: Pool): Promise<void> {
  const conn = pool.get(key);
  for (let i = 0; i < 20_000; i++) await conn.invoke(rpc, "request");
}

function makePool(options: PoolOptions<string, Conn> | undefined): Pool {
  return new Pool({ dial: (): Conn => new NoopConn(), ...options });
}

/** The two contenders of a variant. They need a process to themselves, so that what V8 learns of one variant spoils no other. */
export function contendersOf(name: string, variant: Variant): Readonly<Record<string, () => Promise<Contender>>> {
  const start = async (): Promise<Pool> => {
    const pool = makePool(variant.options);
    await pool.warm(key);
    await variant.prepare?.(pool);
    return pool;
  };
  return {
    [`${name} call`]: async () => {
      const pool = await start();
      const conn = pool.get(key, variant.get);
      return {
        name: `${name} call`,
        run: async (n) => {
          variant.eachRound?.(pool);
          for (let i = 0; i < n; i++) await conn.invoke(rpc, "request");
        },
      };
    },
    [`${name} lease`]: async () => {
      const pool = await start();
      return {
        name: `${name} lease`,
        run: async (n) => {
          variant.eachRound?.(pool);
          for (let left = n; left > 0; left -= atOnce) {
            for (let i = Math.min(left, atOnce); i > 0; i--) pool.tryAcquire(key, variant.tryAcquire)?.release();
            await Promise.resolve();
          }
        },
      };
    },
  };
}
