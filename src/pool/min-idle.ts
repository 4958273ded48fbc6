import { show } from "../argument.ts";
import type { Dial, PoolConn } from "../contract.ts";
import { type DialError, NoConnError, NoMatchError } from "../errors.ts";
import type { Schedule, Task } from "../runtime/timers.ts";
import type { Places } from "./capacity.ts";
import type { Dialer } from "./dialer.ts";
import type { Roster } from "./entries.ts";
import type { Member, Peer, PeerDialing } from "./key-pool.ts";
import type { Request } from "./waiter.ts";
import { Warmer } from "./warm.ts";

/** How long a key stays in use after its last use, where its conns do not expire. */
const keptMs = 60_000;

/** What is known of a key in use whose conns are kept ready. */
interface Kept<M> {
  usedAt: number;
  /** Ends it, some time after the last use. */
  readonly task: Task;
  /** Idle conns past their lifetime, which stay until their replacements have come. */
  readonly outlived: Set<M>;
  /** Conns whose idle time was over, and the give-back that it was counted from. */
  readonly outstayed: Map<M, number>;
}

/** Told when fewer conns are wanted ready. */
export interface KeeperOwner<K, C extends PoolConn> {
  freed(peer: Peer<K, C>): void;
}

/** Keeps conns ready that nobody waits for yet: `minIdle`, `warm`, and the replacement of conns that grow old. */
export class Keeper<K, C extends PoolConn> {
  readonly #dial: Dial<K, C> | undefined;
  readonly #schedule: Schedule;
  readonly #roster: Roster<K, C>;
  readonly #dialer: Dialer<K, C>;
  readonly #places: Places<K, C>;
  readonly #owner: KeeperOwner<K, C>;
  readonly #kept = new Map<Peer<K, C>, Kept<Member<K, C>>>();
  readonly #warmers = new Map<Peer<K, C>, Set<Warmer<K, C>>>();
  /** Keys that lack conns which the limits did not allow when they were last looked at. */
  readonly #held = new Set<Peer<K, C>>();
  /** The three above have no entries. Asked at each hand-over. */
  quiet = true;

  constructor(
    dial: Dial<K, C> | undefined,
    schedule: Schedule,
    roster: Roster<K, C>,
    dialer: Dialer<K, C>,
    places: Places<K, C>,
    owner: KeeperOwner<K, C>,
  ) {
    this.#dial = dial;
    this.#schedule = schedule;
    this.#roster = roster;
    this.#dialer = dialer;
    this.#places = places;
    this.#owner = owner;
  }

  /** A key with `minIdle` is in use: its idle conns do not expire, and are refilled. */
  used(peer: Peer<K, C>): void {
    const now = this.#roster.now();
    const known = this.#kept.get(peer);
    if (known !== undefined) {
      known.usedAt = now;
      return;
    }
    if (this.#dial === undefined || !peer.alive) return;
    const task: Task = { due: 0, place: -1, run: () => this.#unused(peer) };
    this.quiet = false;
    this.#kept.set(peer, { usedAt: now, task, outlived: new Set(), outstayed: new Map() });
    this.#schedule.add(task, keptFor(peer));
  }

  /** Whether an idle conn whose time is over stays, since its key was used within that time. */
  keeps(conn: Member<K, C>): boolean {
    const peer = conn.home;
    const kept = this.#kept.get(peer);
    if (kept === undefined || peer.idleCount - kept.outlived.size > peer.rules.minIdle) return false;
    kept.outstayed.set(conn, conn.givenBack);
    return true;
  }

  /** The end of a conn's lifetime. With `minIdle` its replacement comes first: true, it may stay until then. */
  replaces(conn: Member<K, C>): boolean {
    const peer = conn.home;
    const kept = this.#kept.get(peer);
    if (kept === undefined || kept.outlived.has(conn) || !conn.idle || !this.#places.mayPrepare(peer)) return false;
    kept.outlived.add(conn);
    if (peer.demand.preparing < this.#wanted(peer)) return true;
    kept.outlived.delete(conn);
    return false;
  }

  /** A conn has been closed, drains, or has been taken. */
  left(conn: Member<K, C>): void {
    const { home: peer, reason } = conn;
    const kept = this.#kept.get(peer);
    if (kept === undefined) return;
    kept.outlived.delete(conn);
    kept.outstayed.delete(conn);
    // What another key's conn was evicted for is refilled on the next use, not before: it wanted the place.
    const { minIdle, keyCapacity } = peer.rules;
    if (reason === "evicted" && peer.idleCount < Math.min(minIdle, keyCapacity)) this.#drop(peer);
  }

  /** Starts the dials that bring a key to what it should have, as far as the limits allow. */
  tend(peer: Peer<K, C>): void {
    if (this.quiet) return;
    this.quiet = this.#kept.size + this.#warmers.size + this.#held.size === 0;
    const kept = this.#kept.get(peer);
    for (const conn of kept?.outlived ?? []) {
      if (!conn.idle || peer.idleCount > peer.rules.minIdle) this.#roster.end(conn, "retired");
    }
    for (const warmer of this.#warmers.get(peer) ?? []) {
      if (this.#lacking(peer, warmer) <= 0) this.#settle(peer, warmer, () => warmer.resolve());
    }
    this.#held.delete(peer);
    while (peer.demand.preparing < this.#wanted(peer)) {
      if (!this.#places.mayPrepare(peer)) {
        this.#held.add(peer);
        return;
      }
      const [warmer] = this.#warmers.get(peer) ?? [];
      const dial = warmer?.request.dial ?? this.#dial;
      if (dial === undefined) return;
      this.#dialer.start(peer, dial, true);
    }
  }

  /** More conns are on their way than are wanted. */
  spares(peer: Peer<K, C>): boolean {
    return peer.demand.preparing > this.#wanted(peer);
  }

  /** A key that lacks conns, and now may have them. */
  get next(): Peer<K, C> | undefined {
    if (this.quiet || !this.#places.free) return undefined;
    for (const peer of this.#held) if (this.#places.mayPrepare(peer)) return peer;
    return undefined;
  }

  /** A background dial has brought a conn: who warms with a filter that refuses it would dial for ever. */
  dialed(dialing: PeerDialing<K, C>, conn: Member<K, C>): void {
    if (!dialing.background) return;
    const peer = dialing.home;
    for (const warmer of this.#warmers.get(peer) ?? []) {
      if (warmer.request.dial !== dialing.by || peer.passes(conn, warmer.request.filter)) continue;
      const error = new NoMatchError(`a conn dialed for ${show(peer.key)} does not pass the filter`);
      this.#settle(peer, warmer, () => warmer.reject(error));
    }
  }

  /** Nothing is tried again before the key's next use, unless a backoff says when. `spent`: nor then. */
  failed(peer: Peer<K, C>, error: DialError, spent: boolean): void {
    const over = spent || error.final;
    if (over || peer.rules.backoff === undefined) this.#drop(peer);
    for (const warmer of this.#warmers.get(peer) ?? []) {
      if (over || !warmer.request.waitForReady) this.#settle(peer, warmer, () => warmer.reject(error));
    }
  }

  /** Whether somebody waits for the key's conns to be ready. */
  isWarming(peer: Peer<K, C>): boolean {
    return this.#warmers.has(peer);
  }

  /** Resolves when the key has so many conns. The caller serves the key then. */
  warm(peer: Peer<K, C>, count: number, request: Request<K, C>): Promise<void> {
    const { key, rules } = peer;
    const { pause, lastError } = peer.demand;
    const giveUp = (error: unknown) => {
      this.#settle(peer, warmer, () => warmer.reject(error));
      this.#owner.freed(peer);
    };
    const warmer = new Warmer(peer, count, request, this.#schedule, giveUp);
    const warmers = this.#warmers.get(peer) ?? new Set();
    this.quiet = false;
    this.#warmers.set(peer, warmers.add(warmer));
    const refusal =
      this.#lacking(peer, warmer) <= 0
        ? undefined
        : request.dial === undefined
          ? new NoConnError(`there is no dial function to warm ${show(key)} with`)
          : rules.backoff !== undefined && pause !== undefined && !request.waitForReady
            ? lastError
            : undefined;
    if (refusal !== undefined) giveUp(refusal);
    return warmer.promise;
  }

  /** Nothing is left of the key. */
  forget(peer: Peer<K, C>): void {
    this.#drop(peer);
    this.#held.delete(peer);
  }

  rejectAll(peer: Peer<K, C>, error: unknown): void {
    this.forget(peer);
    for (const warmer of this.#warmers.get(peer) ?? []) this.#settle(peer, warmer, () => warmer.reject(error));
  }

  /** Background dials that the key should have in flight. */
  #wanted(peer: Peer<K, C>): number {
    const kept = this.#kept.get(peer);
    let wanted = 0;
    if (kept !== undefined) {
      const outlived = kept.outlived.size;
      wanted = Math.min(peer.rules.minIdle, this.#capacity(peer)) + outlived - peer.idleCount;
    }
    for (const warmer of this.#warmers.get(peer) ?? []) wanted = Math.max(wanted, this.#lacking(peer, warmer));
    return wanted;
  }

  #lacking(peer: Peer<K, C>, { count, request: { filter } }: Warmer<K, C>): number {
    const ready =
      filter === undefined
        ? peer.open - peer.drainingCount
        : peer.conns().filter((conn) => conn.ready && peer.passes(conn, filter)).length;
    return Math.min(count, this.#capacity(peer)) - ready;
  }

  /** Conns that the key may have idle. */
  #capacity(peer: Peer<K, C>): number {
    const { keyCapacity, maxKeyConns } = peer.rules;
    const { capacity, maxConns } = this.#roster.rules;
    return Math.min(keyCapacity, maxKeyConns, maxConns, capacity - this.#roster.census.idle + peer.idleCount);
  }

  #settle(peer: Peer<K, C>, warmer: Warmer<K, C>, how: () => void): void {
    const warmers = this.#warmers.get(peer);
    if (!warmers?.delete(warmer)) return;
    if (warmers.size === 0) this.#warmers.delete(peer);
    warmer.detach();
    how();
  }

  #drop(peer: Peer<K, C>): void {
    const kept = this.#kept.get(peer);
    if (kept === undefined) return;
    this.#kept.delete(peer);
    this.#schedule.cancel(kept.task);
  }

  /** Stops keeping a key that nobody has used for its expiration. What has outstayed its time goes with that. */
  #unused(peer: Peer<K, C>): void {
    const kept = this.#kept.get(peer);
    if (kept === undefined) return;
    if (peer.open > peer.idleCount + peer.drainingCount) kept.usedAt = this.#roster.now(); // a stream runs
    const left = kept.usedAt + keptFor(peer) - this.#roster.now();
    if (left > 0) {
      this.#schedule.add(kept.task, left);
      return;
    }
    this.#drop(peer);
    for (const [conn, givenBack] of kept.outstayed) {
      if (conn.idle && conn.givenBack === givenBack) this.#roster.end(conn, "expired");
    }
    this.#owner.freed(peer);
  }
}

function keptFor<K, C extends PoolConn>({ rules: { expirationMs } }: Peer<K, C>): number {
  return expirationMs === Number.POSITIVE_INFINITY ? keptMs : expirationMs;
}
