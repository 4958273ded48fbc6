import type { CloseReason, PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import { attempt, outcome } from "../runtime/guard.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { Member, Peer } from "./key-pool.ts";

/** Cleared keys that are remembered, for conns that are out with a caller. */
const memory = 1000;

/** Conns that cross the border: adopted ones, and those that callers take out and bring back. */
export class Exchange<K, C extends PoolConn> {
  readonly #dispatcher: Dispatcher<K, C>;
  /** Conns of an earlier generation are stale, whatever their key. */
  #floor = 0;
  /** The generation of the last `clear` of a key, oldest first. */
  readonly #cleared = new Map<unknown, number>();

  constructor(dispatcher: Dispatcher<K, C>) {
    this.#dispatcher = dispatcher;
  }

  /** Throws for a conn that is this pool's already. */
  checkNew(conn: C): void {
    if (!this.#dispatcher.roster.memberOf(conn)?.open) return;
    throw new PoolTypeError("this pool holds the conn already: put takes new ones, and what take gave");
  }

  /** `conn` is not held. False, and it is closed: no place, a `clear` while it was out, its lifetime is over, it drains. */
  put(open: () => Peer<K, C> | undefined, conn: C): boolean {
    const { roster } = this.#dispatcher;
    const known = roster.memberOf(conn);
    if (known !== undefined && !known.taken) return false; // it has died meanwhile
    const peer = open();
    if (peer === undefined) {
      known?.cut("pool");
      void outcome(() => conn.close());
      return false;
    }
    let member = known;
    try {
      member ??= roster.enlist(conn, peer, this.#dispatcher.dialer.generation);
      member.asks = true;
      const room = this.#objection(member, peer) === undefined && this.#makeRoom(peer);
      // Others were called: the conn may have died or been put in, the key may have been forgotten, the pool closed.
      if (!member.taken) return member.open;
      const objection = this.#objection(member, peer) ?? (room ? undefined : "evicted");
      const home = objection === undefined ? open() : undefined;
      if (home === undefined) roster.refuse(member, peer, objection ?? "pool");
      else this.#dispatcher.admit(member, home);
      return member.open;
    } finally {
      if (member?.taken) roster.drop(member); // `limits` threw: nothing may be left of the conn
      this.#dispatcher.serve(peer);
    }
  }

  /** Why a conn is not wanted (back), whatever place there is. */
  #objection(member: Member<K, C>, peer: Peer<K, C>): CloseReason | undefined {
    if (member.generation < Math.max(this.#floor, this.#cleared.get(peer.hash) ?? 0)) return "cleared";
    if (attempt(() => member.conn.draining) === true) return "goaway";
    return this.#dispatcher.roster.lifetimes.left(member, peer) <= 0 ? "retired" : undefined;
  }

  take(peer: Peer<K, C>): Member<K, C> | undefined {
    const conn = peer.pickIdle();
    if (conn !== undefined) this.#dispatcher.roster.take(conn);
    return conn;
  }

  /** What is out with callers, of one key or of all, is not wanted back. */
  clear(hash: unknown): void {
    const generation = ++this.#dispatcher.dialer.generation;
    if (hash === undefined) {
      this.#floor = generation;
      this.#cleared.clear();
      return;
    }
    this.#cleared.delete(hash);
    this.#cleared.set(hash, generation);
    // Forgetting a key may only make conns stale that are not: they are dialed anew.
    for (const [oldest, cleared] of this.#cleared) {
      if (this.#cleared.size <= memory) break;
      this.#cleared.delete(oldest);
      this.#floor = cleared;
    }
  }

  /** A conn in the hand is worth a dial in flight; else an idle one makes way for it. */
  #makeRoom(peer: Peer<K, C>): boolean {
    const { roster, dialer } = this.#dispatcher;
    const ofKey = () => peer.open - peer.drainingCount + peer.demand.dials.size;
    const ofAll = () => roster.census.open + dialer.count;
    return (
      this.#makePlace(peer, ofKey, peer.rules.maxKeyConns, () => peer.oldestIdle()) &&
      this.#makePlace(peer, ofAll, roster.rules.maxConns, () => roster.idle.oldest())
    );
  }

  #makePlace(peer: Peer<K, C>, taken: () => number, limit: number, idle: () => Member<K, C> | undefined): boolean {
    while (taken() >= limit) {
      if (this.#abandonOne(peer)) continue;
      const before = taken();
      const oldest = idle();
      if (oldest === undefined) return false;
      this.#dispatcher.roster.end(oldest, "evicted");
      if (taken() >= before) return false; // another stood in line for the place
    }
    return true;
  }

  #abandonOne(peer: Peer<K, C>): boolean {
    const newest = peer.demand.dials.tail;
    if (newest === undefined) return false;
    this.#dispatcher.dialer.abandon(newest, "a conn was put in instead");
    return true;
  }
}
