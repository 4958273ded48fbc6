import type { PoolConn } from "../contract.ts";
import type { ShelfOwner } from "./choice.ts";
import type { KeyRules } from "./config.ts";
import type { Dialing } from "./dialing.ts";
import type { PooledConn } from "./entry.ts";
import type { Lane } from "./expiry.ts";
import { Demand } from "./pending.ts";
import { Shelf } from "./shelf.ts";
import { Tally } from "./stats.ts";
import type { Waiter } from "./waiter.ts";

export type Member<K, C extends PoolConn> = PooledConn<C, Peer<K, C>>;
export type PeerDialing<K, C extends PoolConn> = Dialing<Peer<K, C>>;
export type PeerWaiter<K, C extends PoolConn> = Waiter<K, C, Member<K, C>, Peer<K, C>>;
export type PeerDemand<K, C extends PoolConn> = Demand<K, C, Member<K, C>, Peer<K, C>>;

/** What is the same for all keys of a pool. */
export interface PeerOwner<K, C extends PoolConn> extends ShelfOwner<C, Member<K, C>> {
  /** Of all keys that rest. */
  readonly rest: PeerDemand<K, C>;
}

/** All that the pool knows about one key. It lives while the key has a conn, a dial, a waiter or a running backoff. */
export class Peer<K, C extends PoolConn> extends Shelf<C, Peer<K, C>> {
  readonly key: K;
  readonly hash: unknown;
  /** The order of idle conns that this key's belong to, where a total order is asked for. */
  lane: Lane<Member<K, C>> | undefined = undefined;
  /** A cap or an order asks for something when a conn becomes idle. */
  bounded = false;
  /** Something is to be done at each lease and give-back beside counting: `minIdle`, `maxUses`, validation, reset, latency, `ref`. */
  attended = false;
  /** False: forgotten by the pool; who holds it looks the key up again. */
  alive = true;
  /** To be read; `need` gives one that may be changed. */
  demand: PeerDemand<K, C>;
  /** Slots of the key's last conn; undefined: nothing is known yet. */
  lastSlots: number | undefined = undefined;
  /** Streams ended here while another key waited for a place. */
  handOffs = 0;
  /** Leases that found a conn with room at once. */
  hits = 0;
  /** What else has been counted; most keys count nothing else. */
  #tally: Tally | undefined = undefined;
  /** In whole milliseconds: a fraction would be an object of its own. */
  readonly since: number;
  declare protected readonly owner: PeerOwner<K, C>;

  constructor(key: K, hash: unknown, rules: KeyRules, since: number, owner: PeerOwner<K, C>) {
    super(rules, owner);
    this.key = key;
    this.hash = hash;
    this.since = Math.floor(since);
    this.demand = owner.rest;
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

  get resting(): boolean {
    return this.demand === this.owner.rest;
  }

  /** Its own record of what is asked of it. */
  need(): PeerDemand<K, C> {
    if (this.demand === this.owner.rest) this.demand = new Demand(this);
    return this.demand;
  }

  /** Forgets what is over. */
  calm(): void {
    if (this.demand !== this.owner.rest && this.demand.rests) this.demand = this.owner.rest;
  }

  /** Nothing is left of it. */
  get empty(): boolean {
    return this.open === 0 && this.demand.empty;
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
    if (first && !this.resting) this.demand.learn(this.expectedSlots(undefined));
  }
}
