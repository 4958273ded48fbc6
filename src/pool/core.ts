import type { Dial, PoolConn } from "../contract.ts";
import type { DialError, WaitTimeoutError } from "../errors.ts";
import type { Filter } from "../options.ts";
import type { Failure } from "../runtime/guard.ts";
import { Timers } from "../runtime/timers.ts";
import { Account } from "./account.ts";
import { Capacity } from "./capacity.ts";
import type { Config, KeyRules } from "./config.ts";
import { Backoffs, Dialer } from "./dialer.ts";
import { Dispatcher } from "./dispatcher.ts";
import { Drain } from "./drain.ts";
import { Entries } from "./entries.ts";
import type { Entry, SignsOfLife } from "./entry.ts";
import { type Events, makeEvents } from "./events.ts";
import { IdleOrder, Lifetimes } from "./expiry.ts";
import { Explainer } from "./explain.ts";
import { Health } from "./health.ts";
import { Hooks } from "./hooks.ts";
import type { KeyPool } from "./key-pool.ts";
import { KeyTable } from "./keys.ts";
import { MinIdle } from "./min-idle.ts";
import { Pending, type PendingDial, type Request, type Waiter } from "./pending.ts";
import { Selector } from "./selector.ts";
import { Transfer } from "./transfer.ts";
import { WaitQueue } from "./wait-queue.ts";

/**
 * What can happen in a pool, and what follows from it. Whatever happens to a conn, a dial or a limit ends by calling
 * `serve`. Aborts, timers and callbacks come in through `enter`: while a key is being served, they wait.
 */
export class Core<K, C extends PoolConn> {
  readonly timers: Timers;
  readonly events: Events<K, C>;
  /** What is pending for keys that rest: nothing. */
  readonly resting: Pending<K, C> = new Pending<K, C>(undefined);
  readonly keys: KeyTable<K, C>;
  readonly entries: Entries<K, C>;
  readonly selector: Selector<K, C>;
  readonly idleOrder: IdleOrder<Entry<K, C>>;
  readonly lifetimes: Lifetimes<K, C>;
  readonly dialer: Dialer<K, C>;
  readonly queue: WaitQueue<K, C>;
  readonly backoffs: Backoffs<K, C>;
  readonly capacity: Capacity<K, C>;
  readonly minIdle: MinIdle<K, C>;
  readonly health: Health<K, C>;
  readonly hooks: Hooks<K, C>;
  readonly transfer: Transfer<K, C>;
  readonly drain: Drain<K, C>;
  /** The pool's own. */
  readonly dial: Dial<K, C> | undefined;
  readonly dispatcher: Dispatcher<K, C>;
  readonly account: Account<K, C>;
  readonly explainer: Explainer<K, C>;
  #isServing = false;
  readonly #toServe = new Set<KeyPool<K, C>>();
  readonly #atTheDoor: (() => void)[] = [];

  constructor(config: Config<K, C>) {
    Object.freeze(this.resting);
    this.dial = config.dial;
    this.timers = new Timers(config.clock);
    this.events = makeEvents(config.name);
    this.keys = new KeyTable(config, this.timers, this);
    this.entries = new Entries(this.timers, this.events, this);
    this.hooks = new Hooks(config, this.timers, this);
    this.health = new Health(this.timers, this);
    const isDue = this.hooks.validates
      ? (entry: Entry<K, C>, rules?: KeyRules) => this.hooks.isDue(entry, rules)
      : undefined;
    const trustOrAsk = (entry: Entry<K, C>, life: SignsOfLife) => this.health.trustOrAsk(entry, life);
    this.selector = new Selector(config.selection, isDue, trustOrAsk, this.timers, this.entries);
    this.idleOrder = new IdleOrder(this.timers, (entry) => this.enter(() => this.#expired(entry)));
    this.lifetimes = new Lifetimes(this.timers, this);
    this.dialer = new Dialer(config.prime, this.timers, this.events, this);
    this.queue = new WaitQueue(config.delay, this.timers, this.events, this);
    this.backoffs = new Backoffs(this.timers, this);
    this.capacity = new Capacity(this);
    this.minIdle = new MinIdle(config.dial, this);
    this.transfer = new Transfer(this);
    this.drain = new Drain(this);
    this.dispatcher = new Dispatcher(this);
    this.account = new Account(this);
    this.explainer = new Explainer(config.name, this);
  }

  // The door.

  /** The way in for aborts, timers and callbacks: `change` happens now, or when what is being served is done. */
  enter(change: () => void): void {
    if (this.#isServing) this.#atTheDoor.push(change);
    else change();
  }

  enterAndServe(key: KeyPool<K, C>): void {
    this.enter(() => this.serve(key));
  }

  /**
   * Does what is possible for the waiters of a key, after a change that could leave nothing of it. Whatever is called meanwhile,
   * keys come one after another.
   */
  serve(key: KeyPool<K, C>, change?: () => void): void {
    if (this.#isServing) {
      change?.();
      this.#toServe.add(key);
      return;
    }
    this.#isServing = true;
    try {
      change?.();
      this.#serve(key);
      if (this.#toServe.size + this.#atTheDoor.length > 0) this.#serveRest();
    } finally {
      this.#isServing = false;
    }
  }

  #serveRest(): void {
    for (;;) {
      const change = this.#atTheDoor.shift();
      if (change !== undefined) {
        change();
        continue;
      }
      const [key] = this.#toServe;
      if (key === undefined) return;
      this.#toServe.delete(key);
      this.#serve(key);
    }
  }

  #serve(key: KeyPool<K, C>): void {
    const result = this.dispatcher.dispatch(key);
    if (result === "steady") return;
    if (result === "again") this.#toServe.add(key);
    if (!key.isResting) this.#letRest(key);
    if (key.isEmpty && !this.minIdle.needs(key)) this.#emptied(key);
    const next = this.#nextForPlace;
    if (next !== undefined) this.#toServe.add(next);
  }

  /** Lets go of what is not pending any more. */
  #letRest(key: KeyPool<K, C>): void {
    const { pending } = key;
    // Without a pace that somebody asked for, a failure is remembered only as long as the pool itself would dial again.
    if (!this.backoffs.outlivesWaiters(key)) {
      const isUsed = pending.waiters.size + pending.dials.size > 0 || this.minIdle.keepsAlive(key);
      if (!isUsed) this.backoffs.end(key);
    }
    key.rest(this.resting);
  }

  #emptied(key: KeyPool<K, C>): void {
    this.minIdle.forget(key);
    this.capacity.leaveLine(key);
    this.capacity.disorder(key);
    this.keys.forget(key);
  }

  /** The key that a place which is free goes to: who waits comes before what is kept ready. */
  get #nextForPlace(): KeyPool<K, C> | undefined {
    return this.capacity.next ?? this.minIdle.next;
  }

  placeFreed(): void {
    const next = this.#nextForPlace;
    if (next !== undefined) this.serve(next);
  }

  // What callers do.

  /** A lease at once: neither dials nor waits, nor passes a waiter of the same key. */
  tryLease(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    const entry = key.pending.waiters.head === undefined ? this.selector.pick(key, filter) : undefined;
    if (entry === undefined) return this.leaseElse(key, filter);
    this.lease(entry);
    key.hits++;
    return entry;
  }

  /** Somebody waits for the key already, or no conn of it is known to be free. */
  private leaseElse(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    const { head } = key.pending.waiters;
    const entry = head === undefined ? this.#pickGained(key, filter) : this.#pickBehind(key, filter);
    if (entry === undefined) return undefined;
    this.lease(entry);
    key.hits++;
    return entry;
  }

  /** A caller that does not wait has got nothing. */
  noneFree(key: KeyPool<K, C>): void {
    const counters = key.isAlive ? key.counters : this.keys.forgotten; // to ask its last conn may have closed it
    counters.misses++;
    counters.empty++;
    this.available(key); // slots gained silently go to those who wait
  }

  /** A conn that has gained a slot silently. */
  #pickGained(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    while (filter === undefined && key.pending.waiters.head === undefined && this.selector.reread(key)) {
      const entry = this.selector.pick(key, undefined);
      if (entry !== undefined) return entry;
    }
    return undefined;
  }

  /** A conn that is of no use to those who wait. There is none where the first of them takes any. */
  #pickBehind(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    if (key.pending.waiters.head?.request.filter === undefined) return undefined;
    this.serve(key);
    return key.pending.isBatching || this.#isServing ? undefined : this.selector.pick(key, filter);
  }

  /** What `give` makes of a conn, as soon as there is one. `tryLease` has found none. */
  wait<R>(key: KeyPool<K, C>, request: Request<K, C>, give: (entry: Entry<K, C>) => R): Promise<R> {
    // It may have aborted since the call began: in a filter, or before an RPC is sent again.
    if (request.signal?.aborted) {
      this.serve(key); // nothing may be left of its key
      return Promise.reject(request.signal.reason);
    }
    key.counters.misses++;
    return new Promise((resolve, reject) => {
      const hasEffect = this.#isServing || !this.dispatcher.onlyQueues(key, request);
      const waiter: Waiter<K, C> = this.queue.join(key, request, give, resolve, reject);
      if (this.dispatcher.joined(waiter, hasEffect)) this.serve(key);
    });
  }

  /** The time of a caller was over before it asked: what it is told. Nothing may be left of the key that it opened. */
  refuseLate(key: KeyPool<K, C>, timeoutMs: number): WaitTimeoutError {
    const error = this.account.late(key, timeoutMs);
    key.counters.misses++;
    key.counters.timeouts++;
    this.events.timedOut.emit(() => ({ key: key.id, error, ms: 0 }));
    this.serve(key);
    return error;
  }

  lease(entry: Entry<K, C>): void {
    if (entry.key.hasHooks) this.leaseHooked(entry);
    else this.entries.lease(entry);
  }

  private leaseHooked(entry: Entry<K, C>): void {
    if (this.hooks.lease(entry)) this.serve(entry.key);
  }

  /** A stream has ended, which began at `since`. Its slot is free before the caller learns of the end. */
  release(entry: Entry<K, C>, since?: number): void {
    const { key } = entry;
    if (key.hasHooks) this.hooks.releasing(entry);
    if (!this.entries.release(entry, since)) return;
    if (key.hasHooks) this.hooks.released(entry);
    if (this.queue.size === 0) this.capacity.becameIdle(entry);
    else this.releaseWithWaiters(entry);
  }

  private releaseWithWaiters(entry: Entry<K, C>): void {
    if (this.capacity.yieldsPlace(entry)) {
      this.entries.drain(entry, "evicted");
      return;
    }
    this.available(entry.key);
    this.capacity.becameIdle(entry);
    this.placeFreed();
  }

  /** A call on the conn was given up before an answer came. The caller releases it then. */
  unanswered(entry: Entry<K, C>): void {
    if (entry.isOpen) this.health.unanswered(entry);
  }

  /** A caller says that the conn is broken. The caller releases it then. */
  discard(entry: Entry<K, C>, error: unknown): void {
    if (error !== undefined) entry.extras.cause = error;
    this.entries.drain(entry, "discarded");
  }

  // What happens to conns and dials.

  /** A conn can be handed out again. */
  available(key: KeyPool<K, C>): void {
    if (key.pending.waiters.size !== 0) this.serve(key);
  }

  /** Something has gone that waiters may have hoped for, or that stood in their way. */
  freed(key: KeyPool<K, C>): void {
    this.dispatcher.recheck(key);
    this.serve(key);
    this.placeFreed();
  }

  /** A conn has gone, or takes no streams any more. */
  left(entry: Entry<K, C>): void {
    this.health.left(entry);
    this.hooks.left(entry);
    if (this.entries.open === 0) this.health.rest();
    this.minIdle.left(entry);
    this.transfer.left(entry);
    this.freed(entry.key);
  }

  /** A conn has been closed. `closing` is what its `close()` brings; it never rejects. Absent: it died. */
  closed(closing: Promise<Failure | undefined> | undefined): void {
    this.drain.closed(closing);
  }

  /** The one way in of a conn: its key's waiters first, then the cache, then other keys. */
  admit(entry: Entry<K, C>, key: KeyPool<K, C>): void {
    this.entries.add(entry, key, false);
    this.#admitted(entry, key);
  }

  #admitted(entry: Entry<K, C>, key: KeyPool<K, C>): void {
    this.serve(key);
    this.capacity.becameIdle(entry);
    this.placeFreed();
  }

  dialed(dial: PendingDial<K, C>, entry: Entry<K, C>): void {
    const { key } = dial;
    this.backoffs.end(key);
    this.entries.add(entry, key, true);
    this.minIdle.dialed(dial, entry);
    if (dial.replaces !== undefined) this.entries.drain(dial.replaces, "retired");
    key.ownPending().arrived = { entry, dial };
    this.#admitted(entry, key);
    if (dial.replaces !== undefined) this.lifetimes.replaced(key);
  }

  /** `waiters` are those that the dial was to serve. */
  dialFailed(dial: PendingDial<K, C>, error: DialError, waiters: readonly Waiter<K, C>[]): void {
    const { key } = dial;
    const isSpent = this.backoffs.failed(key, dial, error);
    for (const waiter of isSpent ? [...key.pending.waiters] : waiters) {
      if (isSpent || error.final || !waiter.request.waitForReady)
        this.queue.fail(waiter, this.account.dialFailed(waiter, error));
    }
    if (dial.isBackground) this.minIdle.failed(key, error, isSpent);
    this.freed(key);
  }

  /** Like a release, but that there is nothing to reset, unless the last stream of callers ended meanwhile. */
  validated(entry: Entry<K, C>, isShared: boolean): void {
    const { key } = entry;
    const isBack = this.entries.releaseUnseen(entry);
    if (isBack && isShared) this.hooks.released(entry);
    else if (isBack && entry.isIdle) entry.holdProcess(false);
    this.serve(key);
    if (isBack) this.capacity.becameIdle(entry);
    this.placeFreed();
  }

  #expired(entry: Entry<K, C>): void {
    if (!entry.isIdle) return;
    if (entry.peerStreams > 0 || this.minIdle.keepOutstayed(entry)) entry.key.idleQueue?.touch(entry);
    else this.entries.drain(entry, "expired");
  }

  /** A key has appeared, or its rules have changed. */
  ruled(key: KeyPool<K, C>): void {
    this.hooks.ruled(key);
    this.capacity.order(key);
  }
}
