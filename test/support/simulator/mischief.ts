import type { Machine } from "./machine.ts";

/** What a caller's function or property throws where it misbehaves. */
export class Fault extends Error {
  override readonly name = "Fault";
}

/** Uses of the pool from inside one of its callbacks that may be nested so deep. */
const deepest = 2;

/** How the caller's functions and properties misbehave: they throw, lie, and use the pool that calls them. */
export class Mischief {
  /** Nothing misbehaves while this is not 0: the world looks, or the faults have stopped. */
  suspended = 0;
  readonly #machine: Machine;
  readonly #percent: number;
  readonly #thrown = new Set<unknown>();
  #depth = 0;
  /** Uses the pool in some way. */
  reenter: () => void = () => {};

  constructor(machine: Machine, percent: number) {
    this.#machine = machine;
    this.#percent = percent;
  }

  /** Now and then true. */
  get strikes(): boolean {
    return this.suspended === 0 && this.#machine.random.chance(this.#percent / 100);
  }

  /** A callback of the pool's runs: it may use the pool, and where it `mayThrow`, throw. */
  callback(mayThrow = true): void {
    if (!this.strikes) return;
    const { random } = this.#machine;
    if (random.chance(0.6)) this.use();
    if (mayThrow && random.chance(0.4)) throw this.fault();
  }

  use(): void {
    if (this.suspended > 0 || this.#depth >= deepest) return;
    this.#depth++;
    try {
      this.reenter();
    } finally {
      this.#depth--;
    }
  }

  fault(): unknown {
    const odd: unknown = Object.create(null);
    const fault = this.#machine.random.pick<unknown>([new Fault("mischief"), "mischief", undefined, odd]);
    this.#thrown.add(fault);
    return fault;
  }

  /** Whether an error is one of those. */
  threw(error: unknown): boolean {
    return this.#thrown.has(error);
  }
}
