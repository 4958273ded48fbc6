import type { Contestant } from "./contestants.ts";
import type { Fleet } from "./fleet.ts";

/** What was true at a moment of a run. */
export interface Sample {
  /** Since the run began, its warm-up included. */
  readonly atMs: number;
  /** Since the sample before. */
  readonly callsPerSecond: number;
  /** Connections that the servers held, all together. */
  readonly open: number;
}

/** What one contestant did. */
export interface Result {
  readonly name: string;
  readonly callsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Connections that the servers accepted, the warm-up included. */
  readonly dials: number;
  /** Connections that the servers held at once, at most. */
  readonly peak: number;
  readonly samples: readonly Sample[];
}

/** Of a run, if the servers answer in time. */
const sampleCount = 60;

export const concurrency = 300;
export const requestBytes = 100;

/**
 * `concurrency` callers, each with one call after the other, to the servers in turn: for `measuredMs`, after a
 * warm-up of half as long.
 */
export async function run(
  contestant: Contestant,
  fleet: Fleet,
  measuredMs: number,
  onProgress: (calls: number, share: number) => void,
): Promise<Result> {
  await fleet.reset();
  const request = Buffer.alloc(requestBytes, "x");
  const begin = performance.now();
  const from = begin + measuredMs / 2;
  const until = from + measuredMs;
  const tookMs: number[] = [];
  let calls = 0;
  const timer = setInterval(() => onProgress(calls, (performance.now() - begin) / (until - begin)), 100);
  const samples: Sample[] = [];
  async function watch(): Promise<void> {
    let [callsBefore, before] = [0, 0];
    while (performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, (until - begin) / sampleCount));
      const { open } = await fleet.count();
      const atMs = performance.now() - begin;
      samples.push({ atMs, callsPerSecond: ((calls - callsBefore) / (atMs - before)) * 1_000, open });
      [callsBefore, before] = [calls, atMs];
    }
  }
  async function caller(number: number): Promise<void> {
    for (let turn = number; performance.now() < until; turn++) {
      const peer = fleet.peers[turn % fleet.peers.length];
      if (peer === undefined) throw new Error("there are no servers");
      const started = performance.now();
      await contestant.call(peer, request);
      const ended = performance.now();
      calls++;
      if (started >= from && ended <= until) tookMs.push(ended - started);
    }
  }
  try {
    await Promise.all([watch(), ...Array.from({ length: concurrency }, (_, number) => caller(number))]);
    const { accepted, peak } = await fleet.count();
    tookMs.sort((a, b) => a - b);
    return {
      name: contestant.name,
      callsPerSecond: tookMs.length / (measuredMs / 1_000),
      p50Ms: percentile(tookMs, 0.5),
      p99Ms: percentile(tookMs, 0.99),
      dials: accepted,
      peak,
      samples,
    };
  } finally {
    clearInterval(timer);
    await contestant.close();
    await fleet.quiet();
  }
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
}
