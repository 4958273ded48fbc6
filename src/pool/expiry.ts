import { LRUCache } from "lru-cache";
import type { Schedule, Task } from "../runtime/timers.ts";

/** What the order of idle conns needs to know of one. */
export interface Idler {
  readonly idle: boolean;
  readonly givenBack: number;
  /** Both are the lane's. */
  stamp: number;
  late: number;
}

/** Ticks per expiration: an idle conn is closed at most one tick, a sixteenth of its time, too late. */
const ticksPerExpiration = 16;
/** Conns closed in one go; a million that expire together must not block the event loop. */
const expiryBatch = 500;
/** Give-backs that the order takes in at one go. */
const mostLate = 256;
/** An order that has grown over this is dropped when it is empty, so that its arrays go too. */
const worthDropping = 1000;

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
export class Lane<T extends Idler> implements Task {
  due = 0;
  place = -1;
  readonly expirationMs: number;
  readonly #schedule: Schedule;
  readonly #expire: (conn: T) => void;
  readonly #sentinel = {};
  #order: LRUCache<object, T | typeof Lane.sentinel> | undefined;
  #most = 0;
  /** Given back since the order was brought up to date; a conn knows its place. Holes: forgotten since. */
  #late: (T | undefined)[] = [];
  #tick = 0;
  /** When the ticks came that are not past their expiration yet. */
  #tickTimes: number[] = [];
  /** Conns stamped with an earlier tick have expired. */
  #expired = 0;

  static readonly sentinel: unique symbol = Symbol("sentinel");

  constructor(expirationMs: number, schedule: Schedule, expire: (conn: T) => void) {
    this.expirationMs = expirationMs;
    this.#schedule = schedule;
    this.#expire = expire;
  }

  /** `conn` has been given back: it is the youngest now. */
  touch(conn: T): void {
    conn.stamp = this.#tick;
    if (conn.late < 0) this.#note(conn);
  }

  #note(conn: T): void {
    conn.late = this.#late.length;
    this.#late.push(conn);
    if (this.#late.length >= mostLate) this.#takeIn();
    if (this.place < 0 && this.expirationMs !== Number.POSITIVE_INFINITY) this.#start();
  }

  /** Brings the order up to date. */
  #takeIn(): void {
    if (this.#late.length === 0) return;
    const late = this.#late.filter((conn) => conn !== undefined);
    this.#late = [];
    const order = this.#order ?? this.#begin();
    for (const conn of late.sort((a, b) => a.givenBack - b.givenBack)) {
      conn.late = -1;
      if (order.get(conn, lookup) === undefined) order.set(conn, conn);
    }
    if (order.size > this.#most) this.#most = order.size;
  }

  /** `conn` has been closed or taken. */
  forget(conn: T): void {
    conn.stamp = -1;
    if (conn.late >= 0) this.#late[conn.late] = undefined;
    conn.late = -1;
    this.#order?.delete(conn);
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
      if (first === Lane.sentinel) order.get(this.#sentinel, lookup);
      else if (first?.idle) return first;
      else if (first !== undefined) order.delete(first);
    }
    this.#empty();
    return undefined;
  }

  /** The idle conns, oldest first. */
  *[Symbol.iterator](): Generator<T, void, undefined> {
    this.#takeIn();
    for (const conn of this.#order?.rvalues() ?? []) {
      if (conn !== undefined && conn !== Lane.sentinel && conn.idle) yield conn;
    }
  }

  run(): void {
    this.#countTick();
    this.#schedule.add(this, this.expirationMs / ticksPerExpiration); // before others are called, who may touch it
    let budget = expiryBatch;
    let conn = this.oldest();
    for (; conn !== undefined && conn.stamp < this.#expired; conn = this.oldest()) {
      if (budget-- === 0) {
        this.#schedule.add(this, 0);
        return;
      }
      this.forget(conn);
      this.#expire(conn);
    }
  }

  #begin(): LRUCache<object, T | typeof Lane.sentinel> {
    const order = new LRUCache<object, T | typeof Lane.sentinel>(unbounded);
    order.set(this.#sentinel, Lane.sentinel);
    this.#order = order;
    this.#most = 0;
    return order;
  }

  #empty(): void {
    this.#schedule.cancel(this);
    this.#late = [];
    if (this.#order !== undefined && this.#most > worthDropping) this.#order = undefined;
  }

  /** The tick counts at once, so that a conn given back to an empty lane has its time to the millisecond. */
  #start(): void {
    this.#tickTimes = [];
    this.#expired = this.#tick;
    this.#countTick();
    this.#schedule.add(this, this.expirationMs / ticksPerExpiration);
  }

  #countTick(): void {
    const now = this.#schedule.clock.now();
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

/** All idle conns in the order of their give-back; a lane for each expiration in use. */
export class IdleOrder<T extends Idler> {
  readonly #schedule: Schedule;
  readonly #expire: (conn: T) => void;
  readonly #lanes = new Map<number, Lane<T>>();

  constructor(schedule: Schedule, expire: (conn: T) => void) {
    this.#schedule = schedule;
    this.#expire = expire;
  }

  lane(expirationMs: number): Lane<T> {
    let lane = this.#lanes.get(expirationMs);
    if (lane === undefined) {
      lane = new Lane(expirationMs, this.#schedule, this.#expire);
      this.#lanes.set(expirationMs, lane);
    }
    return lane;
  }

  /** The idle conn that was given back first, of those that pass. */
  oldest(passes?: (conn: T) => boolean): T | undefined {
    let oldest: T | undefined;
    for (const lane of this.#lanes.values()) {
      const eldest = lane.oldest(); // drops those in front that are not idle
      const conn = eldest === undefined || passes === undefined || passes(eldest) ? eldest : first(lane, passes);
      if (conn !== undefined && (oldest === undefined || conn.givenBack < oldest.givenBack)) oldest = conn;
    }
    return oldest;
  }

  /** Nothing expires any more. */
  stop(): void {
    for (const lane of this.#lanes.values()) this.#schedule.cancel(lane);
  }
}

function first<T>(conns: Iterable<T>, passes: (conn: T) => boolean): T | undefined {
  for (const conn of conns) if (passes(conn)) return conn;
  return undefined;
}
