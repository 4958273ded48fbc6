import { median } from "./race.ts";
import type { Contender } from "./row.ts";

const { gc } = globalThis;

/** Collects all garbage; what was freed may have freed more. */
export async function collect(): Promise<void> {
  if (gc === undefined) throw new Error("run node with --expose-gc");
  for (let i = 0; i < 4; i++) {
    gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Bytes in use, garbage not counted. */
export async function heapUsed(): Promise<number> {
  await collect();
  return process.memoryUsage().heapUsed;
}

/** So few that the young generation, empty after a collection, holds all that they allocate. */
const operations = 500;

/** Bytes that one operation allocates, garbage included. */
export async function bytesPerOperation(contender: Contender, rounds = 25): Promise<number> {
  await contender.run(20_000);
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    gc?.();
    const before = process.memoryUsage().heapUsed;
    const running = contender.run(operations);
    if (running !== undefined) await running;
    samples.push((process.memoryUsage().heapUsed - before) / operations);
  }
  return median(samples);
}
