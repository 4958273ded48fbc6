import type { Clock } from "../../../src/runtime/clock.ts";
import { Random } from "../../../src/testing/random.ts";

interface Timer {
  readonly callback: () => void;
  readonly due: number;
  /** Armed by the pool, not by the simulated network. */
  readonly ofPool: boolean;
}

const realImmediate = globalThis.setImmediate;

/** Ends when every microtask has run, those included that others make. */
const microtasks = (): Promise<void> => new Promise((resolve) => realImmediate(resolve));

/** Rounds of `setImmediate` after which a machine counts as busy for ever: somebody tries again at every turn. */
const mostRounds = 12;

/** Timers that may fire one after the other at one time. */
const mostTogether = 1000;

/**
 * What a program runs on, simulated: the clock, timers, turns of the event loop and chance. Time passes only when it
 * is told to. While the machine is installed, `setImmediate` and `Math.random` of this process are its own.
 */
export class Machine implements Clock {
  /** Everything random; replaced before each command, so that a run keeps its course when others are left out. */
  random: Random = new Random(0);
  #now = 1000;
  readonly #timers = new Set<Timer>();
  #immediates: (() => void)[] = [];
  /** Milliseconds that all machines have simulated. */
  static simulatedMs = 0;

  now(): number {
    return this.#now;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    return this.#arm(callback, ms, true);
  }

  clearTimeout(timer: unknown): void {
    for (const armed of this.#timers) if (armed === timer) this.#timers.delete(armed);
  }

  /** Timers that the pool has armed. */
  get poolTimers(): number {
    let armed = 0;
    for (const { ofPool } of this.#timers) if (ofPool) armed++;
    return armed;
  }

  /** Something that the network does by itself, later. */
  after(ms: number, callback: () => void): void {
    if (ms < Number.POSITIVE_INFINITY) this.#arm(callback, ms, false);
  }

  #arm(callback: () => void, ms: number, ofPool: boolean): Timer {
    const timer = { callback, due: this.#now + ms, ofPool };
    this.#timers.add(timer);
    return timer;
  }

  /** Returns what takes the machine away again. */
  install(): () => void {
    const { random } = Math;
    const real = globalThis.setImmediate;
    const immediate = (callback: (...args: unknown[]) => void, ...args: unknown[]): void => {
      this.#immediates.push(() => callback(...args));
    };
    Math.random = () => this.random.next();
    Object.assign(globalThis, { setImmediate: immediate });
    return () => {
      Math.random = random;
      globalThis.setImmediate = real;
    };
  }

  /** Runs so many rounds of microtasks, and leaves what follows from them for later. */
  async ticks(rounds: number): Promise<void> {
    for (let round = 0; round < rounds; round++) await Promise.resolve();
  }

  /** Runs all microtasks, and nothing else. */
  async micro(): Promise<void> {
    await microtasks();
  }

  /** Runs everything that needs no time to pass. False: there is no end to it. */
  async settle(): Promise<boolean> {
    for (let round = 0; round < mostRounds; round++) {
      await microtasks();
      if (this.#immediates.length === 0) return true;
      const due = this.#immediates;
      this.#immediates = [];
      for (const callback of due) callback();
    }
    await microtasks();
    return false;
  }

  /**
   * Lets time pass, timer by timer; those that are due together fire in a random order. No more than `most` fire: a
   * pool that ticks every millisecond gets less time.
   */
  async advance(ms: number, most: number = Number.POSITIVE_INFINITY): Promise<void> {
    const begin = this.#now;
    let end = begin + ms;
    await this.settle();
    let together = 0;
    for (let fired = 0; ; fired++) {
      if (fired >= most) end = this.#now;
      const next = this.#nextTimer();
      if (next === undefined || next.due > end) break;
      this.#timers.delete(next);
      together = next.due > this.#now ? 0 : together + 1;
      if (together > mostTogether) throw new Error("timers fire without end while no time passes");
      this.#now = Math.max(this.#now, next.due);
      next.callback();
      await this.settle();
    }
    this.#now = end;
    Machine.simulatedMs += end - begin;
  }

  #nextTimer(): Timer | undefined {
    let first: Timer | undefined;
    let together = 1;
    for (const timer of this.#timers) {
      if (first === undefined || timer.due < first.due) {
        first = timer;
        together = 1;
      } else if (timer.due === first.due && this.random.under(++together) === 0) first = timer;
    }
    return first;
  }
}
