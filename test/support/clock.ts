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

/** Lets so many turns of the event loop pass, with the I/O that is ready in each. */
export async function turns(count = 5): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Lets everything run that needs no time to pass. */
export function settle(): Promise<void> {
  return turns(3);
}

/** So many turns `until` looks in each of them; after that it leaves the processor to those whom it waits for. */
const eagerTurns = 2000;

/**
 * Resolves in the turn of the event loop in which `condition` holds; fails after `ms`, 5 s by default, with `what` was
 * waited for.
 */
export async function until(condition: () => boolean, what: string, ms = 5000): Promise<void> {
  const deadline = performance.now() + ms;
  for (let turn = 0; !condition(); turn++) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms: ${what}`);
    await new Promise((resolve) => (turn < eagerTurns ? setImmediate(resolve) : setTimeout(resolve, 2)));
  }
}
