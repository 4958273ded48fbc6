import { connectivityState } from "@grpc/grpc-js";
import { atOwnPace } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { isPoolError } from "../errors.ts";
import type { Backoff } from "../options.ts";
import type { Pool } from "../pool/pool.ts";
import { longestDelayMs } from "../runtime/clock.ts";

/**
 * gRPC's pace for peers that are down, as a pool's `backoff`: a second, then 1.6 times as long each time, up to two minutes, a fifth
 * more or less. Between dials, calls fail with the last dial's error, but those that wait for ready.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
 */
export const grpcBackoff: Backoff = Object.freeze({ baseMs: 1_000, maxMs: 120_000, factor: 1.6, jitter: 0.2 });

/** What can change the state of a key, as far as a pool tells it. */
const transitions: readonly Parameters<Pool["on"]>[0][] = [
  "waiting",
  "timedOut",
  "refused",
  "aborted",
  "failed",
  "abandoned",
  "dialed",
  "dialFailed",
  "evicted",
  "expired",
  "retired",
  "drained",
  "cleared",
  "closed",
];

/** Told when a conn has begun to leave: a pool has no event for that. */
const leaveListeners = new Set<() => void>();

/** To be called by a conn that has begun to leave. Those who are told look in a later tick, when the pool knows it too. */
export function announceLeave(): void {
  for (const listener of leaveListeners) listener();
}

interface Watcher {
  readonly current: connectivityState;
  readonly callback: (error?: Error) => void;
  /** A time; `Infinity` for none. */
  readonly deadline: number;
  timer: NodeJS.Timeout | undefined;
}

/**
 * The connectivity state of one view of a key, for those who watch it. READY: the key has a conn that takes calls.
 * TRANSIENT_FAILURE: a dial failed, and none has come since. CONNECTING: one is being dialed or waited for. Else IDLE.
 *
 * While somebody watches, it listens to the pool; otherwise nothing refers to it.
 */
export class Connectivity<K, C extends PoolConn> {
  readonly #pool: Pool<K, C>;
  readonly #key: K;
  readonly #watchers = new Set<Watcher>();
  #subscriptions: (() => void)[] = [];
  #lookIsDue = false;
  /** Ends the attempt to connect that this view has begun. */
  #attempt: AbortController | undefined;
  #failed = false;
  #closed = false;

  constructor(pool: Pool<K, C>, key: K) {
    this.#pool = pool;
    this.#key = key;
  }

  get state(): connectivityState {
    if (this.#closed) return connectivityState.SHUTDOWN;
    const { open, draining, dialing, waiting } = this.#pool.stats(this.#key);
    if (open > draining) {
      this.#failed = false;
      return connectivityState.READY;
    }
    if (this.#failed) return connectivityState.TRANSIENT_FAILURE;
    return dialing > 0 || waiting > 0 || this.#attempt !== undefined
      ? connectivityState.CONNECTING
      : connectivityState.IDLE;
  }

  /** A call or an attempt to connect got no conn. */
  failed(error: unknown): void {
    if (!isDialFailure(error)) return;
    this.#failed = true;
    this.#lookSoon();
  }

  /** Sees to it that the key has a conn, unless this view is at it already. */
  connect(): void {
    if (this.#closed || this.#attempt !== undefined) return;
    const attempt = new AbortController();
    this.#attempt = attempt;
    void this.#warm(attempt.signal).finally(() => {
      if (this.#attempt === attempt) this.#attempt = undefined;
      this.#lookSoon();
    });
  }

  /** Calls back once, when the state is not `current` (any more), or with an error when the deadline has passed. */
  watch(current: connectivityState, deadline: Date | number, callback: (error?: Error) => void): void {
    const watcher: Watcher = { current, callback, deadline: Number(deadline), timer: undefined };
    if (watcher.deadline <= Date.now()) {
      process.nextTick(callback, late());
      return;
    }
    this.#watchers.add(watcher);
    this.#arm(watcher);
    if (this.#subscriptions.length === 0) this.#subscribe();
    this.#lookSoon();
  }

  close(): void {
    this.#closed = true;
    this.#attempt?.abort();
    this.#look();
  }

  /**
   * Dials once; while somebody watches, the pool goes on dialing at gRPC's pace, as a grpc-js channel would, or at that of its
   * `backoff`. Whoever only asks for the state has begun one dial.
   */
  async #warm(signal: AbortSignal): Promise<void> {
    try {
      await this.#pool.warm(this.#key, 1, atOwnPace({ signal }, grpcBackoff));
      return;
    } catch (error) {
      this.failed(error);
    }
    // The watchers of this moment are told of the failure first: those who watch on come back.
    await new Promise((resolve) => setImmediate(resolve));
    if (!this.#failed || signal.aborted || this.#watchers.size === 0) return;
    const patient = atOwnPace({ signal, waitForReady: true }, grpcBackoff);
    await this.#pool.warm(this.#key, 1, patient).catch((error) => this.failed(error));
  }

  #arm(watcher: Watcher): void {
    if (watcher.deadline === Number.POSITIVE_INFINITY) return; // no timer, which would hold the process
    const ms = Math.min(Math.max(watcher.deadline - Date.now(), 0), longestDelayMs);
    watcher.timer = setTimeout(() => {
      if (watcher.deadline > Date.now()) {
        this.#arm(watcher);
        return;
      }
      this.#remove(watcher);
      watcher.callback(late());
    }, ms);
  }

  #subscribe(): void {
    this.#subscriptions = transitions.map((name) =>
      this.#pool.on(name, ({ key }) => {
        if (mayBeSame(key, this.#key)) this.#lookSoon();
      }),
    );
    leaveListeners.add(this.#lookSoon);
    this.#subscriptions.push(() => leaveListeners.delete(this.#lookSoon));
  }

  #remove(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    clearTimeout(watcher.timer);
    // Who is told of a change usually watches on, in the same turn.
    if (this.#watchers.size === 0) setImmediate(() => this.#rest());
  }

  #rest(): void {
    if (this.#watchers.size > 0) return;
    for (const unsubscribe of this.#subscriptions) unsubscribe();
    this.#subscriptions = [];
    if (this.#failed) this.#attempt?.abort(); // nobody waits for another dial
  }

  /** Not at once: a pool may be in the middle of something, and who watches expects no call before `watch` returns. */
  readonly #lookSoon = (): void => {
    if (this.#lookIsDue || this.#watchers.size === 0) return;
    this.#lookIsDue = true;
    process.nextTick(() => {
      this.#lookIsDue = false;
      this.#look();
    });
  };

  #look(): void {
    if (this.#watchers.size === 0) return;
    const { state } = this;
    // Those of now: a callback may add watchers, and remove others.
    const due = Array.from(this.#watchers).filter(({ current }) => current !== state);
    for (const watcher of due) {
      if (!this.#watchers.has(watcher)) continue;
      this.#remove(watcher);
      watcher.callback();
    }
  }
}

/** In the words of grpc-js. */
function late(): Error {
  return new Error("Deadline passed without connectivity state change");
}

/** Whether a dial has failed, for whichever copy of this package. */
function isDialFailure(error: unknown): boolean {
  return isPoolError(error) && (error.code === "ERR_POOL_DIAL" || error.code === "ERR_POOL_DIAL_TIMEOUT");
}

/** Events tell the first key seen; keys that are objects may be the same for the pool's `hashKey`. */
function mayBeSame(told: unknown, key: unknown): boolean {
  return told === undefined || Object.is(told, key) || (typeof told === "object" && typeof key === "object");
}
