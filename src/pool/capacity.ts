import type { CloseReason, PoolConn } from "../contract.ts";
import { Heap } from "../runtime/heap.ts";
import { unlimited } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";
import type { Pending } from "./pending.ts";

/** Streams that may end inside one key while another stands in line. */
const fairHandOffs = 16;

/**
 * All limits: how many conns may be open or dialed, how many idle ones are kept, and which conn goes where one is too
 * many. Keys that only `maxConns` holds back stand in a line, by the age of their oldest waiters.
 */
export class Capacity<K, C extends PoolConn> {
  readonly #core: Core<K, C>;
  readonly #line = new Heap<Pending<K, C>>();
  /** Keys that `maxDials` alone held back when they were last looked at, in turn. */
  readonly #dialLine = new Set<KeyPool<K, C>>();
  /** Streams that have ended, anywhere, since a conn that makes way for another key last came closer to its end. */
  #releasesWithoutProgress = 0;

  constructor(core: Core<K, C>) {
    this.#core = core;
  }

  // Conns that are open or dialed.

  /** Whether the key's own limits allow it one more conn. */
  keyHasRoom(key: KeyPool<K, C>): boolean {
    return key.usable + key.pending.dials.size < key.rules.maxKeyConns;
  }

  /** Whether `maxConns` allows one more. A conn that is being closed counts until its socket is gone. */
  get hasRoom(): boolean {
    const { entries, dialer, keys } = this.#core;
    return entries.open + entries.closing + dialer.inFlight < keys.rules.maxConns;
  }

  /** Whether `maxDials` allows one more. */
  get #hasRoomToDial(): boolean {
    return this.#core.dialer.inFlight < this.#core.keys.rules.maxDials;
  }

  /** Whether the key's own limits on dials allow it one more: one at a time while it fails. */
  #keyMayDial({ pending, rules }: KeyPool<K, C>): boolean {
    return pending.dials.size < (pending.backoff === undefined ? rules.maxKeyDials : Math.min(rules.maxKeyDials, 1));
  }

  /** Whether a conn may be dialed that nobody waits for: it evicts none and passes nobody. */
  mayPrepare(key: KeyPool<K, C>): boolean {
    if (this.#core.backoffs.isPaused(key) || !this.#keyMayDial(key) || !this.keyHasRoom(key)) return false;
    return this.#hasRoomToDial && this.#line.size === 0 && this.hasRoom;
  }

  /** Whether a conn may be dialed for a waiter. If `maxConns` alone is against it, the key stands in line from now on. */
  mayDial(key: KeyPool<K, C>): boolean {
    const { pending } = key;
    this.#dialLine.delete(key); // it has its turn
    if (!this.#keyMayDial(key) || !this.keyHasRoom(key)) {
      this.leaveLine(key);
      return false;
    }
    if (!this.#hasRoomToDial) {
      this.#dialLine.add(key);
      return false;
    }
    if (this.#core.keys.rules.maxConns === unlimited) return true;
    const turn = pending.turn ?? pending.waiters.head?.seq ?? this.#core.queue.nextSeq();
    const { next } = this;
    const isFirst = next === undefined || next === key || (next.pending.turn ?? turn) >= turn;
    if (isFirst && this.hasRoom) return true;
    const own = key.ownPending();
    own.turn = turn;
    if (own.index < 0) {
      own.rank = turn;
      this.#line.add(own);
    }
    if (isFirst) this.#evictFor(key);
    return false;
  }

  /** The key is not held back by `maxConns` or `maxDials` alone any more. */
  leaveLine(key: KeyPool<K, C>): void {
    this.#dialLine.delete(key);
    const { pending } = key;
    if (pending.turn === undefined) return;
    this.#line.remove(pending);
    pending.turn = undefined;
  }

  /** No key stands in line. */
  get lineIsEmpty(): boolean {
    return this.#line.size === 0 && this.#dialLine.size === 0;
  }

  /** The first in line for which there is a place: where only its own conns are idle, the second may have one. */
  get next(): KeyPool<K, C> | undefined {
    if (this.lineIsEmpty || !this.#hasRoomToDial) return undefined;
    for (const key of this.#dialLine) return key;
    const { first, second } = this.#line;
    if (first === undefined || this.#hasPlaceFor(first)) return first?.key;
    return second !== undefined && this.#hasPlaceFor(second) ? second.key : undefined;
  }

  /**
   * Whether `entry`, where a stream has just ended, must make way for another key. A busy key would keep its conns for
   * ever: after so many streams it gives one up, and goes behind.
   */
  mustYield(entry: Entry<K, C>): boolean {
    if (this.#line.size === 0) return false;
    const { key } = entry;
    const { first, second } = this.#line;
    this.#releasesWithoutProgress++;
    const another = first === key.pending ? second : first;
    if (another === undefined || ++key.streamsSinceYield <= fairHandOffs) return false;
    // As many conns are draining already as keys wait: a busy conn need not go too, unless those come no closer to their end.
    const enough = this.#core.entries.yielding >= this.#line.size && this.#releasesWithoutProgress <= fairHandOffs;
    if (entry.streams > 0 && enough) return false;
    this.#releasesWithoutProgress = 0;
    key.streamsSinceYield = 0;
    this.leaveLine(key);
    key.ownPending().turn = this.#core.queue.nextSeq();
    return true;
  }

  /** A stream has ended on a conn that makes way for another key. */
  yieldsProgress(): void {
    this.#releasesWithoutProgress = 0;
  }

  /** Makes room for a conn that is put into `key`: a conn in the hand is worth a dial in flight; else an idle one goes. */
  makeRoomForPut(key: KeyPool<K, C>): void {
    while (!this.hasRoomForPut(key)) {
      const newest = key.pending.dials.tail;
      if (newest !== undefined) {
        this.#core.dialer.abandon(newest, "a conn was put in instead");
        continue;
      }
      const before = this.#usedForPut;
      const oldest = this.keyHasRoom(key) ? this.#core.idleOrder.oldest() : this.#core.selector.oldestIdle(key);
      if (oldest === undefined) return;
      this.#core.entries.drain(oldest, "evicted");
      if (this.#usedForPut >= before) return; // another stood in line for the place
    }
  }

  /** Whether the limits allow a conn that is there already. One that is being closed does not count: no other is dialed for it. */
  hasRoomForPut(key: KeyPool<K, C>): boolean {
    return this.keyHasRoom(key) && this.#usedForPut < this.#core.keys.rules.maxConns;
  }

  get #usedForPut(): number {
    return this.#core.entries.open + this.#core.dialer.inFlight;
  }

  /** Evicts an idle conn of another key, the oldest, unless a place is on its way for each key in line. */
  #evictFor(key: KeyPool<K, C>): void {
    const victim = this.#lacksPlaces ? this.#victimFor(key) : undefined;
    if (victim !== undefined) this.#core.entries.drain(victim, "evicted");
  }

  get #lacksPlaces(): boolean {
    return !this.hasRoom && this.#core.entries.closing < this.#line.size;
  }

  #hasPlaceFor({ key }: Pending<K, C>): boolean {
    return this.hasRoom || (this.#lacksPlaces && this.#victimFor(key) !== undefined);
  }

  #victimFor(key: KeyPool<K, C> | undefined): Entry<K, C> | undefined {
    return this.#core.idleOrder.oldest((entry) => entry.key !== key);
  }

  // Conns that are kept idle.

  /** Sees to the order that the key's idle conns stand in. It costs a little, so it is kept only where something asks for it. */
  order(key: KeyPool<K, C>): void {
    const { capacity, maxConns } = this.#core.keys.rules;
    const { expirationMs, keyCapacity } = key.rules;
    const isOrdered = capacity < unlimited || maxConns < unlimited || expirationMs < Number.POSITIVE_INFINITY;
    const before = key.idleQueue;
    const queue = isOrdered ? this.#core.idleOrder.join(expirationMs) : undefined;
    if (before !== undefined) this.#core.idleOrder.leave(before);
    key.isBounded = isOrdered || keyCapacity < unlimited;
    if (queue === before) return;
    for (const entry of key.entries()) before?.forget(entry);
    key.idleQueue = queue;
  }

  /** The key is gone. */
  disorder(key: KeyPool<K, C>): void {
    if (key.idleQueue !== undefined) this.#core.idleOrder.leave(key.idleQueue);
    key.idleQueue = undefined;
  }

  /** Once its waiters have been served: a conn still idle takes its place in the order, and the caps are kept. */
  settle(entry: Entry<K, C>): void {
    const { key } = entry;
    if (!key.isBounded || !entry.isIdle) return;
    key.idleQueue?.touch(entry);
    if (key.idleCount > key.rules.keyCapacity || this.#core.entries.idle > this.#core.keys.rules.capacity)
      this.trim(key, "evicted");
    if (!this.#core.minIdle.isUnused) this.#core.minIdle.becameIdle();
  }

  /** Closes what is over the caps: the key's oldest first, then the oldest of all. */
  trim(key: KeyPool<K, C>, reason: CloseReason): void {
    while (key.idleCount > key.rules.keyCapacity) {
      const oldest = this.#core.selector.oldestIdle(key);
      if (oldest === undefined) return;
      this.#core.entries.drain(oldest, reason);
    }
    while (this.#core.entries.idle > this.#core.keys.rules.capacity) {
      const oldest = this.#core.idleOrder.oldest();
      if (oldest === undefined) return;
      this.#core.entries.drain(oldest, reason);
    }
  }
}
