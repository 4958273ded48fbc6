/** Numbers that follow from a seed alone, so that a run can be played again (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** At least 0, under 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number, at least 0, under `end`. */
  under(end: number): number {
    return Math.floor(this.next() * end);
  }

  /** True as often as `probability` says, from 0, never, to 1, always. */
  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability;
  }

  /** One of them. */
  pick<T>(from: readonly [T, ...T[]]): T {
    return from[this.under(from.length)] ?? from[0];
  }
}
