import { median, shuffled } from "./race.ts";

/** One way to make calls. */
export interface Fighter {
  /** Makes one; `done` is told when it has ended. */
  call(done: (error: unknown) => void): void;
  close(): Promise<void> | void;
}

/** What is measured. */
export type Measure = keyof Slice["values"];

/** Calls that one contender has made. */
class Slice {
  #calls = 0;
  #ms = 0;
  #cpu = 0;

  /** Lets so many callers make one call after another until the time is up, and waits for their last calls. */
  async extend(fighter: Fighter, callers: number, ms: number): Promise<void> {
    const cpuBefore = process.cpuUsage();
    const begin = performance.now();
    await new Promise<void>((resolve, reject) => {
      let running = callers;
      const next = (error: unknown): void => {
        if (error !== null) {
          reject(error);
          return;
        }
        this.#calls++;
        if (performance.now() - begin < ms) fighter.call(next);
        else if (--running === 0) resolve();
      };
      for (let caller = 0; caller < callers; caller++) fighter.call(next);
    });
    this.#ms += performance.now() - begin;
    const { user, system } = process.cpuUsage(cpuBefore);
    this.#cpu += user + system;
  }

  get values() {
    return {
      /** By the clock on the wall. */
      "calls/s": (this.#calls * 1000) / this.#ms,
      /** Of this process, for a call. */
      µs: this.#cpu / this.#calls,
      /** How much of one this process had: under 1 where it had to wait, for the server or for a busy machine. */
      processors: this.#cpu / 1000 / this.#ms,
    };
  }
}

/** How one contender compares with another, slice by slice. */
export interface Ratio {
  readonly median: number;
  readonly mean: number;
  /** Where the 95 % interval of the median begins, whatever the distribution: a stall of the machine is one slice. */
  readonly lower: number;
  readonly pairs: number;
}

/** How long contenders are measured. */
export interface Plan {
  readonly callers: number;
  readonly rounds: number;
  /** Of each contender in each round. */
  readonly sliceMs: number;
  /** A slice is dealt out in so many pieces, which take turns with those of the others. */
  readonly pieces: number;
  readonly warmMs: number;
}

/** What contenders did who took turns. */
export class Duel<N extends string> {
  readonly #slices: ReadonlyMap<N, readonly Slice[]>;

  private constructor(slices: ReadonlyMap<N, readonly Slice[]>) {
    this.#slices = slices;
  }

  /** Measures the contenders against each other, and closes them. */
  static async fight<N extends string>(fighters: Readonly<Record<N, Fighter>>, plan: Plan): Promise<Duel<N>> {
    const { callers, rounds, sliceMs, pieces, warmMs } = plan;
    const names = Object.keys(fighters) as N[]; // no others are in a literal
    for (const name of names) await new Slice().extend(fighters[name], callers, warmMs);
    const slices = new Map<N, Slice[]>(names.map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const all of slices.values()) all.push(new Slice());
      for (let piece = 0; piece < pieces; piece++) {
        for (const name of shuffled(names)) {
          await slices
            .get(name)
            ?.at(-1)
            ?.extend(fighters[name], callers, sliceMs / pieces);
        }
      }
    }
    for (const name of names) await fighters[name].close();
    return new Duel(slices);
  }

  /** The median of `name`. */
  of(name: N, measure: Measure): number {
    return median(this.#values(name, measure));
  }

  ratio(name: N, base: N, measure: Measure): Ratio {
    const bases = this.#values(base, measure);
    const ratios = this.#values(name, measure)
      .map((value, round) => value / (bases[round] ?? Number.NaN))
      .toSorted((a, b) => a - b);
    const pairs = ratios.length;
    const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / pairs);
    // The sign test's interval: https://en.wikipedia.org/wiki/Sign_test
    const lower = ratios[Math.max(Math.floor(pairs / 2 - 0.98 * Math.sqrt(pairs)), 0)] ?? Number.NaN;
    return { median: median(ratios), mean, lower, pairs };
  }

  #values(name: N, measure: Measure): number[] {
    return this.#slices.get(name)?.map((slice) => slice.values[measure]) ?? [];
  }
}
