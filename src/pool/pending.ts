import type { AsyncResource } from "node:async_hooks";
import type { Dial, PoolConn } from "../contract.ts";
import type { Backoff, Filter } from "../options.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import type { Ranked } from "../runtime/heap.ts";
import { type Linked, List } from "../runtime/list.ts";
import { isArmed, type Timer, type Timers } from "../runtime/timers.ts";
import type { Dialer, KeyBackoff } from "./dialer.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";
import type { WaitQueue } from "./wait-queue.ts";

/** What a caller asks for. */
export interface Request<K, C extends PoolConn> {
  readonly dial?: Dial<K, C> | undefined;
  readonly filter?: Filter<C> | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds; infinite: for ever. */
  readonly timeoutMs?: number | undefined;
  readonly waitForReady?: boolean | undefined;
  /** How dials for it alone are paced, where `backoff` does not say. */
  readonly pace?: Backoff | undefined;
  /** How much of its time the call has spent before. */
  readonly spentMs?: number | undefined;
}

/** A method's parameters are compared both ways, so that a waiter's type need not say what its caller gets. */
interface Settling<R> {
  settle(given: R): void;
}

/** A queued request for a lease. */
export class Waiter<K, C extends PoolConn> implements Linked<Waiter<K, C>>, Timer, AbortWatcher {
  prev: Waiter<K, C> | undefined = undefined;
  next: Waiter<K, C> | undefined = undefined;
  list: List<Waiter<K, C>> | undefined = undefined;
  rank = 0;
  index = -1;

  readonly key: KeyPool<K, C>;
  readonly request: Request<K, C>;
  /** Orders the waiters of all keys. */
  readonly seq: number;
  /** When it came, and `dialedMs` and `blockedMs` of its key at that time: what has been added since is its own share. */
  since = 0;
  dialedBefore = 0;
  blockedBefore = 0;
  /** Its caller's async context, where somebody listens. Written by the wait queue. */
  caller: AsyncResource | undefined = undefined;
  /** A dial for it brought a conn that it cannot use: it starts no second. Written by the wait queue. */
  isTried = false;
  /** It has just come, and may be refused. Written by the dispatcher. */
  isNew = true;

  /** What the caller gets for a conn; `resolve` takes what it returns, and is not a closure over it to save that. */
  readonly #give: (entry: Entry<K, C>) => unknown;
  readonly #resolve: Settling<unknown>["settle"];
  readonly #reject: (error: unknown) => void;
  readonly #queue: WaitQueue<K, C>;

  constructor(
    key: KeyPool<K, C>,
    request: Request<K, C>,
    seq: number,
    give: (entry: Entry<K, C>) => unknown,
    resolve: Settling<unknown>["settle"],
    reject: (error: unknown) => void,
    queue: WaitQueue<K, C>,
  ) {
    this.key = key;
    this.request = request;
    this.seq = seq;
    this.#give = give;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#queue = queue;
  }

  /** From now on it may give up. Apart from the constructor, so that V8 inlines that. */
  watch(timers: Timers): void {
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = this.request;
    if (signal !== undefined) watchAbort(signal, this);
    if (timeoutMs < Number.POSITIVE_INFINITY) timers.arm(this, timeoutMs);
  }

  unwatch(timers: Timers): void {
    if (isArmed(this)) timers.disarm(this);
    if (this.request.signal !== undefined) unwatchAbort(this.request.signal, this);
  }

  get isWaiting(): boolean {
    return this.list !== undefined;
  }

  /** Whether it is worth a dial. */
  get wantsDial(): boolean {
    return this.request.dial !== undefined && !this.isTried;
  }

  resolve(entry: Entry<K, C>): void {
    this.#resolve(this.#give(entry));
  }

  reject(error: unknown): void {
    this.#reject(error);
  }

  run(): void {
    this.#queue.timedOut(this);
  }

  onAbort(reason: unknown): void {
    this.#queue.aborted(this, reason);
  }

  afterAbort(): void {
    this.#queue.afterAbort(this);
  }
}

/** A dial in flight. It belongs to the pool, not to the caller that caused it. */
export class PendingDial<K, C extends PoolConn> implements Linked<PendingDial<K, C>>, Timer {
  prev: PendingDial<K, C> | undefined = undefined;
  next: PendingDial<K, C> | undefined = undefined;
  /** In its key's list while it counts; in none once it is done or abandoned. */
  list: List<PendingDial<K, C>> | undefined = undefined;
  rank = 0;
  index = -1;

  readonly key: KeyPool<K, C>;
  /** The function that dials, of the oldest waiter that it was for. */
  readonly dial: Dial<K, C>;
  /** Waiters that the conn is expected to serve; infinite while nothing is known of the key. */
  slots: number;
  /** Not for a waiter: for `minIdle` or `warm`, or a replacement. */
  readonly isBackground: boolean;
  /** The conn in whose place this one comes: it goes then, or has gone where the key was full. */
  readonly replaces: Entry<K, C> | undefined;
  /** The async context of the caller that it was begun for, where somebody listens. */
  readonly caller: AsyncResource | undefined;
  readonly startedAt: number;
  /** Failed dials of the key that had been counted when it began: those that fail together are one failure. */
  readonly failuresBefore: number;
  readonly #controller = new AbortController();
  readonly #dialer: Dialer<K, C>;

  constructor(
    key: KeyPool<K, C>,
    dial: Dial<K, C>,
    slots: number,
    isBackground: boolean,
    replaces: Entry<K, C> | undefined,
    caller: AsyncResource | undefined,
    startedAt: number,
    dialer: Dialer<K, C>,
  ) {
    this.key = key;
    this.dial = dial;
    this.slots = slots;
    this.isBackground = isBackground;
    this.replaces = replaces;
    this.caller = caller;
    this.startedAt = startedAt;
    this.failuresBefore = key.pending.backoff?.failures ?? 0;
    this.#dialer = dialer;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get isInFlight(): boolean {
    return this.list !== undefined;
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  run(): void {
    this.#dialer.timedOut(this);
  }
}

/** Where a search for the next waiter to dial for has come to. */
export interface DialFor<K, C extends PoolConn> {
  readonly waiter: Waiter<K, C>;
  readonly ahead: number;
  readonly wanting: number;
}

/**
 * What is pending for a key beyond its open conns: who waits, what is dialed for them, and what the last dials came to.
 * Most keys rest most of the time: they share one record, which nobody may change.
 *
 * Which waiters will be served by what is answered here and nowhere else. The waiters that are worth a dial, in their
 * order, are served by the validations that run, and then by the dials in flight, oldest first, each by its slots.
 */
export class Pending<K, C extends PoolConn> implements Ranked {
  /** Its place in the line of keys that `maxConns` holds back. Written by `Capacity`. */
  rank = 0;
  index = -1;
  /** What it will be ranked by, where that is not its oldest waiter. Written by `Capacity`. */
  turn: number | undefined = undefined;

  /** Undefined: this is the one record of all keys that rest. */
  readonly key: KeyPool<K, C> | undefined;
  readonly waiters: List<Waiter<K, C>> = new List();
  /** For `queue: "codel"`: when nobody waited, or somebody got a conn soon; whether that is too long ago. Written by the wait queue. */
  lastSoonAt = 0;
  isOverloaded = false;
  /** Of the waiters, those that are worth a dial. Written by the wait queue. */
  wanting = 0;
  /** In flight, oldest first. */
  readonly dials: List<PendingDial<K, C>> = new List();
  /** Of the dials, those for `minIdle` and `warm`. */
  backgroundDials = 0;
  /** Milliseconds with a dial in flight, and with none but with a blocked conn, up to `countedAt`. */
  dialedMs = 0;
  blockedMs = 0;
  private countedAt = 0;
  /** After failed dials, until a success. Written by `Backoffs`. */
  backoff: KeyBackoff | undefined = undefined;
  /** Something has gone that its waiters may have hoped for. Written by the dispatcher. */
  mustRecheck = false;
  /** Its waiters are being served in batches: what is free is theirs. Written by the dispatcher. */
  isBatching = false;
  /** What the last dial brought, until the dispatcher has served the key. */
  arrived: { readonly entry: Entry<K, C>; readonly dial: PendingDial<K, C> } | undefined = undefined;
  /** Slots that conns which are being validated will have. Written by `Hooks`. */
  validating = 0;
  /** Slots that the dials in flight will bring, and dials of which nothing is known. */
  #promised = 0;
  #unknown = 0;

  constructor(key: KeyPool<K, C> | undefined) {
    this.key = key;
  }

  /** Nobody waits, and nothing is dialed or put off. */
  get isEmpty(): boolean {
    return this.dials.size + this.waiters.size === 0 && this.backoff === undefined;
  }

  /** Nothing is left to be remembered. */
  get isOver(): boolean {
    return this.isEmpty && this.turn === undefined && this.validating === 0 && !this.isBatching;
  }

  /** The first conn of the key came: those whose dials announced no slots know theirs now. */
  learn(slots: number): void {
    if (this.#unknown === 0) return;
    for (const dial of this.dials) {
      if (dial.slots !== Number.POSITIVE_INFINITY) continue;
      dial.slots = slots;
      this.#unknown--;
      this.#promised += slots;
    }
  }

  /** Waiters that the dials and validations in flight will serve, `except` one of the dials. */
  promised(except?: PendingDial<K, C>): number {
    const unknown = except?.slots === Number.POSITIVE_INFINITY ? 1 : 0;
    if (this.#unknown > unknown) return Number.POSITIVE_INFINITY;
    return this.validating + this.#promised - (except === undefined || unknown === 1 ? 0 : except.slots);
  }

  /** Waiters that neither a dial nor a validation in flight will serve. */
  get heldBack(): number {
    return this.waiters.size - Math.min(this.promised(), this.wanting);
  }

  /** Waiters that something else will serve before `dial` does. */
  #ahead(dial: PendingDial<K, C>): number {
    if (dial.next === undefined) return this.promised(dial);
    let ahead = this.validating;
    for (let older = dial.prev; older !== undefined; older = older.prev) ahead += older.slots;
    return ahead;
  }

  /** The waiters that `dial`, which is in flight, will serve. */
  waitersOf(dial: PendingDial<K, C>): Waiter<K, C>[] {
    return this.#wantingFrom(this.#ahead(dial), dial.slots);
  }

  /** The waiters that nothing in flight will serve, oldest first, so many at most. */
  unserved(most: number): Waiter<K, C>[] {
    return this.#wantingFrom(this.promised(), most);
  }

  /** So many of the waiters that are worth a dial, behind so many others. Walks from the nearer end. */
  #wantingFrom(ahead: number, most: number): Waiter<K, C>[] {
    const found: Waiter<K, C>[] = [];
    const behind = Math.max(this.wanting - ahead - most, 0);
    if (behind < ahead) {
      let after = 0;
      for (let waiter = this.waiters.tail; waiter !== undefined && after < this.wanting - ahead; waiter = waiter.prev) {
        if (waiter.wantsDial && after++ >= behind) found.push(waiter);
      }
      return found.reverse();
    }
    let skip = ahead;
    for (let waiter = this.waiters.head; waiter !== undefined && found.length < most; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) found.push(waiter);
    }
    return found;
  }

  /** The oldest waiter that nothing in flight will serve. The `last` that it was spares the walk from the head. */
  nextToDial(last?: DialFor<K, C>): DialFor<K, C> | undefined {
    const { wanting } = this;
    const ahead = this.promised();
    const { tail } = this.waiters;
    if (ahead === wanting - 1 && tail?.wantsDial) return { waiter: tail, ahead, wanting };
    const goOn = last !== undefined && last.wanting === wanting && last.waiter.isWaiting;
    let skip = goOn ? ahead - last.ahead : ahead;
    let waiter = goOn ? last.waiter : this.waiters.head;
    for (; waiter !== undefined; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) return { waiter, ahead, wanting };
    }
    return undefined;
  }

  /** Time that passes now is a dial's, or a blocked conn's. */
  get isCounting(): boolean {
    return this.dials.head !== undefined || (this.key !== undefined && this.key.blockedCount > 0);
  }

  /** Brings the times up to date: before a dial or a blocked conn comes or goes, and before they are read. */
  count(now: number): void {
    const at = Math.floor(now); // fractions would be objects, three for each waiter
    const ms = at - this.countedAt;
    if (ms <= 0) return;
    this.countedAt = at;
    if (this.dials.size > 0) this.dialedMs += ms;
    else if (this.key !== undefined && this.key.blockedCount > 0) this.blockedMs += ms;
  }

  addDial(dial: PendingDial<K, C>): void {
    this.count(dial.startedAt);
    this.dials.push(dial);
    if (dial.isBackground && dial.replaces === undefined) this.backgroundDials++;
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown++;
    else this.#promised += dial.slots;
  }

  removeDial(dial: PendingDial<K, C>, now: number): void {
    this.count(now);
    this.dials.remove(dial);
    if (dial.isBackground && dial.replaces === undefined) this.backgroundDials--;
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown--;
    else this.#promised -= dial.slots;
  }
}
