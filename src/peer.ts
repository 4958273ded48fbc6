import type { PooledConn } from "./conn.ts";
import type { CloseReason, PoolConn } from "./contract.ts";
import type { Dialing } from "./dialing.ts";
import type { DialError } from "./errors.ts";
import type { Lane } from "./idle.ts";
import type { KeyRules } from "./limits.ts";
import { type Linked, List } from "./list.ts";
import type { ConnInfo, Filter } from "./options.ts";
import type { Task } from "./schedule.ts";
import { Tally } from "./stats.ts";
import type { Waiter } from "./waiter.ts";

export type Member<K, C extends PoolConn> = PooledConn<C, Peer<K, C>>;
export type PeerDialing<K, C extends PoolConn> = Dialing<Peer<K, C>>;
export type PeerWaiter<K, C extends PoolConn> = Waiter<K, C, Member<K, C>, Peer<K, C>>;

/** What a peer reports when it meets a conn that cannot be handed out. */
export interface PeerOwner<K, C extends PoolConn> {
  end(conn: Member<K, C>, reason: CloseReason): void;
  block(conn: Member<K, C>, until: PromiseLike<unknown>): void;
}

/** Conns without `onChange` whose slots are read again when nothing has room; bounded, so that a miss stays O(1). */
const rereads = 8;

/** All that the pool knows about one key. It lives while the key has a conn, a dial, a waiter or a running backoff. */
export class Peer<K, C extends PoolConn> implements Linked<Peer<K, C>> {
  prev: Peer<K, C> | undefined = undefined;
  next: Peer<K, C> | undefined = undefined;
  list: object | undefined = undefined;

  readonly key: K;
  readonly hash: unknown;
  rules: KeyRules;
  /** The order of idle conns that this key's belong to, where a total order is asked for. */
  lane: Lane<Member<K, C>> | undefined = undefined;
  /** False: forgotten by the pool; who holds it looks the key up again. */
  alive = true;

  /** Free, no stream: the one longest idle first. */
  readonly idle: List<Member<K, C>> = new List();
  /** Free, with streams: the one longest with room first. */
  readonly roomy: List<Member<K, C>> = new List();
  /** Full, blocked or draining. */
  readonly rest: List<Member<K, C>> = new List();
  /** Idle conns, blocked ones among them. */
  idleCount = 0;
  blockedCount = 0;
  drainingCount = 0;

  readonly waiters: List<PeerWaiter<K, C>> = new List();
  /** Of the waiters, those that are worth a dial. */
  wanting = 0;
  /** In flight, oldest first. */
  readonly dials: List<PeerDialing<K, C>> = new List();
  /** Slots of the key's last conn; undefined: nothing is known yet. */
  lastSlots: number | undefined = undefined;
  /** When the oldest dial in flight began, and how long there have been dials in flight before that. */
  dialingSince = 0;
  dialedMs = 0;
  /** Streams ended here while another key waited for a place. */
  handOffs = 0;
  /** Its place among the keys that `maxConns` holds back: the lowest goes first. */
  turn: number | undefined = undefined;
  /** Failed dials in a row, and the last of them. */
  failures = 0;
  lastError: DialError | undefined = undefined;
  /** While it is scheduled, nothing is dialed. */
  pause: Task | undefined = undefined;
  /** Its waiters are being served in batches: what is free is theirs. */
  batching = false;
  readonly tally: Tally = new Tally();
  readonly since: number;
  /** Slots that the dials in flight will bring, and dials of which nothing is known. */
  #promised = 0;
  #unknown = 0;
  readonly #owner: PeerOwner<K, C>;
  readonly #newest: boolean;

  constructor(key: K, hash: unknown, rules: KeyRules, newest: boolean, since: number, owner: PeerOwner<K, C>) {
    this.key = key;
    this.hash = hash;
    this.rules = rules;
    this.#newest = newest;
    this.since = since;
    this.#owner = owner;
  }

  /** Open conns, draining ones included. */
  get open(): number {
    return this.idle.size + this.roomy.size + this.rest.size;
  }

  /** Nothing is left of it. */
  get empty(): boolean {
    return this.open === 0 && this.dials.size === 0 && this.waiters.size === 0 && this.pause === undefined;
  }

  /** Slots now, read anew each time: a peer may raise or lower its limit at any moment. */
  slots(conn: Member<K, C>): number {
    return Math.min(conn.conn.maxStreams ?? 1, this.rules.maxStreams);
  }

  /** Puts `conn` into the list that its state asks for. */
  place(conn: Member<K, C>): void {
    const free = conn.ready && !conn.blocked && conn.streams < this.slots(conn);
    const list = !free ? this.rest : conn.streams === 0 ? this.idle : this.roomy;
    if (list.has(conn)) return;
    this.unlist(conn);
    if (list === this.idle) this.#pushIdle(conn);
    else list.push(conn);
  }

  unlist(conn: Member<K, C>): void {
    if (this.idle.has(conn)) this.idle.remove(conn);
    else if (this.roomy.has(conn)) this.roomy.remove(conn);
    else if (this.rest.has(conn)) this.rest.remove(conn);
  }

  /** A conn that was blocked goes back to the place that its give-back earned. */
  #pushIdle(conn: Member<K, C>): void {
    const { tail } = this.idle;
    if (tail === undefined || tail.givenBack <= conn.givenBack) {
      this.idle.push(conn);
      return;
    }
    let next = this.idle.head;
    while (next !== undefined && next.givenBack < conn.givenBack) next = next.next;
    if (next === undefined) this.idle.push(conn);
    else this.idle.insert(conn, next);
  }

  /** The conn to use next; the caller leases it before anything else happens. */
  pick(filter: Filter<C> | undefined, now: () => number, reread = true): Member<K, C> | undefined {
    if (filter !== undefined) return this.#search(filter, now);
    for (;;) {
      const conn = this.#newest ? (this.roomy.tail ?? this.idle.tail) : (this.roomy.head ?? this.idle.head);
      if (conn === undefined) {
        if (!reread || this.rest.size === 0 || !this.#reread()) return undefined;
      } else if (this.#free(conn)) return conn;
    }
  }

  /** The same, but for a conn that runs no stream. */
  pickIdle(): Member<K, C> | undefined {
    for (let conn = this.idle.head; conn !== undefined; conn = this.idle.head) if (this.#free(conn)) return conn;
    return undefined;
  }

  /** Filters may change anything, so a copy is walked, and each conn is looked at again after its filter. */
  #search(filter: Filter<C>, now: () => number): Member<K, C> | undefined {
    const candidates = [...this.roomy, ...this.idle];
    if (this.#newest) candidates.reverse();
    for (const conn of candidates) {
      if (this.#listed(conn) && this.passes(conn, filter, now) && this.#listed(conn) && this.#free(conn)) return conn;
    }
    return undefined;
  }

  passes(conn: Member<K, C>, filter: Filter<C>, now: () => number): boolean {
    try {
      return filter(conn.conn, this.info(conn, now())) === true;
    } catch {
      return false;
    }
  }

  #listed(conn: Member<K, C>): boolean {
    return this.roomy.has(conn) || this.idle.has(conn);
  }

  /** Asks a listed conn whether it may be used now. One that may not leaves the list. */
  #free(conn: Member<K, C>): boolean {
    try {
      if (conn.conn.draining === true) {
        this.#owner.end(conn, "goaway");
        return false;
      }
      // A conn just dialed is free: only after its first stream is it asked.
      if (conn.uses > conn.streams && conn.conn.unblocked !== undefined) {
        const until = conn.conn.unblocked();
        if (until !== undefined) {
          this.#owner.block(conn, until);
          return false;
        }
        if (!this.#listed(conn)) return false;
      }
    } catch {
      this.#owner.end(conn, "blocked");
      return false;
    }
    if (conn.streams < this.slots(conn)) return true;
    this.place(conn);
    return false;
  }

  /** Looks for slots that a conn without `onChange` has gained. */
  #reread(): boolean {
    for (let left = Math.min(rereads, this.rest.size); left > 0; left--) {
      const conn = this.rest.head;
      if (conn === undefined) return false;
      if (conn.conn.onChange === undefined && conn.conn.maxStreams !== undefined) {
        this.place(conn);
        if (this.#listed(conn)) return true;
      }
      this.rest.remove(conn);
      this.rest.push(conn);
    }
    return false;
  }

  /** The idle conn that was given back first, blocked ones included. */
  oldestIdle(): Member<K, C> | undefined {
    let oldest = this.idle.head;
    if (this.idleCount > this.idle.size) {
      for (const conn of this.rest) {
        if (conn.idle && (oldest === undefined || conn.givenBack < oldest.givenBack)) oldest = conn;
      }
    }
    return oldest;
  }

  /** A copy: what is done to one conn may close others. */
  conns(): Member<K, C>[] {
    return [...this.idle, ...this.roomy, ...this.rest];
  }

  info(conn: Member<K, C>, now: number): ConnInfo {
    return conn.info(now, this.slots(conn));
  }

  /** What is known of the slots of a conn that `announced` comes with; infinite: nothing. At least 1. */
  expectedSlots(announced: number | undefined): number {
    const { maxStreams } = this.rules;
    const known = announced ?? this.lastSlots ?? (maxStreams === 1 ? 1 : Number.POSITIVE_INFINITY);
    // Not a number: 1. One that came into the sums would stay there.
    return Math.max(Math.min(known, known === Number.POSITIVE_INFINITY ? known : maxStreams), 1) || 1;
  }

  /** A conn came: so many slots are what the next one is expected to have. */
  learn(conn: Member<K, C>): void {
    const first = this.lastSlots === undefined;
    this.lastSlots = this.slots(conn);
    if (!first || this.#unknown === 0) return;
    for (const dial of this.dials) {
      if (dial.slots !== Number.POSITIVE_INFINITY) continue;
      dial.slots = this.expectedSlots(undefined);
      this.#unknown--;
      this.#promised += dial.slots;
    }
  }

  /** The waiters that `dialing` will serve, where older dials will serve so many `ahead`. */
  waitersFor(dialing: PeerDialing<K, C>, ahead: number): PeerWaiter<K, C>[] {
    if (dialing.slots === Number.POSITIVE_INFINITY) return [...this.waiters];
    const waiters: PeerWaiter<K, C>[] = [];
    let skip = ahead;
    for (let waiter = this.waiters.head; waiter !== undefined && waiters.length < dialing.slots; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) waiters.push(waiter);
    }
    return waiters;
  }

  /** The oldest waiter that no dial in flight will serve. */
  nextToDial(): PeerWaiter<K, C> | undefined {
    let skip = this.promised();
    if (skip === this.wanting - 1 && this.waiters.tail?.wantsDial) return this.waiters.tail;
    let waiter = this.waiters.head;
    for (; waiter !== undefined; waiter = waiter.next) if (waiter.wantsDial && skip-- <= 0) return waiter;
    return undefined;
  }

  /** How long there have been dials in flight, so far. */
  dialedFor(now: number): number {
    return this.dialedMs + (this.dials.size === 0 ? 0 : now - this.dialingSince);
  }

  addDial(dial: PeerDialing<K, C>): void {
    this.dials.push(dial);
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown++;
    else this.#promised += dial.slots;
  }

  removeDial(dial: PeerDialing<K, C>): void {
    this.dials.remove(dial);
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown--;
    else this.#promised -= dial.slots;
  }

  /** Waiters that the dials in flight will serve, `except` one of them. */
  promised(except?: PeerDialing<K, C>): number {
    const unknown = except?.slots === Number.POSITIVE_INFINITY ? 1 : 0;
    if (this.#unknown > unknown) return Number.POSITIVE_INFINITY;
    return this.#promised - (except === undefined || unknown === 1 ? 0 : except.slots);
  }
}
