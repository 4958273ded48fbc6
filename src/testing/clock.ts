import type { Clock } from "../runtime/clock.ts";

interface Timer {
  readonly callback: () => void;
  readonly due: number;
}

/**
 * Time that passes only when it is told to. Give it to a pool, `new Pool({ clock, … })`, and no test has to sleep:
 *
 * ```ts
 * const clock = new FakeClock();
 * const pool = new Pool({ clock, dial, expirationMs: 60_000 });
 * // … use a conn …
 * await clock.advance(75_000); // a minute, and the quarter by which an expiration may be late
 * ```
 *
 * The timeouts of `AbortSignal.timeout` and of transports are the machine's and do not follow it.
 */
export class FakeClock implements Clock {
  #now = 1000;
  readonly #timers = new Set<Timer>();
  /** The most timers that were armed at any time. */
  mostTimers = 0;
  /** How often the time was read. */
  readings = 0;

  /** Milliseconds; starts at 1000. */
  now(): number {
    this.readings++;
    return this.#now;
  }

  /** Timers that are armed now. */
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
    while (await this.step(end - this.#now));
    this.#now = end;
  }

  /**
   * Lets time pass up to the next timer, fires that one alone, and lets what it sets going settle. False: none is due within
   * `withinMs`, and no time has passed. Default: however late it is due.
   */
  async step(withinMs: number = Number.POSITIVE_INFINITY): Promise<boolean> {
    const end = this.#now + withinMs;
    let next: Timer | undefined;
    for (const timer of this.#timers)
      if (timer.due <= end && (next === undefined || timer.due < next.due)) next = timer;
    if (next === undefined) return false;
    this.#timers.delete(next);
    this.#now = Math.max(this.#now, next.due);
    next.callback();
    await settle();
    return true;
  }
}

// Kept from the start: under a test runner's fake timers it would wait for somebody to run them.
const { setImmediate: machineImmediate } = globalThis;

/** Lets promises, callbacks and I/O that is ready run, for three turns of the event loop: more than a thousand waiters at once may need more. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => machineImmediate(resolve));
}
