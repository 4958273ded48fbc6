import type { CloseReason } from "../contract.ts";

/**
 * `ready`: streams may begin. `draining`: none may begin, those that run go on to their end. `ending`: the connection is
 * being closed. `closed`: it is gone.
 */
export type LifecycleState = "ready" | "draining" | "ending" | "closed";

/**
 * How a conn of many streams leaves, the same for every adapter: its state, how many streams run, why it leaves, and who
 * wants to know. States go forward only. A draining conn ends with its last stream.
 */
export class Lifecycle {
  /** Settles when the conn is closed. */
  readonly closed: Promise<void>;
  readonly #end: () => void;
  readonly #listeners: (() => void)[] = [];
  #state: LifecycleState = "ready";
  #reason: CloseReason = "died";
  #streams = 0;
  #settleClosed!: () => void;

  /** `end` closes the connection. It is called once, without streams, unless `beginEnd` or `markClosed` came first. */
  constructor(end: () => void) {
    this.#end = end;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
  }

  get state(): LifecycleState {
    return this.#state;
  }

  /** Whether no stream may begin any more. */
  get draining(): boolean {
    return this.#state !== "ready";
  }

  /** Why the conn leaves: the first reason that was given. Meaningless while it is `ready`. */
  get reason(): CloseReason {
    return this.#reason;
  }

  /** How many streams run. */
  get streams(): number {
    return this.#streams;
  }

  /** Calls `listener` at every `changed()`, and when the conn starts to leave. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  streamBegan(): void {
    this.#streams++;
  }

  streamEnded(): void {
    if (--this.#streams === 0 && this.#state === "draining") this.#finish();
  }

  /** No new stream; the conn ends with its last one, now if none runs. Idempotent. */
  drain(reason: CloseReason): void {
    if (this.#state !== "ready") return;
    this.#state = "draining";
    this.#reason = reason;
    this.changed();
    // A listener may have ended it.
    if (this.#streams === 0 && this.#state === "draining") this.#finish();
  }

  /**
   * The connection is lost, and the streams with it, unless they can go on over another. Those that cannot end within this
   * turn of the event loop, and then `closed` says it all: listeners are told only if some go on. Idempotent.
   */
  lose(reason: CloseReason): void {
    if (this.#state !== "ready") return;
    this.#state = "draining";
    this.#reason = reason;
    if (this.#streams === 0) this.#finish();
    else setImmediate(() => this.#state === "draining" && this.changed());
  }

  /** The caller closes the connection itself. False when its end has begun already. */
  beginEnd(reason: CloseReason): boolean {
    if (this.#state === "ending" || this.#state === "closed") return false;
    if (this.#state === "ready") this.#reason = reason;
    this.#state = "ending";
    return true;
  }

  /** The connection is gone, or the streams that run are about to fail. Idempotent. */
  markClosed(reason: CloseReason): void {
    if (this.#state === "closed") return;
    if (this.#state === "ready") this.#reason = reason;
    this.#state = "closed";
    this.#settleClosed();
  }

  #finish(): void {
    this.#state = "ending";
    this.#end();
  }
}
