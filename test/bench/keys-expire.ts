import { setTimeout as pass, setImmediate as turn } from "node:timers/promises";
import type { PoolConn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { BenchClock } from "./clock.ts";
import { collect } from "./memory.ts";
import { Pauses } from "./pauses.ts";
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
  readonly start: number;
  readonly ms: number;
  readonly cpuMs: number;
}

const expirationMs = 600_000;
/** If it takes longer, something does not expire that should. */
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
  using pauses = new Pauses();
  const begun = performance.now();
  const blocks: Turn[] = [];
  clock.forward(expirationMs);
  while (clock.timers > 0 && performance.now() < begun + patienceMs) {
    const turn = await timedTurn();
    if (held(turn) > 1) blocks.push(turn);
  }
  const ms = performance.now() - begun;
  await pauses.reported();
  const { expired } = pool.stats().closed;
  if (expired !== count) throw new Error(`${expired} of ${count} conns have expired`);
  yield { name: `${idle} conns expire together, in`, value: ms, unit: "ms" };
  const own = blocks.map((turn) => held(turn) - pauses.between(turn.start, turn.start + turn.ms));
  const longest = Math.max(0, ...own);
  yield {
    name: "longest block meanwhile",
    value: longest,
    unit: "ms",
    target: atMost(10, longest, "ms"),
    note: `pauses for GC apart; ${own.filter((ms) => ms > 10).length} over 10 ms`,
  };
  yield { name: "longest block, GC included", value: Math.max(0, ...blocks.map(held)), unit: "ms" };
  yield { name: "longest pause for GC", value: pauses.longest, unit: "ms" };
}

async function timedTurn(): Promise<Turn> {
  const start = performance.now();
  const before = process.cpuUsage();
  await turn();
  const { user, system } = process.cpuUsage(before);
  return { start, ms: performance.now() - start, cpuMs: (user + system) / 1000 };
}

/** While another process has the processor, or none has any work, nothing is blocked. */
function held({ ms, cpuMs }: Turn): number {
  return Math.min(ms, cpuMs);
}
