import type { PoolConn } from "../contract.ts";
import type { DialError } from "../errors.ts";
import { isArmed, type Timer, type Timers, timer } from "../runtime/timers.ts";
import type { BackoffRule } from "./config.ts";
import type { Core } from "./core.ts";
import type { KeyPool } from "./key-pool.ts";
import type { PendingDial } from "./pending.ts";

/** How the pool paces what it dials again by itself, where `backoff` does not say. */
const usualPace: BackoffRule = { baseMs: 50, maxMs: 1_000, maxAttempts: Number.POSITIVE_INFINITY };

/** What is remembered of a key whose last dial failed. */
export interface KeyBackoff {
  /** Failed dials in a row; those that failed together are one. */
  readonly failures: number;
  readonly error: DialError;
  /** Waiters with a higher number came after the last failure. */
  readonly failedAtSeq: number;
  /** While it is armed, the pool does not dial again by itself. */
  readonly pause: Timer;
  /** While it is armed, failed dials of before the last pause still count. */
  readonly memory: Timer;
}

/**
 * How long to pause after so many failed dials in a row: exponential, with full jitter, so that those who failed
 * together do not come back together. https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
function pauseMs({ baseMs, maxMs }: BackoffRule, failures: number): number {
  return Math.random() * Math.min(maxMs, baseMs * 2 ** (failures - 1));
}

/** Times in which a key is not dialed, after a dial of it has failed. */
export class Backoffs<K, C extends PoolConn> {
  readonly #timers: Timers;
  readonly #core: Core<K, C>;

  constructor(timers: Timers, core: Core<K, C>) {
    this.#timers = timers;
    this.#core = core;
  }

  /** A dial of `key` has failed. Returns whether nobody is to wait any longer. */
  failed(key: KeyPool<K, C>, dial: PendingDial<K, C>, error: DialError): boolean {
    const pending = key.ownPending();
    const before = pending.backoff;
    const rule = key.rules.backoff ?? usualPace;
    const isNewFailure = before === undefined || dial.failuresBefore >= before.failures;
    const failures = (before?.failures ?? 0) + (isNewFailure ? 1 : 0);
    const pause = before?.pause ?? timer(() => this.#pauseOver(key));
    const memory = before?.memory ?? timer(() => this.#forget(key));
    pending.backoff = { failures, error, failedAtSeq: this.#core.queue.lastSeq, pause, memory };
    if (isNewFailure || !isArmed(pause)) this.#timers.arm(pause, pauseMs(rule, failures));
    this.#timers.disarm(memory);
    return failures >= rule.maxAttempts;
  }

  /** Nothing is held back any more. The caller serves the key. */
  end({ pending }: KeyPool<K, C>): void {
    const { backoff } = pending;
    if (backoff === undefined) return;
    this.#timers.disarm(backoff.pause);
    this.#timers.disarm(backoff.memory);
    pending.backoff = undefined;
  }

  /** Whether the pool pauses before it dials the key again by itself. */
  isPaused({ pending: { backoff } }: KeyPool<K, C>): boolean {
    return backoff !== undefined && isArmed(backoff.pause);
  }

  /** Whether new callers are held back too: they get the last error at once, unless they wait for readiness. */
  holdsNewcomers(key: KeyPool<K, C>): boolean {
    return key.rules.backoff !== undefined && this.isPaused(key);
  }

  /**
   * Callers that fail fast leave nobody behind who waits for the pause to end. The key stays for a while, or the first
   * of them to come back would begin with the shortest pause again, and dial a dead peer for ever at that pace.
   */
  #pauseOver(key: KeyPool<K, C>): void {
    const { backoff } = key.pending;
    if (backoff !== undefined) this.#timers.arm(backoff.memory, (key.rules.backoff ?? usualPace).maxMs);
    this.#core.enterAndServe(key);
  }

  #forget(key: KeyPool<K, C>): void {
    const { backoff, dials } = key.pending;
    if (backoff === undefined) return;
    if (dials.size > 0) {
      this.#timers.arm(backoff.memory, (key.rules.backoff ?? usualPace).maxMs); // it may fail yet
      return;
    }
    key.pending.backoff = undefined;
    this.#core.enterAndServe(key);
  }
}
