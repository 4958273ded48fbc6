import { PerformanceObserver } from "node:perf_hooks";
import { setTimeout as pass, setImmediate as turn } from "node:timers/promises";
import type { PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool.ts";
import { BenchClock } from "./clock.ts";
import { collect } from "./memory.ts";
import { atMost, type Line, type Pace } from "./row.ts";

class LightConn implements PoolConn {
  readonly closed: Promise<void>;
  #settle!: () => void;

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  close(): void {
    this.#settle();
  }
}

/** A turn of the event loop: when it began, how long it took, and how long the processor worked in it. */
interface Turn {
  readonly startTime: number;
  readonly ms: number;
  readonly cpuMs: number;
}

interface Pause {
  readonly startTime: number;
  readonly duration: number;
}

const expirationMs = 600_000;
/** After this, something does not expire that should. */
const patienceMs = 60_000;

/** Idle conns that expire all at once: how long the event loop stands still meanwhile. */
export async function* expireAll(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const count = pace.name === "long" ? 1_000_000 : 100_000;
  const idle = count.toLocaleString("en-US");
  const clock = new BenchClock();
  const pool = new Pool<number, PoolConn>({ capacity: 2 * count, keyCapacity: 10, expirationMs, clock });
  for (let key = 0; key < count; key++) pool.put(key, new LightConn());
  await collect();
  // One tick, so that all have been idle since before it; at the next, the time of all is over.
  clock.forward(expirationMs / 8);
  while (clock.fired === 0) await turn();
  await pass(1000); // V8 goes on sweeping after a collection
  yield {
    name: `timers armed for ${idle} idle conns`,
    value: clock.mostTimers,
    unit: "count",
    target: atMost(1, clock.mostTimers, "count"),
  };
  const pauses: Pause[] = [];
  const observer = new PerformanceObserver((list) => pauses.push(...list.getEntries()));
  observer.observe({ entryTypes: ["gc"] });
  const begun = performance.now();
  const turns: Turn[] = [];
  clock.forward(expirationMs);
  while (clock.timers > 0 && performance.now() < begun + patienceMs) turns.push(await timedTurn());
  const ms = performance.now() - begun;
  await turn();
  observer.disconnect();
  if (pool.stats().closed.expired !== count) throw new Error(`${pool.stats().closed.expired} have expired`);
  yield { name: `${idle} conns expire together, in`, value: ms, unit: "ms" };
  const withGc = Math.max(...turns.map(held));
  const without = Math.max(...turns.map((turn) => held(turn) - paused(turn, pauses)));
  yield {
    name: "longest block meanwhile",
    value: without,
    unit: "ms",
    target: atMost(10, without, "ms"),
    note: "GC apart",
  };
  yield { name: "longest block meanwhile, GC included", value: withGc, unit: "ms" };
  yield { name: "longest pause for GC", value: Math.max(0, ...pauses.map(({ duration }) => duration)), unit: "ms" };
}

async function timedTurn(): Promise<Turn> {
  const startTime = performance.now();
  const before = process.cpuUsage();
  await turn();
  const { user, system } = process.cpuUsage(before);
  return { startTime, ms: performance.now() - startTime, cpuMs: (user + system) / 1000 };
}

/** While another process has the processor, or none has any work, nothing is blocked. */
function held({ ms, cpuMs }: Turn): number {
  return Math.min(ms, cpuMs);
}

function paused({ startTime, ms }: Turn, pauses: readonly Pause[]): number {
  return pauses
    .filter((pause) => pause.startTime >= startTime && pause.startTime < startTime + ms)
    .reduce((sum, { duration }) => sum + duration, 0);
}
