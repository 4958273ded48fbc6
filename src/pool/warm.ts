import { show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { WaitTimeoutError } from "../errors.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { processAnchor } from "../runtime/clock.ts";
import type { Schedule, Task } from "../runtime/timers.ts";
import type { Peer } from "./key-pool.ts";
import type { Request } from "./waiter.ts";

/** A caller of `warm`, who waits for conns to be ready. While there is one, the process stays. */
export class Warmer<K, C extends PoolConn> implements Task, AbortWatcher {
  due = 0;
  place = -1;
  readonly count: number;
  readonly request: Request<K, C>;
  readonly promise: Promise<void>;
  resolve!: () => void;
  reject!: (error: unknown) => void;
  readonly #peer: Peer<K, C>;
  readonly #schedule: Schedule;
  readonly #giveUp: (error: unknown) => void;

  constructor(
    peer: Peer<K, C>,
    count: number,
    request: Request<K, C>,
    schedule: Schedule,
    giveUp: (error: unknown) => void,
  ) {
    this.#peer = peer;
    this.count = count;
    this.request = request;
    this.#schedule = schedule;
    this.#giveUp = giveUp;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = request;
    if (signal !== undefined) watchAbort(signal, this);
    if (timeoutMs < Number.POSITIVE_INFINITY) schedule.add(this, timeoutMs);
    processAnchor().hold();
  }

  run(): void {
    const { key, open, demand } = this.#peer;
    const { dials, lastError } = demand;
    const message = `${show(key)} was not warm in time: ${this.count} conns wanted, ${open} open, ${dials.size} dialing`;
    this.#giveUp(new WaitTimeoutError(message, lastError === undefined ? {} : { cause: lastError }));
  }

  onAbort(reason: unknown): void {
    this.#giveUp(reason);
  }

  /** Called once, when it waits no longer. */
  detach(): void {
    processAnchor().drop();
    this.#schedule.cancel(this);
    if (this.request.signal !== undefined) unwatchAbort(this.request.signal, this);
  }
}
