import type { Contender, Pace } from "./row.ts";

/** What a race has measured. */
export class Race {
  /** Nanoseconds for one operation: a number for each round. */
  readonly #samples: ReadonlyMap<string, readonly number[]>;

  constructor(samples: ReadonlyMap<string, readonly number[]>) {
    this.#samples = samples;
  }

  /** The median of `name`, in nanoseconds. */
  ns(name: string): number {
    return median(this.samples(name));
  }

  /** How many times the time of `base` it takes: the median of the rounds, each compared with itself. */
  ratio(name: string, base: string): number {
    const bases = this.samples(base);
    return median(this.samples(name).map((ns, round) => ns / (bases[round] ?? Number.NaN)));
  }

  /** What it takes beyond `base`, in nanoseconds: the median of the rounds. */
  beyond(name: string, base: string): number {
    const bases = this.samples(base);
    return median(this.samples(name).map((ns, round) => ns - (bases[round] ?? Number.NaN)));
  }

  samples(name: string): readonly number[] {
    const samples = this.#samples.get(name);
    if (samples === undefined) throw new Error(`nobody called ${name} took part`);
    return samples;
  }
}

/** Makes all of a section's contenders. */
export function assemble(makers: Readonly<Record<string, () => Contender | Promise<Contender>>>): Promise<Contender[]> {
  return Promise.all(Object.values(makers).map(async (make) => make()));
}

/**
 * Lets each contender run for a slice of time in each round, in an order that changes from round to round: what
 * else goes on in the machine hits all of them alike.
 */
export async function race(contenders: readonly Contender[], pace: Pace): Promise<Race> {
  const counts = new Map<Contender, number>();
  for (const contender of contenders) counts.set(contender, await calibrate(contender, pace.sliceMs));
  const samples = new Map<string, number[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < pace.rounds; round++) {
    for (const contender of shuffled(contenders)) {
      const count = counts.get(contender) ?? 1;
      const ms = await timed(contender, count);
      samples.get(contender.name)?.push((ms * 1e6) / count / (contender.together ?? 1));
    }
  }
  return new Race(samples);
}

/** How often it must run for a slice, found once it is warm. */
async function calibrate(contender: Contender, sliceMs: number): Promise<number> {
  let count = 1;
  for (let warm = 0; ; ) {
    const ms = await timed(contender, count);
    if (ms < sliceMs / 4) count *= 2;
    else if (++warm === 30) return Math.max(Math.round((count * sliceMs) / ms), 1);
  }
}

/** Milliseconds of processor time, V8's helpers included: while another process has the processor, no time passes. */
async function timed(contender: Contender, count: number): Promise<number> {
  const before = process.cpuUsage();
  const running = contender.run(count);
  if (running !== undefined) await running;
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[half - 1] ?? upper)) / 2;
}

export function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
