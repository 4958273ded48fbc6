import { Effect, Pool as EffectPool, Scope } from "effect";
import { createPool as createGenericPool } from "generic-pool";
import { createPool as createLightningPool } from "lightning-pool";
import { Pool as TarnPool } from "tarn";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { direct } from "./direct.ts";
import { fresh } from "./fresh.ts";
import { bytesPerOperation } from "./memory.ts";
import { NoopConn, rpc } from "./noop.ts";
import { assemble, race } from "./race.ts";
import { atLeast, atMost, type Contender, type Line, type Pace, type Section } from "./row.ts";
import { atMostScaled } from "./scale.ts";

const key = "peer:1";
const dial = (): Conn => new NoopConn();

const contenders = {
  direct,

  /** What no pool can do without: a counter, and two functions that see the end of the call. */
  floor: (): Contender => {
    const conn = new NoopConn();
    const counter = { streams: 0 };
    const ended = <T>(value: T): T => {
      counter.streams--;
      return value;
    };
    const failed = (error: unknown): never => {
      counter.streams--;
      throw error;
    };
    return {
      name: "floor",
      run: async (n) => {
        for (let i = 0; i < n; i++) {
          counter.streams++;
          await conn.invoke(rpc, "request").then(ended, failed);
        }
      },
    };
  },

  pooled: (): Contender => {
    const conn = new Pool({ dial }).get(key);
    return {
      name: "pooled",
      run: async (n) => {
        for (let i = 0; i < n; i++) await conn.invoke(rpc, "request");
      },
    };
  },

  capped: (): Contender => {
    const conn = new Pool({ dial, capacity: 100, keyCapacity: 10, expirationMs: 60_000 }).get(key);
    return {
      name: "capped",
      run: async (n) => {
        for (let i = 0; i < n; i++) await conn.invoke(rpc, "request");
      },
    };
  },

  /** Many streams on one conn, as gRPC has them. */
  multiplexed: (): Contender => {
    const conn = new Pool({ dial: (): Conn => new NoopConn(100) }).get(key);
    return {
      name: "multiplexed",
      run: async (n) => {
        for (let i = 0; i < n; i++) await conn.invoke(rpc, "request");
      },
    };
  },

  signalled: (): Contender => {
    const conn = new Pool({ dial }).get(key);
    const options = { signal: new AbortController().signal };
    return {
      name: "signalled",
      run: async (n) => {
        for (let i = 0; i < n; i++) await conn.invoke(rpc, "request", options);
      },
    };
  },

  "lightning-pool": (): Contender => {
    const pool = createLightningPool({ create: dial, destroy: (conn: Conn) => conn.close() }, { max: 10 });
    return {
      name: "lightning-pool",
      run: async (n) => {
        for (let i = 0; i < n; i++) {
          const conn: Conn = await pool.acquire();
          try {
            await conn.invoke(rpc, "request");
          } finally {
            pool.release(conn);
          }
        }
      },
    };
  },

  "generic-pool": (): Contender => {
    const pool = createGenericPool<Conn>({ create: async () => dial(), destroy: (conn) => conn.close() }, { max: 10 });
    return {
      name: "generic-pool",
      run: async (n) => {
        for (let i = 0; i < n; i++) {
          const conn = await pool.acquire();
          try {
            await conn.invoke(rpc, "request");
          } finally {
            void pool.release(conn);
          }
        }
      },
    };
  },

  "generic-pool use": (): Contender => {
    const pool = createGenericPool<Conn>({ create: async () => dial(), destroy: (conn) => conn.close() }, { max: 10 });
    return {
      name: "generic-pool use",
      run: async (n) => {
        for (let i = 0; i < n; i++) await pool.use((conn) => conn.invoke(rpc, "request"));
      },
    };
  },

  tarn: (): Contender => {
    const pool = new TarnPool<Conn>({
      create: async () => dial(),
      validate: () => true,
      destroy: (conn) => conn.close(),
      min: 0,
      max: 10,
    });
    return {
      name: "tarn",
      run: async (n) => {
        for (let i = 0; i < n; i++) {
          const conn = await pool.acquire().promise;
          try {
            await conn.invoke(rpc, "request");
          } finally {
            pool.release(conn);
          }
        }
      },
    };
  },

  /** All calls in one fiber: to start one for each call would cost more. */
  effect: async (): Promise<Contender> => {
    const acquire = Effect.acquireRelease(Effect.sync(dial), (conn) => Effect.promise(() => conn.close()));
    const scope = Effect.runSync(Scope.make());
    const pool = await Effect.runPromise(Scope.provide(EffectPool.make({ acquire, size: 1 }), scope));
    const call = EffectPool.use(pool, (conn) => Effect.promise(() => conn.invoke(rpc, "request")));
    return {
      name: "effect",
      run: (n) =>
        Effect.runPromise(
          Effect.gen(function* () {
            for (let i = 0; i < n; i++) yield* call;
          }),
        ),
    };
  },
};

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const all = await assemble(contenders);
  const times = await race(all, pace);
  const row = (name: keyof typeof contenders) => ({ value: times.ns(name), unit: "ns" as const });
  const toDirect = (name: keyof typeof contenders) => times.ratio(name, "direct");
  const faster = (name: keyof typeof contenders) => times.ratio(name, "pooled");

  yield { name: "direct await conn.invoke()", ...row("direct"), ratio: 1 };
  yield { name: "direct, with then(done, failed)", ...row("floor"), ratio: toDirect("floor"), note: "the least" };
  yield { name: "handle.invoke", ...row("pooled"), ratio: toDirect("pooled"), target: atMost(2.2, toDirect("pooled")) };
  yield {
    name: "with capacity, keyCapacity, expirationMs",
    ...row("capped"),
    ratio: toDirect("capped"),
    target: atMost(3, toDirect("capped")),
  };
  yield { name: "on a conn with 100 streams", ...row("multiplexed"), ratio: toDirect("multiplexed") };
  const signal = times.beyond("signalled", "pooled");
  yield {
    name: "with a signal that never fires",
    ...row("signalled"),
    ratio: toDirect("signalled"),
    ...atMostScaled(20, signal, times.ns("direct"), "handle.invoke"),
  };
  yield {
    name: "lightning-pool",
    ...row("lightning-pool"),
    ratio: toDirect("lightning-pool"),
    target: atLeast(4.5, faster("lightning-pool")),
  };
  yield {
    name: "generic-pool",
    ...row("generic-pool"),
    ratio: toDirect("generic-pool"),
    target: atLeast(6, faster("generic-pool")),
  };
  yield { name: "generic-pool, use()", ...row("generic-pool use"), ratio: toDirect("generic-pool use") };
  yield { name: "tarn", ...row("tarn"), ratio: toDirect("tarn"), target: atLeast(18, faster("tarn")) };
  yield { name: "effect", ...row("effect"), ratio: toDirect("effect") };

  const bytes = new Map<string, number>();
  for (const contender of all) bytes.set(contender.name, await bytesPerOperation(contender));
  const direct = bytes.get("direct") ?? Number.NaN;
  for (const [name, value] of bytes) {
    const beyond = value - direct;
    yield {
      name: `bytes a call: ${name}`,
      value,
      unit: "bytes",
      ...(name === "pooled" && { target: atMost(200, beyond, "bytes") }),
    };
  }

  for (const [name, limit] of [
    ["pooled", 2.2],
    ["capped", 3],
  ] as const) {
    const alone = await fresh("invoke", ["direct", name], pace);
    const ratio = alone.ratio(name, "direct");
    yield {
      name: `${name}, in a process of its own`,
      value: alone.ns(name),
      unit: "ns",
      ratio,
      target: atMost(limit, ratio),
    };
  }
}

export const invoke: Section = { name: "invoke", title: "one sequential call on an in-memory conn", run, contenders };
