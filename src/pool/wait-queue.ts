import { AsyncResource } from "node:async_hooks";
import type { PoolConn } from "../contract.ts";
import { processAnchor } from "../runtime/clock.ts";
import type { Timers } from "../runtime/timers.ts";
import type { DelayRule } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { Events } from "./events.ts";
import type { KeyPool } from "./key-pool.ts";
import { type Pending, type Request, Waiter } from "./pending.ts";

/** The waiters of all keys: how they come and go. While there is one, the process stays. */
export class WaitQueue<K, C extends PoolConn> {
  /** Waiters of all keys. */
  size = 0;
  #lastSeq = 0;
  readonly #timers: Timers;
  readonly #events: Events<K, C>;
  readonly #core: Core<K, C>;

  /** For `queue: "codel"`. */
  readonly #delay: DelayRule | undefined;

  constructor(delay: DelayRule | undefined, timers: Timers, events: Events<K, C>, core: Core<K, C>) {
    this.#delay = delay;
    this.#timers = timers;
    this.#events = events;
    this.#core = core;
  }

  /** The number of the youngest waiter so far. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** A number after all that the waiters have had so far. */
  nextSeq(): number {
    return ++this.#lastSeq;
  }

  join<R>(
    key: KeyPool<K, C>,
    request: Request<K, C>,
    give: (entry: Entry<K, C>) => R,
    resolve: (given: R) => void,
    reject: (error: unknown) => void,
  ): Waiter<K, C> {
    const waiter = new Waiter<K, C>(key, request, this.nextSeq(), give, resolve, reject, this);
    waiter.watch(this.#timers);
    const pending = key.ownPending();
    this.#begin(waiter, pending);
    pending.waiters.push(waiter);
    if (waiter.wantsDial) pending.wanting++;
    if (this.size++ === 0) processAnchor().hold();
    if (this.#events.waiting.isActive) this.#tellWaiting(waiter);
    return waiter;
  }

  /** Notes when its wait begins, and what its key has spent on dials and blocked conns by then. */
  #begin(waiter: Waiter<K, C>, pending: Pending<K, C>): void {
    const { index, rank, request } = waiter;
    // A waiter with a timer has just been armed; else whole milliseconds, since a fraction would be an object for each.
    const now = index >= 0 ? rank - (request.timeoutMs ?? 0) : Math.floor(this.#timers.now());
    waiter.since = now;
    if (this.#delay !== undefined && pending.waiters.size === 0) {
      pending.lastSoonAt = now;
      pending.isOverloaded = false;
    }
    if (pending.isCounting) pending.count(now);
    waiter.dialedBefore = pending.dialedMs;
    waiter.blockedBefore = pending.blockedMs;
  }

  grant(waiter: Waiter<K, C>, entry: Entry<K, C>): void {
    if (this.#delay !== undefined) this.#servedAfter(waiter, this.#delay);
    this.#leave(waiter);
    waiter.key.counters.served++;
    waiter.resolve(entry);
    if (this.#events.served.isActive) this.#tellServed(waiter, entry);
  }

  #servedAfter({ key: { pending }, since }: Waiter<K, C>, { targetMs }: DelayRule): void {
    const now = this.#timers.now();
    if (now - since <= targetMs) pending.lastSoonAt = now;
  }

  /** Whether the newest waiters are served first. Refuses those then that have waited too long. */
  shedOverload(key: KeyPool<K, C>): boolean {
    const { pending } = key;
    if (this.#delay === undefined || pending.waiters.size === 0) return false;
    const { targetMs, intervalMs } = this.#delay;
    const now = this.#timers.now();
    if (!pending.isOverloaded && now - pending.lastSoonAt <= intervalMs) return false;
    key.ownPending().isOverloaded = true;
    for (let waiter = pending.waiters.head; waiter !== undefined; waiter = pending.waiters.head) {
      if (now - waiter.since <= targetMs) break;
      this.refuse(waiter, this.#core.account.overloaded(waiter, this.#delay));
    }
    return true;
  }

  // Apart from their callers: a closure in those would cost an allocation at each call, made or not.

  #tellWaiting(waiter: Waiter<K, C>): void {
    const caller = new AsyncResource("rpc-conn-pool:waiting");
    waiter.caller = caller;
    this.#events.waiting.emit(() => ({ key: waiter.key.id, caller }));
  }

  #tellServed(waiter: Waiter<K, C>, { conn }: Entry<K, C>): void {
    const ms = Math.max(this.#timers.now() - waiter.since, 0);
    this.#events.served.emit(() => ({ key: waiter.key.id, conn, ms, caller: waiter.caller }));
  }

  /** It may not wait: too many do, or the key's dials fail. */
  refuse(waiter: Waiter<K, C>, error: unknown): void {
    this.#reject(waiter, "refused", error);
  }

  /** Nothing can serve it. */
  fail(waiter: Waiter<K, C>, error: unknown): void {
    this.#reject(waiter, "failed", error);
  }

  failAll(key: KeyPool<K, C>, error: (waiter: Waiter<K, C>) => unknown): void {
    for (let waiter = key.pending.waiters.head; waiter !== undefined; waiter = key.pending.waiters.head)
      this.fail(waiter, error(waiter));
  }

  /** Its dial brought a conn that it cannot use: it is not dialed for again. */
  markTried(waiter: Waiter<K, C>): void {
    if (!waiter.isWaiting || !waiter.wantsDial) return;
    waiter.isTried = true;
    waiter.key.pending.wanting--;
  }

  timedOut(waiter: Waiter<K, C>): void {
    this.#core.enter(() => {
      if (!waiter.isWaiting) return;
      const { key, caller } = waiter;
      const error = this.#core.account.timedOut(waiter);
      this.#events.timedOut.emit(() => ({ key: key.id, error, ms: this.#timers.now() - waiter.since, caller }));
      this.#reject(waiter, "timeouts", error);
      this.#core.serve(key);
    });
  }

  /** Others may have the same signal: nobody is served before all of them have left. */
  aborted(waiter: Waiter<K, C>, reason: unknown): void {
    this.#core.enter(() => this.#reject(waiter, "aborted", reason));
  }

  afterAbort({ key }: Waiter<K, C>): void {
    this.#core.enterAndServe(key);
  }

  /** The one way in which a waiter leaves without a lease: one counter, one event. */
  #reject(waiter: Waiter<K, C>, outcome: Unserved, error: unknown): void {
    if (!waiter.isWaiting) return;
    this.#leave(waiter);
    const { key } = waiter;
    key.counters[outcome]++;
    const topic = outcome === "timeouts" ? undefined : this.#events[outcome];
    if (topic?.isActive) {
      const ms = Math.max(this.#timers.now() - waiter.since, 0);
      topic.emit(() => ({ key: key.id, error, ms, caller: waiter.caller }));
    }
    waiter.reject(error);
  }

  #leave(waiter: Waiter<K, C>): void {
    const { pending } = waiter.key;
    pending.waiters.remove(waiter);
    if (waiter.wantsDial) pending.wanting--;
    waiter.unwatch(this.#timers);
    if (--this.size === 0) processAnchor().drop();
  }
}

/** How a waiter may end that gets no lease. */
type Unserved = "timeouts" | "refused" | "aborted" | "failed";
