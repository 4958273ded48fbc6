import type { Clock } from "../../src/runtime/clock.ts";

interface Timer {
  readonly callback: () => void;
  node: NodeJS.Timeout;
}

/** The machine's clock, which can be put forward, and which knows how many timers are armed. */
export class BenchClock implements Clock {
  #ahead = 0;
  readonly #timers = new Set<Timer>();
  /** The most timers that were armed at any time. */
  mostTimers = 0;
  fired = 0;

  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    return performance.now() + this.#ahead;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    const timer: Timer = { callback, node: setTimeout(() => this.#fire(timer), ms) };
    this.#timers.add(timer);
    this.mostTimers = Math.max(this.mostTimers, this.#timers.size);
    return timer;
  }

  clearTimeout(timer: unknown): void {
    for (const known of this.#timers) {
      if (known !== timer) continue;
      clearTimeout(known.node);
      this.#timers.delete(known);
    }
  }

  /** Puts the clock forward; timers that are due fire at once. */
  forward(ms: number): void {
    this.#ahead += ms;
    for (const timer of this.#timers) {
      clearTimeout(timer.node);
      timer.node = setTimeout(() => this.#fire(timer), 0);
    }
  }

  #fire(timer: Timer): void {
    this.#timers.delete(timer);
    this.fired++;
    timer.callback();
  }
}
