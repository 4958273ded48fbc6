import { processAnchor } from "../runtime/clock.ts";
import type { Failure } from "../runtime/guard.ts";
import type { Schedule, Task } from "../runtime/timers.ts";

/** A conn whose `close()` takes longer counts as failed: one that hangs must not hold up the pool's close. */
const patienceMs = 5_000;

/** The close of a pool: ends when no conn is open and each has closed, or failed to. */
export class Closing implements Task {
  due = 0;
  place = -1;
  readonly done: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  readonly #schedule: Schedule;
  readonly #graceOver: () => void;
  readonly #errors: unknown[] = [];
  #pending = 0;
  #finished = false;
  #open = true;

  constructor(schedule: Schedule, graceOver: () => void) {
    this.#schedule = schedule;
    this.#graceOver = graceOver;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    processAnchor().hold();
  }

  /** Leases may run on for so long; a second, shorter grace shortens the first. */
  grant(graceMs: number): void {
    if (!this.#open || (this.place >= 0 && this.due <= this.#schedule.clock.now() + graceMs)) return;
    if (graceMs === 0) this.run();
    else this.#schedule.add(this, graceMs);
  }

  run(): void {
    this.#schedule.cancel(this);
    this.#graceOver();
  }

  watch(closing: Promise<Failure | undefined>): void {
    this.#pending++;
    const settle = (failure: Failure | undefined) => {
      if (timeout.place === -2) return;
      this.#schedule.cancel(timeout);
      timeout.place = -2;
      if (failure !== undefined) this.#errors.push(failure.error);
      this.#pending--;
      this.#finish();
    };
    const timeout: Task = {
      due: 0,
      place: -1,
      run: () => settle({ error: new Error(`close() of a conn was still pending after ${patienceMs} ms`) }),
    };
    this.#schedule.add(timeout, patienceMs);
    void closing.then(settle);
  }

  /** No conn is open any more. */
  allClosed(): void {
    this.#open = false;
    this.#schedule.cancel(this);
    this.#finish();
  }

  #finish(): void {
    if (this.#open || this.#pending > 0 || this.#finished) return;
    this.#finished = true;
    processAnchor().drop();
    const { length } = this.#errors;
    if (length === 0) this.#resolve();
    else this.#reject(new AggregateError(this.#errors, `${length} of the pool's conns failed to close`));
  }
}
