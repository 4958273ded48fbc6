import type { CloseReason, PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import type { PutOptions } from "../options.ts";
import { outcome } from "../runtime/guard.ts";
import { timer } from "../runtime/timers.ts";
import type { Core } from "./core.ts";
import { type Entry, TakenConn } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** How long a conn waits for calls that its peer may have begun before it heard that the other one stays. */
const crossedMs = 1000;

/** Cleared keys that are remembered, for conns that are out with a caller. */
const memory = 1000;

/** Conns that come from callers and go to them: adopted ones, and those that are taken out and brought back. */
export class Transfer<K, C extends PoolConn> {
  /** Raised by each `clear`: conns that were out with callers then are of an earlier generation. */
  #generation = 0;
  readonly #core: Core<K, C>;
  /** Conns of an earlier generation than this are stale, whatever their key. */
  #staleBelow = 0;
  /** The generation of the last `clear` of a key, oldest first. */
  readonly #cleared = new Map<unknown, number>();

  constructor(core: Core<K, C>) {
    this.#core = core;
  }

  /** Throws for a conn that is this pool's already. */
  checkNew(conn: C): void {
    if (!this.#core.entries.find(conn)?.isOpen) return;
    throw new PoolTypeError("this pool holds the conn already: put takes new ones, and what take gave");
  }

  /**
   * `conn` is not held. False, and it is closed: there is no place, a `clear` came while it was out, its lifetime is over, or
   * it drains. False, too, where `prefer` leaves it to its peer. `open` gives the record of its key; none once the pool is closed.
   */
  put(open: () => KeyPool<K, C> | undefined, conn: C, prefer: PutOptions["prefer"]): boolean {
    const { entries } = this.#core;
    let key = open();
    const known = entries.find(conn); // after `limits`, which may have put the conn in itself
    if (key === undefined) {
      if (known !== undefined && !known.isTaken) return false;
      known?.destroy("pool");
      void outcome(() => conn.close());
      return false;
    }
    let entry: Entry<K, C> | undefined;
    try {
      if (known !== undefined && !known.isTaken) return known.isOpen; // it may have died meanwhile, too
      const generation = known instanceof TakenConn ? known.generation : this.#generation;
      entry = entries.enlist(conn, key);
      entry.doubt();
      if (prefer === "dialed" && this.#isDialed(key)) {
        this.#leaveToPeer(entry, key, generation);
        return false;
      }
      if (prefer === "this") this.#replaceDialed(key);
      if (this.#objection(entry, key, generation) === undefined) this.#core.capacity.makeRoomForPut(key);
      // Others were called: the conn may have died or been put in, the key may have been forgotten, the pool closed.
      const home = open();
      key = home ?? key;
      const objection = home === undefined ? "pool" : this.#objection(entry, home, generation);
      if (!entry.isTaken) return entry.isOpen;
      const isWelcome = objection === undefined && key.isAlive && this.#core.capacity.hasRoomForPut(key);
      if (isWelcome) this.#core.admit(entry, key);
      else entries.refuse(entry, key, objection ?? "evicted");
      return entry.isOpen || entry.isTaken; // somebody may have taken it already
    } finally {
      if (entry?.isTaken) entries.drop(entry); // `limits` threw: nothing may be left of the conn
      this.#core.serve(key);
    }
  }

  /** The pool dials the key, or holds a conn that it dialed. */
  #isDialed(key: KeyPool<K, C>): boolean {
    return key.pending.dials.size > 0 || key.entries().some((entry) => entry.isReady && entry.isDialed);
  }

  /** It is not used here. The peer, which dialed it, closes it once it has heard that the other conn stays. */
  #leaveToPeer(entry: Entry<K, C>, key: KeyPool<K, C>, generation: number): void {
    const objection = this.#objection(entry, key, generation);
    if (!entry.isTaken) return; // it was asked, and has died
    if (objection !== undefined || !key.isAlive || !this.#core.capacity.hasRoomForAnyPut) {
      this.#core.entries.refuse(entry, key, objection ?? "evicted");
      return;
    }
    this.#core.entries.add(entry, key, false);
    entry.extras.isCrossed = true;
    this.#holdForPeer(entry);
    this.#core.entries.drain(entry, "evicted");
  }

  #replaceDialed(key: KeyPool<K, C>): void {
    this.#core.dialer.abandonAll(key, "a conn was put in instead");
    const dialed = key.entries().filter((entry) => entry.isDialed);
    for (const entry of dialed) {
      entry.extras.isCrossed = true;
      if (entry.peerStreams > 0) this.#holdForPeer(entry);
    }
    this.#core.entries.drainAll(dialed, "evicted");
  }

  /** A stream of the pool's own stands for those of the peer: a conn that drains is closed when they are over, too. */
  #holdForPeer(entry: Entry<K, C>): void {
    if (!entry.isReady) return; // to ask may have closed it
    this.#core.entries.leaseUnseen(entry);
    entry.extras.peerTimer = timer(() => this.#core.enter(() => this.#look(entry)));
    this.#core.timers.arm(entry.extras.peerTimer, crossedMs);
  }

  #look(entry: Entry<K, C>): void {
    const { peerTimer } = entry.extras;
    const isOver = !(entry.peerStreams > 0);
    if (peerTimer === undefined || !entry.isOpen) return;
    if (isOver) this.#core.entries.releaseUnseen(entry);
    else this.#core.timers.arm(peerTimer, crossedMs);
  }

  /** A conn has gone. */
  left(entry: Entry<K, C>): void {
    const peerTimer = entry.someExtras?.peerTimer;
    if (peerTimer !== undefined && !entry.isOpen) this.#core.timers.disarm(peerTimer);
  }

  /** Why a conn is not wanted (back), whatever place there is. */
  #objection(entry: Entry<K, C>, key: KeyPool<K, C>, generation: number): CloseReason | undefined {
    if (generation < Math.max(this.#staleBelow, this.#cleared.get(key.hash) ?? 0)) return "cleared";
    if (entry.saysDraining) return "goaway";
    return this.#core.lifetimes.remainingMs(entry, key) <= 0 ? "retired" : undefined;
  }

  take(key: KeyPool<K, C>): C | undefined {
    const entry = this.#core.selector.pickIdle(key);
    if (entry !== undefined) this.#core.entries.take(entry);
    return entry?.conn;
  }

  /** The generation of a conn that is taken out: the pool holds none that a `clear` has closed. -1: one has shortened its life. */
  generationOf(entry: Entry<K, C>): number {
    return entry.someExtras?.cutAt === undefined ? this.#generation : -1;
  }

  /** What is out with callers, of one key or of all, is not wanted back. */
  clear(hash: unknown): void {
    const generation = ++this.#generation;
    if (hash === undefined) {
      this.#staleBelow = generation;
      this.#cleared.clear();
      return;
    }
    this.#cleared.delete(hash);
    this.#cleared.set(hash, generation);
    // To forget a key errs to the safe side: conns that are not stale are closed, and others dialed in their place.
    for (const [oldest, cleared] of this.#cleared) {
      if (this.#cleared.size <= memory) break;
      this.#cleared.delete(oldest);
      this.#staleBelow = cleared;
    }
  }
}
