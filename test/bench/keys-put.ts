import { setTimeout as pass } from "node:timers/promises";
import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { BenchClock } from "./clock.ts";
import type { GoPool } from "./go-pool.ts";
import { heapUsed } from "./memory.ts";
import { NoopConn } from "./noop.ts";
import { Pauses } from "./pauses.ts";
import { median } from "./race.ts";
import { atMost, type Line, type Pace, type Row } from "./row.ts";

/** What one conn for each of many keys costs: to put it, to hold it, to take it. */
export async function* putAndTake(
  count: number,
  pace: Pace,
  go: GoPool | undefined,
): AsyncGenerator<Line, void, undefined> {
  const keys = Array.from({ length: count }, (_, i) => `peer:${i}`);
  const put: Cost[] = [];
  const putBack: Cost[] = [];
  const take: Cost[] = [];
  const [warmUp, rounds] = pace.name === "long" ? [2, 11] : [1, 3];
  for (let round = -warmUp; round < rounds; round++) {
    const pool = limited(count, new BenchClock());
    const conns = keys.map((): Conn => new NoopConn());
    gc?.();
    await pass(200); // V8 goes on sweeping after a collection
    const first = await perKey(keys, conns, (key, conn) => pool.put(key, conn));
    const back = await perKey(keys, conns, (key) => pool.take(key));
    const second = await perKey(keys, conns, (key, conn) => pool.put(key, conn));
    for (const key of keys) pool.take(key); // an armed timer would keep it all
    if (round < 0) continue;
    put.push(first);
    take.push(back);
    putBack.push(second);
  }
  const row = (name: string, costs: readonly Cost[]): Row => ({
    name,
    value: median(costs.map(({ ns }) => ns)),
    unit: "ns",
    note: `pauses for GC are ${median(costs.map(({ pausedNs }) => pausedNs)).toFixed(0)} ns of it`,
  });
  const toGo = (row: Row, ns: number): Row & { readonly ratio: number } => ({
    ...row,
    ratio: row.value / ns,
    of: "Go",
  });
  const putRow = row("put, for each of 100,000 keys", put);
  const takeRow = row("take", take);
  if (go === undefined) {
    yield putRow;
    yield takeRow;
  } else {
    const compared = toGo(putRow, go.put100k);
    yield { ...compared, target: atMost(2, compared.ratio) };
    yield { name: "Go's drpcpool: Put", value: go.put100k, unit: "ns" };
    yield toGo(takeRow, go.take100k);
    yield { name: "Go's drpcpool: Take", value: go.take100k, unit: "ns" };
  }
  yield row("put, of conns that were taken", putBack);
  // As full as before: the tables of a Map double.
  yield* heap(pace.name === "long" ? keys : keys.slice(0, count / 4));
}

/** Processor time, V8's helpers and its collections included, for one key. */
interface Cost {
  readonly ns: number;
  readonly pausedNs: number;
}

async function perKey(
  keys: readonly string[],
  conns: readonly Conn[],
  act: (key: string, conn: Conn) => unknown,
): Promise<Cost> {
  using pauses = new Pauses();
  const start = performance.now();
  const before = process.cpuUsage();
  for (const [i, conn] of conns.entries()) act(keys[i] ?? "", conn);
  const { user, system } = process.cpuUsage(before);
  const end = performance.now();
  await pauses.reported();
  return {
    ns: ((user + system) * 1e3) / keys.length,
    pausedNs: (pauses.between(start, end) * 1e6) / keys.length,
  };
}

async function* heap(keys: readonly string[]): AsyncGenerator<Line, void, undefined> {
  const clock = new BenchClock();
  const pool = limited(keys.length, clock);
  const conns = keys.map((): Conn => new NoopConn());
  const before = await heapUsed();
  for (const [i, conn] of conns.entries()) pool.put(keys[i] ?? "", conn);
  const full = ((await heapUsed()) - before) / keys.length;
  let taken = 0;
  for (const key of keys) if (pool.take(key) !== undefined) taken++;
  const empty = ((await heapUsed()) - before) / keys.length;
  if (taken !== conns.length) throw new Error(`${taken} conns came back of ${conns.length}`);
  yield {
    name: "heap for a key and its idle conn",
    value: full,
    unit: "bytes",
    target: atMost(700, full, "bytes"),
    note: "beyond the caller's key and conn",
  };
  yield {
    name: "heap kept for a conn that was taken",
    value: empty,
    unit: "bytes",
    target: atMost(300, empty, "bytes"),
    note: "while the caller holds it",
  };
  const left = [...pool.keys()].length;
  yield { name: "keys after the last take", value: left, unit: "count", target: atMost(0, left, "count") };
  const armed = clock.timers;
  yield { name: "timers after the last take", value: armed, unit: "count", target: atMost(0, armed, "count") };
}

function limited(count: number, clock: BenchClock): Pool {
  return new Pool({ capacity: 2 * count, keyCapacity: 10, expirationMs: 600_000, clock });
}
