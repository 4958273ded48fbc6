import type { CloseReason, PoolConn } from "../contract.ts";
import { Heap } from "../runtime/heap.ts";
import { type KeyRules, type Rules, unlimited } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";
import type { Pending } from "./pending.ts";

/** Streams that may end inside one key while another stands in line. */
const fairHandOffs = 16;

/** What is against a dial of a key. `"pace"`: it fails, and one is in flight already. */
export type DialObjection = "maxKeyDials" | "maxKeyConns" | "maxDials" | "maxConns" | "pace";

/** What will have happened when a dial is to begin. */
interface Prospects {
  /** Dials of the key that have to begin, that one included. */
  readonly more: number;
  /** Dials of those who stand in line before the key. */
  readonly ahead: number;
  /** Conns of the key that will leave as soon as they are looked at. */
  readonly going: number;
  /** Those of them that run no stream. */
  readonly gone: number;
}

const atOnce: Prospects = { more: 1, ahead: 0, going: 0, gone: 0 };

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

  // Conns that are open or dialed: what counts, and towards which question.

  /** Of the key: what it may use, and what is dialed for it. Those that drain are on their way out, those that are suspect may be. */
  ofKey(key: KeyPool<K, C>): number {
    return key.usable - key.suspectCount + key.pending.dials.size;
  }

  /** Of all keys: all that is open, draining or not, and all dials. */
  get #ofAll(): number {
    return this.#core.entries.open + this.#core.dialer.inFlight;
  }

  /** The same, and what was closed but has its socket still: what a new conn finds. */
  get ofAllAndClosing(): number {
    return this.#ofAll + this.#core.entries.closing;
  }

  /** Whether the key's own limits allow it one more conn. */
  keyHasRoom(key: KeyPool<K, C>, { maxKeyConns }: KeyRules = key.rules): boolean {
    return this.ofKey(key) < maxKeyConns;
  }

  /** Whether `maxConns` allows one more to be dialed. */
  get hasRoom(): boolean {
    return this.ofAllAndClosing < this.#core.keys.rules.maxConns;
  }

  /** Whether `maxConns` allows a conn that is there already. */
  get hasRoomForAnyPut(): boolean {
    return this.#ofAll < this.#core.keys.rules.maxConns;
  }

  /** Whether the limits allow a conn that is there already. Sockets that are still closing do not count: a put opens none. */
  hasRoomForPut(key: KeyPool<K, C>): boolean {
    return this.keyHasRoom(key) && this.hasRoomForAnyPut;
  }

  /** Whether a conn, in use or not, is one too many for the limits: those that drain are going already. */
  isOver({ key }: Entry<K, C>): boolean {
    const { open, draining } = this.#core.entries;
    return key.usable - key.suspectCount > key.rules.maxKeyConns || open - draining > this.#core.keys.rules.maxConns;
  }

  /** Whether a dial of the key is one too many for the limits. */
  isOverDials(key: KeyPool<K, C>): boolean {
    const { pending, rules } = key;
    const { maxConns, maxDials } = this.#core.keys.rules;
    const { entries, dialer } = this.#core;
    if (pending.dials.size > rules.maxKeyDials || this.ofKey(key) > rules.maxKeyConns) return true;
    return dialer.inFlight > Math.min(maxDials, maxConns - entries.open);
  }

  /** Whether `maxDials` allows one more. */
  get #hasRoomToDial(): boolean {
    return this.#core.dialer.inFlight < this.#core.keys.rules.maxDials;
  }

  /** What of the key itself is against so many more dials: a limit, or that it fails, since it is dialed one at a time then. */
  #keyObjection(key: KeyPool<K, C>, rules: KeyRules, { more, going } = atOnce): DialObjection | undefined {
    const { dials, backoff } = key.pending;
    if (dials.size + more > rules.maxKeyDials) return "maxKeyDials";
    if (backoff !== undefined && dials.size + more > 1) return "pace";
    return this.ofKey(key) - going + more > rules.maxKeyConns ? "maxKeyConns" : undefined;
  }

  /**
   * What is against so many more dials of the key; the first of all. It changes nothing, so that it can be asked under
   * other limits than those in force.
   */
  objection(key: KeyPool<K, C>, own: KeyRules, all: Rules, at: Prospects = atOnce): DialObjection | undefined {
    const { more, ahead, gone } = at;
    const ofKey = this.#keyObjection(key, own, at);
    if (ofKey !== undefined) return ofKey;
    if (this.#core.dialer.inFlight + ahead + more > all.maxDials) return "maxDials";
    if (all.maxConns === unlimited) return undefined;
    const hasTurn = all !== this.#core.keys.rules || this.isFirst(key);
    return hasTurn && this.ofAllAndClosing - gone + ahead + more <= all.maxConns ? undefined : "maxConns";
  }

  /** Whether no other key is to have a place before it. */
  isFirst(key: KeyPool<K, C>): boolean {
    const { next } = this;
    if (next === undefined || next === key) return true;
    const turn = this.turnOf(key);
    return (next.pending.turn ?? turn) >= turn;
  }

  /** The number by which the key stands in line, or would: that of its oldest waiter, unless it has had a place. */
  turnOf({ pending }: KeyPool<K, C>): number {
    return pending.turn ?? pending.waiters.head?.seq ?? this.#core.queue.lastSeq + 1;
  }

  /** Whether an idle conn of another key would make way, if the key stood in line for a place under `maxConns`. */
  wouldEvictFor(key: KeyPool<K, C>): boolean {
    if (key.pending.turn !== undefined || !this.isFirst(key)) return false;
    return this.#core.entries.closing <= this.#line.size && this.#victimFor(key) !== undefined;
  }

  /** Places that are on their way to the key: of a conn that has been evicted for it, and is being closed. */
  placesComing(key: KeyPool<K, C>): number {
    return this.#line.first === key.pending && this.#core.entries.closing > 0 ? 1 : 0;
  }

  /** Whether a conn may be dialed that nobody waits for: it evicts none and passes nobody. */
  mayPrepare(key: KeyPool<K, C>): boolean {
    if (this.#core.backoffs.isPaused(key) || this.#keyObjection(key, key.rules) !== undefined) return false;
    return this.#hasRoomToDial && this.#line.size === 0 && this.hasRoom;
  }

  /** Whether a conn may be dialed for a waiter. If `maxConns` alone is against it, the key stands in line from now on. */
  claimDial(key: KeyPool<K, C>): boolean {
    const objection =
      this.objection(key, key.rules, this.#core.keys.rules) ?? (this.#passesOthers(key) ? "maxDials" : undefined);
    switch (objection) {
      case undefined:
        return true;
      case "maxConns":
        this.#dialLine.delete(key);
        this.#standInLine(key);
        return false;
      case "maxDials":
        this.#dialLine.add(key); // where it stands in line already, it keeps its turn
        return false;
      default:
        this.leaveLine(key);
        return false;
    }
  }

  /** Whether a dial of the key now would take the turn of another, which `maxDials` has held back for longer. */
  #passesOthers(key: KeyPool<K, C>): boolean {
    let room = this.#core.keys.rules.maxDials - this.#core.dialer.inFlight;
    for (const other of this.#dialLine) {
      if (other === key) return false;
      if (--room <= 0) return true;
    }
    return false;
  }

  #standInLine(key: KeyPool<K, C>): void {
    const isFirst = this.isFirst(key);
    const turn = this.turnOf(key);
    const own = key.ownPending();
    own.turn = turn;
    if (own.index < 0) {
      own.rank = turn;
      this.#line.add(own);
    }
    if (isFirst) this.#evictFor(key);
  }

  /** The key is not held back by `maxConns` or `maxDials` alone any more. */
  leaveLine(key: KeyPool<K, C>): void {
    this.#dialLine.delete(key);
    const { pending } = key;
    if (pending.turn === undefined) return;
    this.#line.remove(pending);
    pending.turn = undefined;
  }

  /** Other keys that stand in line for a place under `maxConns`. */
  othersInLine({ pending }: KeyPool<K, C>): number {
    return this.#line.size - (pending.turn === undefined ? 0 : 1);
  }

  /** Other keys that stand in line, for a place or for a dial, before this one. Walks all keys. */
  keysAhead(key: KeyPool<K, C>): KeyPool<K, C>[] {
    if (this.lineIsEmpty) return [];
    const turn = this.turnOf(key);
    const isAhead = (other: KeyPool<K, C>) => (other.pending.turn ?? turn) < turn || this.#dialLine.has(other);
    return [...this.#core.keys].filter((other) => other !== key && isAhead(other));
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
  yieldsPlace(entry: Entry<K, C>): boolean {
    if (this.#line.size === 0) return false;
    const { key } = entry;
    const { first, second } = this.#line;
    this.#releasesWithoutProgress++;
    const another = first === key.pending ? second : first;
    if (another === undefined || ++key.extras.streamsSinceYield <= fairHandOffs) return false;
    // As many conns are draining already as keys wait: a busy conn need not go too, unless those come no closer to their end.
    const enough = this.#core.entries.yielding >= this.#line.size && this.#releasesWithoutProgress <= fairHandOffs;
    if (entry.streams > 0 && enough) return false;
    this.#releasesWithoutProgress = 0;
    key.extras.streamsSinceYield = 0;
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
      const before = this.#ofAll;
      const oldest = this.keyHasRoom(key) ? this.#core.idleOrder.oldest() : this.#core.selector.oldestIdle(key);
      if (oldest === undefined) return;
      this.#core.entries.drain(oldest, "evicted");
      if (this.#ofAll >= before) return; // another stood in line for the place
    }
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
    const { expirationMs } = key.rules;
    const isOrdered = capacity < unlimited || maxConns < unlimited || expirationMs < Number.POSITIVE_INFINITY;
    const before = key.idleQueue;
    const queue = isOrdered ? this.#core.idleOrder.join(expirationMs) : undefined;
    if (before !== undefined) this.#core.idleOrder.leave(before);
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
  becameIdle(entry: Entry<K, C>): void {
    const { idleQueue, rules } = entry.key;
    if (idleQueue === undefined && rules.keyCapacity === unlimited) return; // no cap, no order
    if (entry.isIdle) this.keepCaps(entry);
  }

  private keepCaps(entry: Entry<K, C>): void {
    const { key } = entry;
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
