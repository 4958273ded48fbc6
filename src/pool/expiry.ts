import { LRUCache } from "lru-cache";
import type { PoolConn } from "../contract.ts";
import { type Timer, type Timers, timer } from "../runtime/timers.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** What the order of idle conns needs to know of one. */
export interface Idler {
  readonly isIdle: boolean;
  readonly releaseSeq: number;
  /** Both are the queue's. */
  tick: number;
  noted: number;
}

/** Ticks per expiration: an idle conn is closed at most one tick, a sixteenth of its time, too late. */
const ticksPerExpiration = 16;
/** Conns closed in one go; a million that expire together must not block the event loop. */
const expiryBatch = 500;
/** Give-backs that the order takes in at one go. */
const mostNoted = 256;
/** An order that has grown over this is dropped when it is empty, so that its arrays go too. */
const worthDropping = 1000;
/** Expirations in use that are kept to the millisecond; further ones are rounded up, so that their queues stay few. */
const exactQueues = 16;

/**
 * The order in which the conns with one expiration were given back, oldest first.
 *
 * A conn stays in the LRU order while it is leased, since deleting and adding it again at each call costs several
 * times what refreshing does. Conns that are no longer idle are dropped when the search for the oldest meets them;
 * their give-back puts them in again. A sentinel keeps the order from going empty: lru-cache then clears its whole
 * arrays.
 *
 * Those given back are noted, once, and the order takes them in when somebody asks for it, at a tick, or when many are
 * noted: calls that come again to the same few hundred conns pay for a flag, not for the order.
 *
 * Time is coarse: a tick counts up now and then, and a give-back is stamped with it, so that no call reads a clock.
 */
export class IdleQueue<T extends Idler> implements Timer {
  rank = 0;
  index = -1;
  /** Keys whose idle conns stand here. Written by `IdleOrder`. */
  users = 0;
  readonly expirationMs: number;
  readonly #timers: Timers;
  readonly #expire: (entry: T) => void;
  readonly #sentinel = {};
  #order: LRUCache<object, T | typeof IdleQueue.sentinel> | undefined;
  #most = 0;
  /** Given back since the order was brought up to date; each knows its place. Holes: forgotten since. */
  #noted: (T | undefined)[] = [];
  #tick = 0;
  /** When the ticks came that are not past their expiration yet. */
  #tickTimes: number[] = [];
  /** Conns stamped with an earlier tick have expired. */
  #expired = 0;

  static readonly sentinel: unique symbol = Symbol("sentinel");

  constructor(expirationMs: number, timers: Timers, expire: (entry: T) => void) {
    this.expirationMs = expirationMs;
    this.#timers = timers;
    this.#expire = expire;
  }

  /** `entry` has been given back: it is the youngest now. */
  touch(entry: T): void {
    entry.tick = this.#tick;
    if (entry.noted < 0) this.#note(entry);
  }

  #note(entry: T): void {
    entry.noted = this.#noted.length;
    this.#noted.push(entry);
    if (this.#noted.length >= mostNoted) this.#takeIn();
    if (this.index < 0 && this.expirationMs !== Number.POSITIVE_INFINITY) this.#start();
  }

  /** Brings the order up to date. */
  #takeIn(): void {
    if (this.#noted.length === 0) return;
    const noted = this.#noted.filter((entry) => entry !== undefined);
    this.#noted = [];
    const order = this.#order ?? this.#begin();
    for (const entry of noted.sort((a, b) => a.releaseSeq - b.releaseSeq)) {
      entry.noted = -1;
      if (order.get(entry, lookup) === undefined) order.set(entry, entry);
    }
    if (order.size > this.#most) this.#most = order.size;
  }

  /** `entry` has been closed or taken. */
  forget(entry: T): void {
    entry.tick = -1;
    if (entry.noted >= 0) this.#noted[entry.noted] = undefined;
    entry.noted = -1;
    this.#order?.delete(entry);
    if (this.#holdsNone) this.#takeIn();
    if (this.#holdsNone) this.#empty();
  }

  get #holdsNone(): boolean {
    return this.#order === undefined || this.#order.size === 1;
  }

  /** The idle conn that was given back first. */
  oldest(): T | undefined {
    this.#takeIn();
    const order = this.#order;
    while (order !== undefined && order.size > 1) {
      const first = order.rvalues().next().value;
      if (first === IdleQueue.sentinel) order.get(this.#sentinel, lookup);
      else if (first?.isIdle) return first;
      else if (first !== undefined) order.delete(first);
    }
    this.#empty();
    return undefined;
  }

  /** The idle conns, oldest first. */
  *[Symbol.iterator](): Generator<T, void, undefined> {
    this.#takeIn();
    for (const entry of this.#order?.rvalues() ?? []) {
      if (entry !== undefined && entry !== IdleQueue.sentinel && entry.isIdle) yield entry;
    }
  }

  run(): void {
    this.#countTick();
    this.#timers.arm(this, this.expirationMs / ticksPerExpiration); // before others are called, who may touch it
    let budget = expiryBatch;
    let entry = this.oldest();
    for (; entry !== undefined && entry.tick < this.#expired; entry = this.oldest()) {
      if (budget-- === 0) {
        this.#timers.arm(this, 0);
        return;
      }
      this.forget(entry);
      this.#expire(entry);
    }
  }

  #begin(): LRUCache<object, T | typeof IdleQueue.sentinel> {
    const order = new LRUCache<object, T | typeof IdleQueue.sentinel>(unbounded);
    order.set(this.#sentinel, IdleQueue.sentinel);
    this.#order = order;
    this.#most = 0;
    return order;
  }

  #empty(): void {
    this.#timers.disarm(this);
    this.#noted = [];
    if (this.#order !== undefined && this.#most > worthDropping) this.#order = undefined;
  }

  /** The tick counts at once, so that a conn given back to an empty queue has its time to the millisecond. */
  #start(): void {
    this.#tickTimes = [];
    this.#expired = this.#tick;
    this.#countTick();
    this.#timers.arm(this, this.expirationMs / ticksPerExpiration);
  }

  #countTick(): void {
    const now = this.#timers.now();
    this.#tick++;
    this.#tickTimes.push(now);
    // Conns stamped before a tick were given back before its time: never early, even where ticks come late.
    while (this.#tickTimes[0] !== undefined && this.#tickTimes[0] <= now - this.expirationMs) {
      this.#tickTimes.shift();
      this.#expired++;
    }
  }
}

/** lru-cache wants a bound; the pool's own counters are the real one. */
const unbounded = { maxSize: Number.MAX_SAFE_INTEGER, sizeCalculation: () => 1 };
/** Passed to `get`, which would allocate one; complete, since what is missing costs more than what is there. */
const lookup = { allowStale: false, updateAgeOnGet: false, noDeleteOnStaleGet: false };

/** All idle conns in the order of their give-back; a queue for each expiration in use. */
export class IdleOrder<T extends Idler> {
  readonly #timers: Timers;
  readonly #expire: (entry: T) => void;
  readonly #queues = new Map<number, IdleQueue<T>>();

  constructor(timers: Timers, expire: (entry: T) => void) {
    this.#timers = timers;
    this.#expire = expire;
  }

  /** The queue for one more key with this expiration. The key that leaves it says so with `leave`. */
  join(expirationMs: number): IdleQueue<T> {
    const ms = this.#queues.has(expirationMs) || this.#queues.size < exactQueues ? expirationMs : roundUp(expirationMs);
    let queue = this.#queues.get(ms);
    if (queue === undefined) {
      queue = new IdleQueue(ms, this.#timers, this.#expire);
      this.#queues.set(ms, queue);
    }
    queue.users++;
    return queue;
  }

  /** A key that had joined `queue` needs it no more. */
  leave(queue: IdleQueue<T>): void {
    if (--queue.users > 0) return;
    this.#timers.disarm(queue);
    this.#queues.delete(queue.expirationMs);
  }

  /** The idle conn that was given back first, of those that pass. */
  oldest(passes?: (entry: T) => boolean): T | undefined {
    let oldest: T | undefined;
    for (const queue of this.#queues.values()) {
      const eldest = queue.oldest(); // drops those in front that are not idle
      const entry = eldest === undefined || passes === undefined || passes(eldest) ? eldest : first(queue, passes);
      if (entry !== undefined && (oldest === undefined || entry.releaseSeq < oldest.releaseSeq)) oldest = entry;
    }
    return oldest;
  }

  /** Nothing expires any more. */
  stop(): void {
    for (const queue of this.#queues.values()) this.#timers.disarm(queue);
  }
}

/** To five significant bits: a sixteenth later at most, which an expiration may be. */
function roundUp(ms: number): number {
  if (ms === Number.POSITIVE_INFINITY || ms === 0) return ms;
  const unit = 2 ** (Math.floor(Math.log2(ms)) - 4);
  return Math.ceil(ms / unit) * unit;
}

function first<T>(entries: Iterable<T>, passes: (entry: T) => boolean): T | undefined {
  for (const entry of entries) if (passes(entry)) return entry;
  return undefined;
}

/** A conn that waits for its replacement, or for its turn to have one, is closed without one after this. */
const replacementMs = 1000;

/** How old conns may grow, and what comes in the place of those that have. */
export class Lifetimes<K, C extends PoolConn> {
  readonly #timers: Timers;
  readonly #core: Core<K, C>;

  constructor(timers: Timers, core: Core<K, C>) {
    this.#timers = timers;
    this.#core = core;
  }

  /** How long `entry` has to live as one of `key`'s, jitter taken off; infinite: for ever. */
  remainingMs(entry: Entry<K, C>, { rules }: KeyPool<K, C>): number {
    const lifeMs = entry.maxLifetimeMs ?? rules.maxLifetimeMs;
    const cutAt = entry.someExtras?.cutAt ?? Number.POSITIVE_INFINITY;
    const isLimited = lifeMs > 0 && lifeMs < Number.POSITIVE_INFINITY;
    if (!isLimited && cutAt === Number.POSITIVE_INFINITY) return cutAt;
    const now = this.#timers.now();
    if (!isLimited) return cutAt - now;
    const { extras } = entry;
    extras.jitter ??= Math.random(); // once: who asks twice gets one answer
    const endsAt = entry.openedAt + lifeMs * (1 - extras.jitter * rules.lifetimeJitter);
    return Math.min(endsAt, cutAt) - now;
  }

  /** Its lifetime ends in `ms`, if it would not end sooner. */
  shorten(entry: Entry<K, C>, ms: number): void {
    entry.extras.cutAt = this.#timers.now() + ms;
    this.rearm(entry);
  }

  /** Its time runs, by the rules of its key; or no more, if it has left. */
  rearm(entry: Entry<K, C>): void {
    const left = entry.isOpen ? this.remainingMs(entry, entry.key) : Number.POSITIVE_INFINITY;
    const { lifetime: known, isOutlived, awaitsTurn } = entry.someExtras ?? {};
    if (isOutlived || awaitsTurn) {
      if (left <= 0) return; // it is being replaced, or waits for that
      entry.extras.isOutlived = false;
      entry.extras.awaitsTurn = false;
    }
    if (left < Number.POSITIVE_INFINITY && entry.isOpen)
      this.#extend(entry, left); // to ask may have closed it
    else if (known !== undefined) this.#timers.disarm(known);
  }

  #extend(entry: Entry<K, C>, ms: number): void {
    const { extras } = entry;
    extras.lifetime ??= timer(() => this.#core.enter(() => this.#outlived(entry)));
    this.#timers.arm(extras.lifetime, ms);
  }

  /**
   * The lifetime of a conn is over. One that was ever used goes when its replacement has come: nobody waits for a rotation. Where
   * the key is full, it goes first, and its replacement is dialed at once; of several, one after another.
   */
  #outlived(entry: Entry<K, C>): void {
    if (!entry.isReady) return;
    const isLate = entry.someExtras?.awaitsTurn === true;
    if (
      !isLate &&
      (this.#core.minIdle.beginReplacing(entry) || this.#beginReplacing(entry) || this.#awaitTurn(entry))
    ) {
      this.#extend(entry, replacementMs);
      this.#core.serve(entry.key);
    } else this.#replaceAfterwards(entry);
  }

  /** Nobody used it, or that has been done. */
  #needsNone({ uses, someExtras }: Entry<K, C>): boolean {
    return uses === 0 || someExtras?.isOutlived === true;
  }

  /** Dials a replacement, unless it needs none or a limit is against it. */
  #beginReplacing(entry: Entry<K, C>): boolean {
    const { key, extras } = entry;
    const { dial, dialer } = this.#core;
    if (dial === undefined || this.#needsNone(entry)) return false;
    extras.isOutlived = dialer.start(key, dial, true, entry);
    return extras.isOutlived;
  }

  /** There is no room for its replacement while another conn of the key is being replaced. */
  #awaitTurn(entry: Entry<K, C>): boolean {
    const { key, extras } = entry;
    if (this.#needsNone(entry) || this.#core.capacity.keyHasRoom(key)) return false;
    extras.awaitsTurn = [...key.pending.dials].some(({ replaces }) => replaces);
    return extras.awaitsTurn;
  }

  /** A conn that drains takes no place under `maxKeyConns`: its replacement has that. Who waits dials for himself. */
  #replaceAfterwards(entry: Entry<K, C>): void {
    const { key } = entry;
    const needsNone = this.#needsNone(entry);
    this.#core.serve(key, () => {
      const { entries, dial, dialer } = this.#core;
      entries.drain(entry, "retired");
      if (dial !== undefined && !needsNone && key.pending.wanting === 0) dialer.start(key, dial, true, entry);
    });
  }

  /** A conn of the key has been replaced: the next one may be. */
  replaced(key: KeyPool<K, C>): void {
    for (const entry of key.entries()) {
      if (!entry.isReady || !entry.someExtras?.awaitsTurn || this.#needsNone(entry)) continue;
      if (!this.#beginReplacing(entry)) this.#replaceAfterwards(entry);
      return;
    }
  }
}
