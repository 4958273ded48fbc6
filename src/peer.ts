import type { ShelfOwner } from "./choice.ts";
import type { PooledConn } from "./conn.ts";
import type { PoolConn } from "./contract.ts";
import type { Dialing } from "./dialing.ts";
import type { DialError } from "./errors.ts";
import type { Lane } from "./idle.ts";
import type { KeyRules } from "./limits.ts";
import { type Linked, List } from "./list.ts";
import type { Task } from "./schedule.ts";
import { Shelf } from "./shelf.ts";
import { Tally } from "./stats.ts";
import type { Waiter } from "./waiter.ts";

export type Member<K, C extends PoolConn> = PooledConn<C, Peer<K, C>>;
export type PeerDialing<K, C extends PoolConn> = Dialing<Peer<K, C>>;
export type PeerWaiter<K, C extends PoolConn> = Waiter<K, C, Member<K, C>, Peer<K, C>>;

/** A waiter to dial for: how many before it the dials in flight will serve, and how many wanted one then. */
export interface DialFor<W> {
  readonly waiter: W;
  readonly ahead: number;
  readonly wanting: number;
}

/** All that the pool knows about one key. It lives while the key has a conn, a dial, a waiter or a running backoff. */
export class Peer<K, C extends PoolConn> extends Shelf<C, Peer<K, C>> implements Linked<Peer<K, C>> {
  prev: Peer<K, C> | undefined = undefined;
  next: Peer<K, C> | undefined = undefined;
  list: List<Peer<K, C>> | undefined = undefined;

  readonly key: K;
  readonly hash: unknown;
  /** What the pool's `limits` said of it when it appeared. */
  limits: Partial<KeyRules> | undefined = undefined;
  /** The order of idle conns that this key's belong to, where a total order is asked for. */
  lane: Lane<Member<K, C>> | undefined = undefined;
  /** A cap or an order asks for something when a conn becomes idle. */
  bounded = false;
  /** False: forgotten by the pool; who holds it looks the key up again. */
  alive = true;

  readonly waiters: List<PeerWaiter<K, C>> = new List();
  /** Of the waiters, those that are worth a dial. */
  wanting = 0;
  /** In flight, oldest first. */
  readonly dials: List<PeerDialing<K, C>> = new List();
  /** Of the dials, those for `minIdle` and `warm`. */
  preparing = 0;
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
  /** What its waiters hope for may have gone. */
  inDoubt = false;
  /** While it is scheduled, failed dials of before the last pause still count. */
  grudge: Task | undefined = undefined;
  /** Its waiters are being served in batches: what is free is theirs. */
  batching = false;
  /** Slots that conns which are being validated will have. */
  validating = 0;
  /** A conn of it can let the process go while it runs no stream. */
  holds = false;
  /** Something is to be done at each lease and give-back beside counting: `minIdle`, `maxUses`, validation, reset, latency. */
  attended = false;
  /** Leases that found a conn with room at once. */
  hits = 0;
  /** What else has been counted; most keys count no more than hits. */
  #tally: Tally | undefined = undefined;
  readonly since: number;
  /** Slots that the dials in flight will bring, and dials of which nothing is known. */
  #promised = 0;
  #unknown = 0;

  constructor(key: K, hash: unknown, rules: KeyRules, since: number, owner: ShelfOwner<C, Member<K, C>>) {
    super(rules, owner);
    this.key = key;
    this.hash = hash;
    this.since = since;
  }

  get tally(): Tally {
    this.#tally ??= new Tally();
    return this.#tally;
  }

  /** Adds what was counted to `sum`. */
  count(sum: Tally): void {
    sum.hits += this.hits;
    if (this.#tally !== undefined) sum.absorb(this.#tally);
  }

  /** Nothing is left of it. */
  get empty(): boolean {
    const { pause, grudge } = this;
    return this.open + this.dials.size + this.waiters.size === 0 && pause === undefined && grudge === undefined;
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
    const behind = this.wanting - ahead - dialing.slots;
    if (behind < ahead) {
      let after = 0;
      for (let waiter = this.waiters.tail; waiter !== undefined && after < this.wanting - ahead; waiter = waiter.prev) {
        if (waiter.wantsDial && after++ >= behind) waiters.push(waiter);
      }
      return waiters.reverse();
    }
    let skip = ahead;
    for (let waiter = this.waiters.head; waiter !== undefined && waiters.length < dialing.slots; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) waiters.push(waiter);
    }
    return waiters;
  }

  /** The oldest waiter that no dial in flight will serve. The `last` that it was spares the walk from the head. */
  nextToDial(last?: DialFor<PeerWaiter<K, C>>): DialFor<PeerWaiter<K, C>> | undefined {
    const { wanting } = this;
    const ahead = this.promised();
    const { tail } = this.waiters;
    if (ahead === wanting - 1 && tail?.wantsDial) return { waiter: tail, ahead, wanting };
    const goOn = last !== undefined && last.wanting === wanting && last.waiter.list !== undefined;
    let skip = goOn ? ahead - last.ahead : ahead;
    let waiter = goOn ? last.waiter : this.waiters.head;
    for (; waiter !== undefined; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) return { waiter, ahead, wanting };
    }
    return undefined;
  }

  /** How long there have been dials in flight, so far. */
  dialedFor(now: number): number {
    return this.dialedMs + (this.dials.size === 0 ? 0 : now - this.dialingSince);
  }

  addDial(dial: PeerDialing<K, C>): void {
    this.dials.push(dial);
    if (dial.background) this.preparing++;
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown++;
    else this.#promised += dial.slots;
  }

  removeDial(dial: PeerDialing<K, C>): void {
    this.dials.remove(dial);
    if (dial.background) this.preparing--;
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown--;
    else this.#promised -= dial.slots;
  }

  /** Waiters that the dials and validations in flight will serve, `except` one of the dials. */
  promised(except?: PeerDialing<K, C>): number {
    const unknown = except?.slots === Number.POSITIVE_INFINITY ? 1 : 0;
    if (this.#unknown > unknown) return Number.POSITIVE_INFINITY;
    return this.validating + this.#promised - (except === undefined || unknown === 1 ? 0 : except.slots);
  }
}
