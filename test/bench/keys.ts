import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { direct } from "./direct.ts";
import { fresh } from "./fresh.ts";
import { goPool } from "./go-pool.ts";
import { expireAll } from "./keys-expire.ts";
import { putAndTake } from "./keys-put.ts";
import { NoopConn, rpc } from "./noop.ts";
import { atMost, type Contender, type Line, type Pace, type Section } from "./row.ts";

const many = 100_000;

/** A pool with a conn for each key, each of which has carried a call: what is made once per conn is there. */
async function used(count: number): Promise<{ pool: Pool; keys: readonly string[]; handles: readonly Conn[] }> {
  const keys = Array.from({ length: count }, (_, i) => `peer:${i}`);
  const pool = new Pool({ capacity: 2 * count, keyCapacity: 10, expirationMs: 600_000 });
  for (const key of keys) pool.put(key, new NoopConn());
  const handles = keys.map((key) => pool.get(key));
  for (const handle of handles) await handle.invoke(rpc, "request");
  return { pool, keys, handles };
}

const contenders = {
  direct,

  rotation: async (): Promise<Contender> => {
    const { handles } = await used(64);
    return {
      name: "rotation",
      run: async (n) => {
        for (let i = 0; i < n; i++) await handles[i % 64]?.invoke(rpc, "request");
      },
    };
  },

  cycle: async (): Promise<Contender> => {
    const { handles } = await used(many);
    let at = 0;
    return {
      name: "cycle",
      run: async (n) => {
        for (let i = 0; i < n; i++) await handles[at++ % handles.length]?.invoke(rpc, "request");
      },
    };
  },

  "cycle of direct calls": (): Contender => {
    const conns = Array.from({ length: many }, () => new NoopConn());
    let at = 0;
    return {
      name: "cycle of direct calls",
      run: async (n) => {
        for (let i = 0; i < n; i++) await conns[at++ % conns.length]?.invoke(rpc, "request");
      },
    };
  },

  "cycle of leases": async (): Promise<Contender> => {
    const { pool, keys } = await used(many);
    let at = 0;
    return {
      name: "cycle of leases",
      run: (n) => {
        for (let i = 0; i < n; i++) pool.tryAcquire(keys[at++ % keys.length] ?? "")?.release();
      },
    };
  },
};

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const few = await fresh("keys", ["direct", "rotation"], pace);
  yield { name: "direct await conn.invoke()", value: few.ns("direct"), unit: "ns", ratio: 1 };
  const ratio = few.ratio("rotation", "direct");
  yield {
    name: "handle.invoke, 64 keys in rotation",
    value: few.ns("rotation"),
    unit: "ns",
    ratio,
    target: atMost(3.5, ratio),
  };
  const go = await goPool(pace);
  const cycle = await fresh("keys", ["direct", "cycle of direct calls", "cycle"], pace);
  const leases = await fresh("keys", ["direct", "cycle of leases"], pace);
  yield {
    name: "direct, 100,000 conns in turn",
    value: cycle.ns("cycle of direct calls"),
    unit: "ns",
    ratio: cycle.ratio("cycle of direct calls", "direct"),
  };
  for (const [name, title, times] of [
    ["cycle", "handle.invoke, 100,000 keys in turn", cycle],
    ["cycle of leases", "tryAcquire + release, 100,000 keys in turn", leases],
  ] as const) {
    const value = times.ns(name);
    yield {
      name: title,
      value,
      unit: "ns",
      ratio: times.ratio(name, "direct"),
      ...(go && { target: atMost(go.cycle100k, value, "ns"), note: "as Go" }),
    };
  }
  if (go === undefined) yield { name: "Go's drpcpool", skipped: "there is no `go` here" };
  else yield { name: "Go's drpcpool: Take + Put, 100,000 keys in turn", value: go.cycle100k, unit: "ns" };
  yield* putAndTake(many, pace, go);
  yield* expireAll(pace);
}

export const keys: Section = {
  name: "keys",
  title: "many keys, with capacity, keyCapacity and expirationMs",
  run,
  contenders,
};
