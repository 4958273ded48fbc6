import type { CloseReason, PoolConn } from "../contract.ts";
import type { Rules } from "./config.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { Member, Peer } from "./key-pool.ts";

/** What is done to the conns of many keys at once, oldest first. */
export class Sweep<K, C extends PoolConn> {
  readonly #dispatcher: Dispatcher<K, C>;

  constructor(dispatcher: Dispatcher<K, C>) {
    this.#dispatcher = dispatcher;
  }

  /** All conns drain, dials are abandoned, backoffs end; waiters are dialed anew. */
  clear(peers: readonly Peer<K, C>[]): void {
    this.#renounce(peers, "the key was cleared");
    this.#end(conns(peers), "cleared");
    for (const peer of peers) this.#dispatcher.serve(peer);
  }

  /** Waiters fail, dials are abandoned, all conns drain. */
  close(peers: readonly Peer<K, C>[], error: unknown): void {
    for (const peer of peers) {
      peer.alive = false;
      this.#dispatcher.queue.rejectAll(peer, error);
      this.#dispatcher.keeper.rejectAll(peer, error);
    }
    this.#dispatcher.roster.idle.stop();
    this.#renounce(peers, "the pool was closed");
    this.#end(conns(peers), "pool");
    for (const peer of peers) this.#dispatcher.serve(peer);
  }

  /** The grace is over: conns are closed under their streams. */
  cut(peers: readonly Peer<K, C>[]): void {
    for (const conn of conns(peers)) this.#dispatcher.roster.cut(conn, "pool");
  }

  /** The rules have changed: what is over them and idle is closed, what is over them and in use drains; dials are abandoned. */
  reconfigure(peers: readonly Peer<K, C>[], rules: Rules): void {
    const { roster } = this.#dispatcher;
    roster.rules = rules;
    const all = conns(peers);
    for (const peer of peers) this.#dispatcher.equip(peer);
    this.#shedDials(peers);
    for (const conn of all) {
      conn.home.place(conn);
      roster.lifetimes.limit(conn);
      if (conn.idle && conn.stamp < 0) conn.home.lane?.touch(conn);
    }
    for (const conn of [...all.filter(({ idle }) => idle), ...all.filter(({ idle }) => !idle)]) {
      const peer = conn.home;
      const overKey = peer.open - peer.drainingCount > peer.rules.maxKeyConns;
      if (overKey || roster.census.open - roster.census.draining > rules.maxConns) roster.end(conn, "configured");
    }
    for (const peer of peers) this.#dispatcher.caps.cap(peer, "configured");
    for (const peer of peers) this.#dispatcher.freed(peer);
  }

  /** Nobody uses a dial yet, so dials over the limits go first, newest first; their waiters stay. */
  #shedDials(peers: readonly Peer<K, C>[]): void {
    const { roster, dialer } = this.#dispatcher;
    const dials = peers.flatMap((peer) => [...peer.demand.dials]).sort((a, b) => a.startedAt - b.startedAt);
    for (const dialing of dials.reverse()) {
      const { home } = dialing;
      const { maxKeyConns, maxKeyDials } = home.rules;
      const overKey = home.demand.dials.size > Math.min(maxKeyDials, maxKeyConns - home.open + home.drainingCount);
      if (overKey || roster.census.open + dialer.count > roster.rules.maxConns)
        dialer.abandon(dialing, "limits were lowered");
    }
  }

  #renounce(peers: readonly Peer<K, C>[], why: string): void {
    for (const peer of peers) {
      this.#dispatcher.pauses.end(peer);
      if (!peer.resting) peer.demand.failures = 0;
      this.#dispatcher.dialer.abandonAll(peer, why);
    }
  }

  #end(all: readonly Member<K, C>[], reason: CloseReason): void {
    this.#dispatcher.roster.endAll(all, reason);
  }
}

/** In the order of their give-backs. */
function conns<K, C extends PoolConn>(peers: readonly Peer<K, C>[]): Member<K, C>[] {
  return peers.flatMap((peer) => peer.conns()).sort((a, b) => a.givenBack - b.givenBack);
}
