import { type PerformanceEntry, PerformanceObserver } from "node:perf_hooks";
import { setImmediate as turn } from "node:timers/promises";

/** The pauses that garbage collections make, from now on. */
export class Pauses implements Disposable {
  readonly #entries: PerformanceEntry[] = [];
  readonly #observer = new PerformanceObserver((list) => void this.#entries.push(...list.getEntries()));

  constructor() {
    this.#observer.observe({ entryTypes: ["gc"] });
  }

  /** They are reported a turn of the event loop later. */
  async reported(): Promise<void> {
    await turn();
    await turn();
  }

  /** Milliseconds of pause, of those that began in this time. */
  between(start: number, end: number): number {
    let ms = 0;
    for (const { startTime, duration } of this.#entries) if (startTime >= start && startTime < end) ms += duration;
    return ms;
  }

  get longest(): number {
    return this.#entries.reduce((most, { duration }) => Math.max(most, duration), 0);
  }

  [Symbol.dispose](): void {
    this.#observer.disconnect();
  }
}
