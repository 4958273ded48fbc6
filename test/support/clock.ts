import type { Clock } from "../../src/runtime/clock.ts";

interface Timer {
  readonly callback: () => void;
  readonly due: number;
}

/** Time that passes only when told to. */
export class FakeClock implements Clock {
  #now = 1000;
  readonly #timers = new Set<Timer>();
  /** The most timers that were armed at any time. */
  mostTimers = 0;
  readings = 0;

  now(): number {
    this.readings++;
    return this.#now;
  }

  get timers(): number {
    return this.#timers.size;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    const timer = { callback, due: this.#now + ms };
    this.#timers.add(timer);
    this.mostTimers = Math.max(this.mostTimers, this.#timers.size);
    return timer;
  }

  clearTimeout(timer: unknown): void {
    for (const known of this.#timers) if (known === timer) this.#timers.delete(known);
  }

  /** Lets `ms` pass in which no timer fires, as when the event loop is held up. */
  stall(ms: number): void {
    this.#now += ms;
  }

  /** Lets `ms` pass, timer by timer; what each sets going settles before the next. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const next = [...this.#timers].filter((timer) => timer.due <= end).sort((a, b) => a.due - b.due)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.due);
      next.callback();
      await settle();
    }
    this.#now = end;
  }
}

/** Lets everything run that needs no time to pass. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
