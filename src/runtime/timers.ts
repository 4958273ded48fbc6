import { type Clock, longestDelayMs } from "./clock.ts";
import { Heap, type Ranked } from "./heap.ts";

/** Something to run at a time; its `rank` is that time. */
export interface Timer extends Ranked {
  run(): void;
}

/** A timer that runs a function, and is not armed yet. */
export function timer(run: () => void): Timer {
  return { rank: 0, index: -1, run };
}

/** Whether it will run. */
export function isArmed({ index }: Timer): boolean {
  return index >= 0;
}

/** Node's timers know no shorter delay. */
const soonestMs = 1;

/** All timers of a pool behind one of the clock's, armed for the earliest and never holding the process. */
export class Timers {
  readonly clock: Clock;
  readonly #heap = new Heap<Timer>();
  #armed: unknown;
  #armedFor = Number.POSITIVE_INFINITY;
  #running = false;
  #firedAt = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  now(): number {
    return this.clock.now();
  }

  /** Runs `timer` in `ms`; one that is armed already moves. */
  arm(timer: Timer, ms: number): void {
    this.#heap.remove(timer);
    timer.rank = this.clock.now() + ms;
    // What a timer arms is for a later turn, however coarse the clock: I/O gets its turn in between.
    if (this.#running && timer.rank <= this.#firedAt) timer.rank = this.#firedAt + soonestMs;
    this.#heap.add(timer);
    this.#set();
  }

  /** Idempotent. */
  disarm(timer: Timer): void {
    if (timer.index < 0) return;
    this.#heap.remove(timer);
    if (this.#heap.size === 0) this.#clear();
  }

  #set(): void {
    const { first } = this.#heap;
    if (this.#running || first === undefined || first.rank >= this.#armedFor) return;
    this.#clear();
    this.#armedFor = first.rank;
    const delay = Math.min(Math.max(Math.ceil(first.rank - this.clock.now()), 0), longestDelayMs);
    const armed = this.clock.setTimeout(() => this.#fire(), delay);
    if (typeof armed === "object" && armed !== null && "unref" in armed && typeof armed.unref === "function") {
      armed.unref();
    }
    this.#armed = armed;
  }

  #clear(): void {
    if (this.#armedFor === Number.POSITIVE_INFINITY) return;
    this.#armedFor = Number.POSITIVE_INFINITY;
    this.clock.clearTimeout(this.#armed);
    this.#armed = undefined;
  }

  #fire(): void {
    this.#armedFor = Number.POSITIVE_INFINITY;
    this.#armed = undefined;
    this.#running = true;
    const now = this.clock.now();
    this.#firedAt = now;
    try {
      for (let due = this.#heap.first; due !== undefined && due.rank <= now; due = this.#heap.first) {
        this.#heap.remove(due);
        due.run();
      }
    } finally {
      this.#running = false;
      this.#set();
    }
  }
}
