import type { AsyncResource } from "node:async_hooks";
import { checkConn, show } from "../argument.ts";
import type { Dial, PoolConn } from "../contract.ts";
import { DialError, DialTimeoutError, PoolTypeError } from "../errors.ts";
import type { Prime } from "../options.ts";
import { inMicrotask } from "../runtime/clock.ts";
import { attempt, inNoContext, outcome } from "../runtime/guard.ts";
import type { Timers } from "../runtime/timers.ts";
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
    const mayStill = key.isAlive && (isBackground ? capacity.mayPrepare(key) : capacity.mayDial(key));
    if (!mayStill) return false;
    const slots = key.expectedSlots(announced);
    const pending = key.ownPending();
    const started = new PendingDial<K, C>(key, dial, slots, isBackground, replaces, caller, this.#timers.now(), this);
    pending.addDial(started);
    key.counters.dials++;
    this.inFlight++;
    const { dialTimeoutMs } = key.rules;
    if (dialTimeoutMs < Number.POSITIVE_INFINITY) this.#timers.arm(started, dialTimeoutMs);
    const { generation } = this.#core.transfer;
    const arrival = inNoContext(() => this.#dial(started));
    arrival.then(
      (conn) => this.#core.enter(() => this.#arrived(started, conn, generation)),
      (error: unknown) => this.#core.enter(() => this.#failed(started, error)),
    );
    return true;
  }

  /** A dial function that throws at once fails like one that rejects. */
  async #dial({ key: { key }, dial, isBackground, signal }: PendingDial<K, C>): Promise<C> {
    const conn = await dial(key, { signal });
    if (!isBackground || this.#prime === undefined || signal.aborted) return conn;
    try {
      const abandoned = new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
      await Promise.race([this.#prime(conn, { signal }), abandoned]);
      return conn;
    } catch (error) {
      discard(conn);
      throw error;
    }
  }

  /** Nobody wants it any more: it stops counting at once, and what it still brings is closed. */
  abandon(dial: PendingDial<K, C>, reason: string): void {
    if (!dial.isInFlight) return;
    const { caller } = dial;
    const { key, name } = dial.key;
    this.#uncount(dial);
    dial.key.counters.abandoned++;
    this.#events.abandoned.emit(() => ({ key, why: reason, ms: this.#tookMs(dial), caller }));
    dial.abort(new DialError(`the dial of ${name} was abandoned: ${reason}`));
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
      this.#fail(dial, error, true);
    });
  }

  #arrived(dial: PendingDial<K, C>, conn: C, generation: number): void {
    let entry: Entry<K, C>;
    let isHeld = false;
    try {
      isHeld = this.#core.entries.find(conn)?.isOpen ?? false;
      if (!dial.isInFlight) {
        if (!isHeld) discard(conn); // one that the pool holds runs the streams of others
        return;
      }
      checkConn("what the dial function returned", conn);
      if (isHeld || this.#core.entries.find(conn) !== undefined) {
        isHeld = true;
        throw new PoolTypeError("the dial function returned a conn that this pool has already: return a new one");
      }
      entry = this.#core.entries.enlist(conn, dial.key, generation);
    } catch (error) {
      if (!isHeld) discard(conn);
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
      discard(conn);
    } else if (!entry.isTaken) {
      this.#failed(dial, new Error("the conn was closed as soon as it was dialed"));
    } else if (isDraining) {
      this.#core.entries.refuse(entry, dial.key, "goaway");
      this.#failed(dial, new Error("the conn was draining as soon as it was dialed"));
    } else {
      this.#uncount(dial);
      dial.key.counters.dialed++;
      this.#events.dialed.emit(() => ({ key: dial.key.key, conn, ms: this.#tookMs(dial), caller: dial.caller }));
      this.#core.dialed(dial, entry);
    }
  }

  #failed(dial: PendingDial<K, C>, cause: unknown): void {
    if (!dial.isInFlight) return;
    const { why, final } = explain(cause);
    this.#fail(dial, new DialError(`the dial of ${dial.key.name} failed: ${why}`, { cause, final }));
  }

  #fail(dial: PendingDial<K, C>, error: DialError, isCut = false): void {
    const waiters = dial.key.pending.waitersOf(dial);
    this.#uncount(dial);
    if (isCut) dial.abort(error); // before another is dialed in its place
    dial.key.counters.dialErrors++;
    this.#events.dialFailed.emit(() => ({ key: dial.key.key, error, ms: this.#tookMs(dial), caller: dial.caller }));
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
function explain(cause: unknown): { why: string; final: boolean } {
  try {
    const final = typeof cause === "object" && cause !== null && "final" in cause && cause.final === true;
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
function discard(brought: { closed?: unknown; close?: unknown; destroy?: unknown }): void {
  if ((typeof brought !== "object" && typeof brought !== "function") || brought === null) return;
  void outcome(() => brought.closed); // heard, should it reject
  void outcome(() => {
    const { close, destroy } = brought;
    const end = typeof close === "function" ? close : destroy;
    return typeof end === "function" ? end.call(brought) : undefined;
  });
}
