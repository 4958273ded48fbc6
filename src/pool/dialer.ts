import type { AsyncResource } from "node:async_hooks";
import { checkConn, show } from "../argument.ts";
import type { Dial, PoolConn } from "../contract.ts";
import { DialError, DialTimeoutError, PoolTypeError } from "../errors.ts";
import type { Backoff, Prime } from "../options.ts";
import { inMicrotask } from "../runtime/clock.ts";
import { attempt, inNoContext, outcome } from "../runtime/guard.ts";
import { isArmed, type Timer, type Timers, timer } from "../runtime/timers.ts";
import { type BackoffRule, backoffRule, type KeyRules } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { Events } from "./events.ts";
import type { KeyPool } from "./key-pool.ts";
import { PendingDial } from "./pending.ts";

/** Starts dials, counts those in flight, and sees to it that nothing is left of those that nobody wants. */
export class Dialer<K, C extends PoolConn> {
  /** Dials in flight, of all keys. */
  inFlight = 0;
  readonly #timers: Timers;
  readonly #events: Events<K, C>;
  readonly #core: Core<K, C>;

  readonly #prime: Prime<C> | undefined;

  constructor(prime: Prime<C> | undefined, timers: Timers, events: Events<K, C>, core: Core<K, C>) {
    this.#prime = prime;
    this.#timers = timers;
    this.#events = events;
    this.#core = core;
  }

  /** The caller has seen that the limits allow it. False: to ask the dial function for its slots has taken the place. */
  start(
    key: KeyPool<K, C>,
    dial: Dial<K, C>,
    isBackground: boolean,
    replaces?: Entry<K, C>,
    caller?: AsyncResource,
  ): boolean {
    const { capacity } = this.#core;
    const announced = attempt(() => dial.maxStreams);
    const mayStill = key.isAlive && (isBackground ? capacity.mayPrepare(key) : capacity.claimDial(key));
    if (!mayStill) return false;
    const slots = key.expectedSlots(announced);
    const pending = key.ownPending();
    const started = new PendingDial<K, C>(key, dial, slots, isBackground, replaces, caller, this.#timers.now(), this);
    pending.addDial(started);
    key.counters.dials++;
    this.inFlight++;
    const { dialTimeoutMs } = key.rules;
    if (dialTimeoutMs < Number.POSITIVE_INFINITY) this.#timers.arm(started, dialTimeoutMs);
    const arrival = inNoContext(() => this.#dial(started));
    arrival.then(
      (conn) => this.#core.enter(() => this.#arrived(started, conn)),
      (error: unknown) => this.#core.enter(() => this.#failed(started, error)),
    );
    return true;
  }

  /** A dial function that throws at once fails like one that rejects. */
  async #dial({ key, dial, isBackground, signal }: PendingDial<K, C>): Promise<C> {
    const conn = await dial(key.id, { signal });
    if (!isBackground || this.#prime === undefined || signal.aborted) return conn;
    try {
      const abandoned = new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
      await Promise.race([this.#prime(conn, { signal }), abandoned]);
      return conn;
    } catch (error) {
      closeBrought(conn);
      throw error;
    }
  }

  /** Nobody wants it any more: it stops counting at once, and what it still brings is closed. */
  abandon(dial: PendingDial<K, C>, reason: string): void {
    if (!dial.isInFlight) return;
    const { key, caller } = dial;
    this.#uncount(dial);
    key.counters.abandoned++;
    key.remember("abandoned", reason, this.#timers.now());
    this.#events.abandoned.emit(() => ({ key: key.id, why: reason, ms: this.#tookMs(dial), caller }));
    dial.abort(new DialError(`the dial of ${key.name} was abandoned: ${reason}`));
  }

  abandonAll(key: KeyPool<K, C>, reason: string): void {
    for (let dial = key.pending.dials.tail; dial !== undefined; dial = key.pending.dials.tail)
      this.abandon(dial, reason);
  }

  timedOut(dial: PendingDial<K, C>): void {
    this.#core.enter(() => {
      if (!dial.isInFlight) return;
      const { name, rules } = dial.key;
      const error = new DialTimeoutError(
        `the dial of ${name} was not done within dialTimeoutMs (${rules.dialTimeoutMs} ms)`,
      );
      this.#fail(dial, error, `not done within dialTimeoutMs (${rules.dialTimeoutMs} ms)`, true);
    });
  }

  #arrived(dial: PendingDial<K, C>, conn: C): void {
    let entry: Entry<K, C>;
    let isHeld = false;
    try {
      isHeld = this.#core.entries.find(conn)?.isOpen ?? false;
      if (!dial.isInFlight) {
        if (!isHeld) closeBrought(conn); // one that the pool holds runs the streams of others
        return;
      }
      checkConn("what the dial function returned", conn);
      if (isHeld || this.#core.entries.find(conn) !== undefined) {
        isHeld = true;
        throw new PoolTypeError("the dial function returned a conn that this pool has already: return a new one");
      }
      entry = this.#core.entries.enlist(conn, dial.key);
    } catch (error) {
      if (!isHeld) closeBrought(conn);
      this.#failed(dial, error);
      return;
    }
    // One that has closed already says so within this microtask: it is a failed dial then, not a conn.
    inMicrotask(() => this.#core.enter(() => this.#admit(dial, entry)));
  }

  #admit(dial: PendingDial<K, C>, entry: Entry<K, C>): void {
    const { conn } = entry;
    const isDraining = entry.saysDraining; // to ask may change all that is looked at below
    if (!dial.isInFlight) {
      if (!entry.isTaken) return;
      this.#core.entries.drop(entry);
      closeBrought(conn);
    } else if (!entry.isTaken) {
      this.#failed(dial, new Error("the conn was closed as soon as it was dialed"));
    } else if (isDraining) {
      this.#core.entries.refuse(entry, dial.key, "goaway");
      this.#failed(dial, new Error("the conn was draining as soon as it was dialed"));
    } else {
      this.#uncount(dial);
      dial.key.counters.dialed++;
      this.#events.dialed.emit(() => ({ key: dial.key.id, conn, ms: this.#tookMs(dial), caller: dial.caller }));
      this.#core.dialed(dial, entry);
    }
  }

  #failed(dial: PendingDial<K, C>, cause: unknown): void {
    if (!dial.isInFlight) return;
    const { why, final } = reasonIn(cause);
    this.#fail(dial, new DialError(`the dial of ${dial.key.name} failed: ${why}`, { cause, final }), why);
  }

  #fail(dial: PendingDial<K, C>, error: DialError, why: string, isCut = false): void {
    const waiters = dial.key.pending.waitersOf(dial);
    this.#uncount(dial);
    if (isCut) dial.abort(error); // before another is dialed in its place
    dial.key.counters.dialErrors++;
    dial.key.remember("dialFailed", why, this.#timers.now());
    this.#events.dialFailed.emit(() => ({ key: dial.key.id, error, ms: this.#tookMs(dial), caller: dial.caller }));
    this.#core.dialFailed(dial, error, waiters);
  }

  #tookMs(dial: PendingDial<K, C>): number {
    return this.#timers.now() - dial.startedAt;
  }

  #uncount(dial: PendingDial<K, C>): void {
    dial.key.pending.removeDial(dial, this.#timers.now());
    this.inFlight--;
    this.#timers.disarm(dial);
  }
}

/** What an error says. It is the caller's: to read it may throw. */
function reasonIn(cause: unknown): { why: string; final: boolean } {
  try {
    const saysSo = typeof cause === "object" && cause !== null && "final" in cause && cause.final === true;
    const final = saysSo || cause instanceof PoolTypeError; // the dial function is wrong, say: it returned no conn
    return { why: cause instanceof Error ? reasonOf(cause) : show(cause), final };
  } catch {
    return { why: "its error cannot be read", final: false };
  }
}

/** Node's error of a name with several addresses has no message of its own, but one for each. */
function reasonOf(cause: Error): string {
  if (cause.message !== "" || !(cause instanceof AggregateError)) return String(cause.message);
  return cause.errors.map((error: unknown) => (error instanceof Error ? error.message : show(error))).join("; ");
}

/** Closes what a dial brought and nobody can use, conn or not, as well as it can be closed. */
function closeBrought(brought: { closed?: unknown; close?: unknown; destroy?: unknown }): void {
  if ((typeof brought !== "object" && typeof brought !== "function") || brought === null) return;
  void outcome(() => brought.closed); // heard, should it reject
  void outcome(() => {
    const { close, destroy } = brought;
    const end = typeof close === "function" ? close : destroy;
    return typeof end === "function" ? end.call(brought) : undefined;
  });
}

/** How the pool paces what it dials again by itself, where `backoff` does not say. */
const usualPace: BackoffRule = backoffRule({ baseMs: 50, maxMs: 1_000 });

/** What is remembered of a key whose last dial failed. */
export interface KeyBackoff {
  /** Failed dials in a row; those that failed together are one. */
  readonly failures: number;
  readonly error: DialError;
  /** How it is dialed again. */
  readonly pace: BackoffRule;
  /** Waiters with a higher number came after the last failure. */
  readonly failedAtSeq: number;
  /** While it is armed, the pool does not dial again by itself. */
  readonly pause: Timer;
  /** While it is armed, failed dials of before the last pause still count. */
  readonly memory: Timer;
}

/**
 * How long to pause after so many failed dials in a row: exponential, with full jitter, so that those who failed
 * together do not come back together, or with as much as `backoff` says.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
function pauseMs({ baseMs, maxMs, factor, jitter }: BackoffRule, failures: number): number {
  const ms = Math.min(maxMs, baseMs * factor ** (failures - 1));
  return jitter === "full" ? Math.random() * ms : ms * (1 + jitter * (2 * Math.random() - 1));
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
    const isNewFailure = before === undefined || dial.failuresBefore >= before.failures;
    const pace = isNewFailure ? this.#paceOf(key) : before.pace; // it looks at all who wait
    const failures = (before?.failures ?? 0) + (isNewFailure ? 1 : 0);
    const pause = before?.pause ?? timer(() => this.#pauseOver(key));
    const memory = before?.memory ?? timer(() => this.#forget(key));
    pending.backoff = { failures, error, pace, failedAtSeq: this.#core.queue.lastSeq, pause, memory };
    if (isNewFailure || !isArmed(pause)) this.#timers.arm(pause, pauseMs(pace, failures));
    this.#timers.disarm(memory);
    return failures >= pace.maxAttempts;
  }

  /**
   * How the key is dialed again. Where `backoff` does not say: at the pace that those bring who asked for it, unless somebody who
   * brings none waits on; then at the usual one.
   */
  #paceOf(key: KeyPool<K, C>): BackoffRule {
    if (key.rules.backoff !== undefined) return key.rules.backoff;
    let first: Backoff | undefined;
    const { minIdle } = this.#core;
    for (const { request } of [...key.pending.waiters, ...minIdle.warming(key)]) {
      if (request.pace === undefined && request.waitForReady) return usualPace;
      first ??= request.pace;
    }
    if (first === undefined || minIdle.keeps(key)) return usualPace;
    return attempt(() => backoffRule(first)) ?? usualPace; // an adapter of a later version may say what is not known here
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

  /** Milliseconds until the pause is over. 0: there is none. */
  pausedMs({ pending: { backoff } }: KeyPool<K, C>): number {
    if (backoff === undefined || !isArmed(backoff.pause)) return 0;
    return Math.max(backoff.pause.rank - this.#timers.now(), 0);
  }

  /** Whether a failure, if there is one, is remembered though nobody waits for the key: who brings a pace of his own comes back. */
  outlivesWaiters({ rules, pending }: KeyPool<K, C>): boolean {
    return rules.backoff !== undefined || pending.backoff?.pace !== usualPace;
  }

  /** Whether new callers are held back too: they get the last error at once, unless they wait for readiness. */
  holdsNewcomers(key: KeyPool<K, C>, rules: KeyRules = key.rules): boolean {
    return rules.backoff !== undefined && this.isPaused(key);
  }

  /**
   * Callers that fail fast leave nobody behind who waits for the pause to end. The key stays for a while, or the first
   * of them to come back would begin with the shortest pause again, and dial a dead peer for ever at that pace.
   */
  #pauseOver(key: KeyPool<K, C>): void {
    const { backoff } = key.pending;
    if (backoff !== undefined) this.#timers.arm(backoff.memory, backoff.pace.maxMs);
    this.#core.enterAndServe(key);
  }

  #forget(key: KeyPool<K, C>): void {
    const { backoff, dials } = key.pending;
    if (backoff === undefined) return;
    if (dials.size > 0) {
      this.#timers.arm(backoff.memory, backoff.pace.maxMs); // it may fail yet
      return;
    }
    key.pending.backoff = undefined;
    this.#core.enterAndServe(key);
  }
}
