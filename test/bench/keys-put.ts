import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool.ts";
import { BenchClock } from "./clock.ts";
import type { GoPool } from "./go-pool.ts";
import { heapUsed } from "./memory.ts";
import { NoopConn } from "./noop.ts";
import { median } from "./race.ts";
import { atMost, type Line, type Pace } from "./row.ts";

/** What one conn for each of many keys costs: to put it, to hold it, to take it. */
export async function* putAndTake(
  count: number,
  pace: Pace,
  go: GoPool | undefined,
): AsyncGenerator<Line, void, undefined> {
  const keys = Array.from({ length: count }, (_, i) => `peer:${i}`);
  const put: number[] = [];
  const putBack: number[] = [];
  const take: number[] = [];
  const [warmUp, rounds] = pace.name === "long" ? [2, 11] : [1, 2];
  for (let round = -warmUp; round < rounds; round++) {
    const pool = limited(count, new BenchClock());
    const conns = keys.map((): Conn => new NoopConn());
    gc?.();
    const first = nsPerKey(keys, conns, (key, conn) => pool.put(key, conn));
    const back = nsPerKey(keys, conns, (key) => pool.take(key));
    const second = nsPerKey(keys, conns, (key, conn) => pool.put(key, conn));
    if (round < 0) continue;
    put.push(first);
    take.push(back);
    putBack.push(second);
  }
  const each = median(put);
  yield {
    name: "put, for each of 100,000 keys",
    value: each,
    unit: "ns",
    ...(go && { ratio: each / go.put100k, of: "Go", target: atMost(2, each / go.put100k) }),
  };
  yield { name: "put, of conns that were taken", value: median(putBack), unit: "ns" };
  yield { name: "take", value: median(take), unit: "ns", ...(go && { ratio: median(take) / go.take100k, of: "Go" }) };
  if (go !== undefined) {
    yield { name: "Go's drpcpool: Put", value: go.put100k, unit: "ns" };
    yield { name: "Go's drpcpool: Take", value: go.take100k, unit: "ns" };
  }
  // As full as before: the tables of a Map double.
  yield* heap(pace.name === "long" ? keys : keys.slice(0, count / 4));
}

/** Processor time, V8's helpers and its collections included. */
function nsPerKey(keys: readonly string[], conns: readonly Conn[], act: (key: string, conn: Conn) => unknown): number {
  const before = process.cpuUsage();
  for (const [i, conn] of conns.entries()) act(keys[i] ?? "", conn);
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / keys.length;
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
