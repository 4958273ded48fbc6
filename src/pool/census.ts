import type { PoolConn } from "../contract.ts";
import type { Member, Peer } from "./key-pool.ts";

/** How many conns there are, of all keys and of each. Every counter that a limit reads is changed here alone. */
export class Census<K, C extends PoolConn> {
  /** Open conns, draining ones included. */
  open = 0;
  idle = 0;
  draining = 0;
  /** Of those that drain, the ones that make way for another key. */
  yielding = 0;

  /** Runs a transition, and moves the counters by what it changes. */
  change(conn: Member<K, C>, transition: () => void): void {
    this.#count(conn, -1);
    transition();
    if (!conn.ready) conn.blocks = 0;
    this.#count(conn, 1);
  }

  /** An idle conn of `peer` begins a stream. */
  busy(peer: Peer<K, C>): void {
    this.idle--;
    peer.idleCount--;
  }

  /** A conn of `peer` runs no stream any more. */
  idles(peer: Peer<K, C>): void {
    this.idle++;
    peer.idleCount++;
  }

  #count(conn: Member<K, C>, by: 1 | -1): void {
    if (!conn.open) return;
    this.open += by;
    if (conn.idle) {
      this.idle += by;
      conn.home.idleCount += by;
    }
    if (conn.draining) {
      this.draining += by;
      if (conn.reason === "evicted") this.yielding += by;
      conn.home.drainingCount += by;
    }
  }
}
