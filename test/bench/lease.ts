import { do_not_optimize } from "mitata";
import type { Conn, Lease } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { direct } from "./direct.ts";
import { fresh } from "./fresh.ts";
import { goPool } from "./go-pool.ts";
import { bytesPerOperation } from "./memory.ts";
import { NoopConn } from "./noop.ts";
import { assemble, race } from "./race.ts";
import { atMost, type Contender, type Line, type Pace, type Section } from "./row.ts";
import { atMostAsDirect } from "./scale.ts";

const key = "peer:1";
const dial = (): Conn => new NoopConn();

const contenders = {
  direct,

  lease: async (): Promise<Contender> => {
    const pool = new Pool({ dial });
    await pool.warm(key);
    return {
      name: "lease",
      run: (n) => {
        for (let i = 0; i < n; i++) pool.tryAcquire(key)?.release();
      },
    };
  },

  expiring: async (): Promise<Contender> => {
    const pool = new Pool({ dial, expirationMs: 60_000 });
    await pool.warm(key);
    return {
      name: "expiring",
      run: (n) => {
        for (let i = 0; i < n; i++) pool.tryAcquire(key)?.release();
      },
    };
  },

  /** The least that a lease can be. */
  bare: (): Contender => {
    const conn = new NoopConn();
    return {
      name: "bare",
      run: (n) => {
        for (let i = 0; i < n; i++) do_not_optimize(new BareLease(conn));
      },
    };
  },
};

class BareLease implements Lease<Conn> {
  readonly conn: Conn;
  entry: object | undefined;
  core: object | undefined;

  constructor(conn: Conn) {
    this.conn = conn;
    this.entry = conn;
    this.core = conn;
  }

  release(): void {}

  discard(): void {}

  [Symbol.dispose](): void {}
}

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const all = await assemble(contenders);
  const times = await race(all, pace);
  yield { name: "direct await conn.invoke()", value: times.ns("direct"), unit: "ns", ratio: 1 };
  const targets = [
    ["lease", "tryAcquire + release", 50],
    ["expiring", "with expirationMs", 60],
  ] as const;
  for (const [name, title, ns] of targets) {
    const ratio = times.ratio(name, "direct");
    yield { name: title, value: times.ns(name), unit: "ns", ratio, target: atMostAsDirect(ns, ratio) };
  }
  for (const [name, title, ns] of targets) {
    const alone = await fresh("lease", ["direct", name], pace);
    const ratio = alone.ratio(name, "direct");
    const value = alone.ns(name);
    yield { name: `${title}, in a process of its own`, value, unit: "ns", ratio, target: atMostAsDirect(ns, ratio) };
  }
  const go = await goPool(pace);
  if (go === undefined) yield { name: "Go's drpcpool", skipped: "there is no `go` here" };
  else {
    yield { name: "Go's drpcpool: Take + Put", value: go.takePut, unit: "ns" };
    yield { name: "Go's drpcpool: Take + Put, expiring", value: go.takePutExpiring, unit: "ns" };
  }
  const bytes = new Map<string, number>();
  for (const contender of all) bytes.set(contender.name, await bytesPerOperation(contender));
  const bare = bytes.get("bare") ?? Number.NaN;
  yield { name: "bytes: a lease of three fields", value: bare, unit: "bytes" };
  const value = bytes.get("lease") ?? Number.NaN;
  yield {
    name: "bytes: tryAcquire + release",
    value,
    unit: "bytes",
    target: atMost(Math.ceil(bare), Math.floor(value), "bytes"),
  };
}

export const lease: Section = { name: "lease", title: "a slot taken and given back, with no call", run, contenders };
