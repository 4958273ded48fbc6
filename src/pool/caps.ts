import type { CloseReason, PoolConn } from "../contract.ts";
import { unlimited } from "./config.ts";
import type { Roster } from "./entries.ts";
import type { Member, Peer } from "./key-pool.ts";

/** How many idle conns are kept: `keyCapacity` of each key, `capacity` of all, and those given back last. */
export class Caps<K, C extends PoolConn> {
  readonly #roster: Roster<K, C>;

  constructor(roster: Roster<K, C>) {
    this.#roster = roster;
  }

  /** Total order costs a little at each give-back: it is kept only where something asks for the oldest of all. */
  order(peer: Peer<K, C>): void {
    const { capacity, maxConns } = this.#roster.rules;
    const { expirationMs } = peer.rules;
    const ordered = capacity < unlimited || maxConns < unlimited || expirationMs < Number.POSITIVE_INFINITY;
    const lane = ordered ? this.#roster.idle.lane(expirationMs) : undefined;
    peer.bounded = ordered || peer.rules.keyCapacity < unlimited;
    if (lane === peer.lane) return;
    for (const conn of peer.conns()) peer.lane?.forget(conn);
    peer.lane = lane;
  }

  /** Once its waiters have been served: a conn still idle takes its place in the order, and the caps are kept. */
  settle(conn: Member<K, C>): void {
    const peer = conn.home;
    if (!peer.bounded || !conn.idle) return;
    peer.lane?.touch(conn);
    if (peer.idleCount > peer.rules.keyCapacity || this.#roster.census.idle > this.#roster.rules.capacity)
      this.cap(peer, "evicted");
  }

  /** Closes what is over the caps: the key's oldest first, then the oldest of all. */
  cap(peer: Peer<K, C>, reason: CloseReason): void {
    while (peer.idleCount > peer.rules.keyCapacity) {
      const oldest = peer.oldestIdle();
      if (oldest === undefined) return;
      this.#roster.end(oldest, reason);
    }
    while (this.#roster.census.idle > this.#roster.rules.capacity) {
      const oldest = this.#roster.idle.oldest();
      if (oldest === undefined) return;
      this.#roster.end(oldest, reason);
    }
  }
}
