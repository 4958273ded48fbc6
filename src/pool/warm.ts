import type { PoolConn } from "../contract.ts";
import { WaitTimeoutError } from "../errors.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { processAnchor } from "../runtime/clock.ts";
import type { Timer } from "../runtime/timers.ts";
import type { Core } from "./core.ts";
import type { KeyPool } from "./key-pool.ts";
import type { Request } from "./pending.ts";

/** A caller of `warm`, who waits for conns to be ready. While there is one, the process stays. */
export class WarmRequest<K, C extends PoolConn> implements Timer, AbortWatcher {
  rank = 0;
  index = -1;
  readonly count: number;
  readonly request: Request<K, C>;
  readonly promise: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  readonly #key: KeyPool<K, C>;
  readonly #core: Core<K, C>;
  #isWaiting = true;

  constructor(key: KeyPool<K, C>, count: number, request: Request<K, C>, core: Core<K, C>) {
    this.#key = key;
    this.count = count;
    this.request = request;
    this.#core = core;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = request;
    if (signal !== undefined) watchAbort(signal, this);
    if (timeoutMs < Number.POSITIVE_INFINITY) core.timers.arm(this, timeoutMs);
    processAnchor().hold();
  }

  run(): void {
    this.#core.enter(() => {
      const { name, open, pending } = this.#key;
      const cause = pending.backoff?.error;
      const message = `${name} was not warm in time: ${this.count} conns wanted, ${open} open, ${pending.dials.size} dialing`;
      this.reject(new WaitTimeoutError(message, cause === undefined ? {} : { cause }));
      this.#core.freed(this.#key);
    });
  }

  /** Others may have the same signal: nobody is served before all of them have left. */
  onAbort(reason: unknown): void {
    this.#core.enter(() => this.reject(reason));
  }

  afterAbort(): void {
    this.#core.enter(() => this.#core.freed(this.#key));
  }

  resolve(): void {
    if (this.#stop()) this.#resolve();
  }

  reject(error: unknown): void {
    if (this.#stop()) this.#reject(error);
  }

  #stop(): boolean {
    if (!this.#isWaiting) return false;
    this.#isWaiting = false;
    processAnchor().drop();
    this.#core.timers.disarm(this);
    if (this.request.signal !== undefined) unwatchAbort(this.request.signal, this);
    this.#core.minIdle.warmed(this.#key, this);
    return true;
  }
}
