import type { PoolConn } from "../contract.ts";
import { List } from "../runtime/list.ts";
import { unlimited } from "./config.ts";
import type { Dialer } from "./dialer.ts";
import type { Roster } from "./entries.ts";
import type { Member, Peer, PeerDemand } from "./key-pool.ts";
import type { Queue } from "./wait-queue.ts";

/** Streams that may end inside one key while another stands in line. */
const fairHandOffs = 16;

/** The places for open conns that the limits allow, and the line of the keys that only `maxConns` holds back. */
export class Places<K, C extends PoolConn> {
  readonly #roster: Roster<K, C>;
  readonly #dialer: Dialer<K, C>;
  readonly #queue: Queue<K, C>;
  /** By turn: the number of a key's oldest waiter when it joined. */
  readonly #line: List<PeerDemand<K, C>> = new List();

  constructor(roster: Roster<K, C>, dialer: Dialer<K, C>, queue: Queue<K, C>) {
    this.#roster = roster;
    this.#dialer = dialer;
    this.#queue = queue;
  }

  /** Whether its own limits allow the key one more conn. */
  keyHasRoom(peer: Peer<K, C>): boolean {
    return peer.open - peer.drainingCount + peer.demand.dials.size < peer.rules.maxKeyConns;
  }

  get free(): boolean {
    return this.#roster.census.open + this.#dialer.count < this.#roster.rules.maxConns;
  }

  /** Whether a conn may be dialed that nobody waits for: it evicts none and passes nobody. */
  mayPrepare(peer: Peer<K, C>): boolean {
    const { pause, dials } = peer.demand;
    return (
      pause === undefined &&
      dials.size < peer.rules.maxKeyDials &&
      this.keyHasRoom(peer) &&
      this.#line.size === 0 &&
      this.free
    );
  }

  /** Whether a conn may be dialed for a waiter. If `maxConns` alone is against it, the key stands in line. */
  mayDial(peer: Peer<K, C>): boolean {
    const { demand, rules } = peer;
    if (demand.dials.size >= rules.maxKeyDials || !this.keyHasRoom(peer)) return false;
    if (this.#roster.rules.maxConns === unlimited) return true;
    const turn = demand.turn ?? demand.waiters.head?.number ?? this.#queue.next();
    if ((this.next?.demand.turn ?? turn) >= turn && this.#clear(peer)) return true;
    this.#join(peer.need(), turn);
    return false;
  }

  /** It is about to ask again. */
  leave(peer: Peer<K, C>): void {
    if (this.#line.has(peer.demand)) this.#line.remove(peer.demand);
  }

  /** It stands in line no more, if it does not now. */
  settle(peer: Peer<K, C>): void {
    if (peer.demand.turn !== undefined && !this.#line.has(peer.demand)) peer.demand.turn = undefined;
  }

  /** No key stands in line. */
  get quiet(): boolean {
    return this.#line.head === undefined;
  }

  /** The first in line for which there is a place: where only its own conns are idle, the second may have one. */
  get next(): Peer<K, C> | undefined {
    const { head } = this.#line;
    if (head === undefined || this.#hasPlace(head)) return head?.home;
    const { next } = head;
    return next !== undefined && this.#hasPlace(next) ? next.home : undefined;
  }

  /**
   * Whether `conn`, where a stream has just ended, must make way for another key. A busy key would keep its conns for
   * ever: after so many streams it gives one up, and goes behind.
   */
  mustYield(conn: Member<K, C>): boolean {
    const peer = conn.home;
    const { head } = this.#line;
    const another = head === peer.demand ? head?.next : head;
    if (another === undefined || ++peer.handOffs <= fairHandOffs) return false;
    // Enough is on its way already; but what is free at once may not wait for streams that never end.
    if (conn.streams > 0 && this.#roster.census.yielding >= this.#line.size) return false;
    peer.handOffs = 0;
    this.leave(peer);
    peer.need().turn = this.#queue.next();
    return true;
  }

  /** Makes a place for `peer`, if idle conns of other keys allow it: the oldest go first. */
  #clear(peer: Peer<K, C>): boolean {
    while (!this.free) {
      const victim = this.#victim(peer);
      if (victim === undefined) return false;
      this.#roster.end(victim, "evicted");
    }
    return true;
  }

  #hasPlace({ home }: PeerDemand<K, C>): boolean {
    return this.free || this.#victim(home) !== undefined;
  }

  #victim(peer: Peer<K, C> | undefined): Member<K, C> | undefined {
    return this.#roster.idle.oldest((conn) => conn.home !== peer);
  }

  #join(demand: PeerDemand<K, C>, turn: number): void {
    demand.turn = turn;
    let before = this.#line.tail;
    while (before?.turn !== undefined && before.turn > turn) before = before.prev;
    const after = before === undefined ? this.#line.head : before.next;
    if (after === undefined) this.#line.push(demand);
    else this.#line.insert(demand, after);
  }
}
