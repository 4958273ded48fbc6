import { type AbortWatcher, unwatchAbort, watchAbort } from "./abort.ts";
import { show } from "./argument.ts";
import type { Dial, PoolConn } from "./contract.ts";
import type { Dialer } from "./dialer.ts";
import { type DialError, NoConnError, NoMatchError, WaitTimeoutError } from "./errors.ts";
import type { Member, Peer } from "./peer.ts";
import type { Places } from "./places.ts";
import type { Roster } from "./roster.ts";
import type { Schedule, Task } from "./schedule.ts";
import type { Request } from "./waiter.ts";

/** How long a key stays in use after its last use, where its conns do not expire. */
const keptMs = 60_000;

/** Keeps conns ready that nobody waits for yet: `minIdle`, `warm`, and the replacement of conns that grow old. */
export class Keeper<K, C extends PoolConn> {
  readonly #dial: Dial<K, C> | undefined;
  readonly #schedule: Schedule;
  readonly #roster: Roster<K, C>;
  readonly #dialer: Dialer<K, C>;
  readonly #places: Places<K, C>;
  readonly #warmers = new Map<Peer<K, C>, Set<Warmer<K, C>>>();
  /** What will stop keeping a key. */
  readonly #watches = new Map<Peer<K, C>, Task>();

  constructor(
    dial: Dial<K, C> | undefined,
    schedule: Schedule,
    roster: Roster<K, C>,
    dialer: Dialer<K, C>,
    places: Places<K, C>,
  ) {
    this.#dial = dial;
    this.#schedule = schedule;
    this.#roster = roster;
    this.#dialer = dialer;
    this.#places = places;
  }

  /** A key with `minIdle` is in use: its idle conns do not expire, and are refilled. */
  used(peer: Peer<K, C>): void {
    peer.usedAt = this.#schedule.clock.now();
    if (peer.kept || !peer.alive || this.#dial === undefined) return;
    peer.kept = true;
    this.#watch(peer, keptFor(peer));
  }

  /** Whether an idle conn whose time is over stays, since its key was used within that time. */
  keeps(conn: Member<K, C>): boolean {
    return conn.home.kept && conn.home.idleCount <= conn.home.rules.minIdle;
  }

  /** The end of a conn's lifetime. With `minIdle` its replacement comes first. True: it may stay until `tend` ends it. */
  replaces(conn: Member<K, C>): boolean {
    const peer = conn.home;
    const dial = this.#dial;
    if (conn.outlived || dial === undefined || !conn.idle || !this.keeps(conn) || !this.#places.mayPrepare(peer))
      return false;
    conn.outlived = true;
    this.#dialer.start(peer, dial, true);
    return true;
  }

  /** Starts the dials that bring a key to what it should have, as far as the limits allow. */
  tend(peer: Peer<K, C>): void {
    if (peer.kept) {
      for (const conn of peer.conns()) {
        if (conn.outlived && conn.idle && peer.idleCount > peer.rules.minIdle) this.#roster.end(conn, "retired");
      }
      this.#prepare(peer, this.#dial, Math.min(peer.rules.minIdle, this.#capacity(peer)) - peer.idleCount);
    }
    for (const warmer of this.#warmers.get(peer) ?? []) {
      const ready = peer
        .conns()
        .filter((conn) => conn.ready && peer.passes(conn, warmer.request.filter, this.#now)).length;
      const missing = Math.min(warmer.count, this.#capacity(peer)) - ready;
      if (missing <= 0) this.#settle(peer, warmer, () => warmer.resolve());
      else if (warmer.dials > 0) warmer.dials -= this.#prepare(peer, warmer.request.dial, missing, warmer.dials);
      else if (peer.preparing === 0) this.#settle(peer, warmer, () => warmer.reject(noMatch(warmer.count, peer)));
    }
  }

  /** Nothing is tried again before the key's next use, unless a backoff says when. */
  failed(peer: Peer<K, C>, error: DialError): void {
    if (peer.rules.backoff === undefined) peer.kept = false;
    for (const warmer of this.#warmers.get(peer) ?? []) {
      warmer.dials++; // that one brought nothing
      if (!warmer.request.waitForReady || error.final) this.#settle(peer, warmer, () => warmer.reject(error));
    }
  }

  /** The keys whose conns somebody waits for to be ready. */
  get warming(): Iterable<Peer<K, C>> {
    return this.#warmers.keys();
  }

  /** Whether somebody waits for the key's conns to be ready. */
  isWarming(peer: Peer<K, C>): boolean {
    return this.#warmers.has(peer);
  }

  /** Resolves when the key has so many conns. */
  warm(peer: Peer<K, C>, count: number, request: Request<K, C>): Promise<void> {
    if (request.dial === undefined) {
      return Promise.reject(new NoConnError(`there is no dial function to warm ${show(peer.key)} with`));
    }
    const warmer = new Warmer(count, request, this.#schedule, (error) =>
      this.#settle(peer, warmer, () => warmer.reject(error)),
    );
    const warmers = this.#warmers.get(peer) ?? new Set();
    this.#warmers.set(peer, warmers.add(warmer));
    return warmer.promise;
  }

  /** Nothing is left of the key. */
  forget(peer: Peer<K, C>): void {
    peer.kept = false;
    this.#unwatch(peer);
  }

  rejectAll(peer: Peer<K, C>, error: unknown): void {
    this.forget(peer);
    for (const warmer of this.#warmers.get(peer) ?? []) this.#settle(peer, warmer, () => warmer.reject(error));
  }

  readonly #now = (): number => this.#schedule.clock.now();

  /** Returns how many dials it has started, `most` at most. */
  #prepare(
    peer: Peer<K, C>,
    dial: Dial<K, C> | undefined,
    missing: number,
    most: number = Number.POSITIVE_INFINITY,
  ): number {
    let started = 0;
    if (dial === undefined) return started;
    for (; started < most && peer.preparing < missing && this.#places.mayPrepare(peer); started++) {
      this.#dialer.start(peer, dial, true);
    }
    return started;
  }

  /** Conns that the key may have idle. */
  #capacity(peer: Peer<K, C>): number {
    const { keyCapacity, maxKeyConns } = peer.rules;
    const { capacity, maxConns } = this.#roster.rules;
    return Math.min(keyCapacity, maxKeyConns, maxConns, capacity - this.#roster.idleCount + peer.idleCount);
  }

  #settle(peer: Peer<K, C>, warmer: Warmer<K, C>, how: () => void): void {
    const warmers = this.#warmers.get(peer);
    if (!warmers?.delete(warmer)) return;
    if (warmers.size === 0) this.#warmers.delete(peer);
    warmer.detach();
    how();
  }

  /** Stops keeping a key that nobody has used for its expiration. */
  #watch(peer: Peer<K, C>, ms: number): void {
    const task: Task = {
      due: 0,
      place: -1,
      run: () => {
        const left = peer.usedAt + keptFor(peer) - this.#now();
        if (peer.kept && peer.alive && left > 0) {
          this.#schedule.add(task, left);
          return;
        }
        this.#unwatch(peer);
        if (!peer.kept || !peer.alive) return;
        peer.kept = false;
        if (peer.rules.expirationMs === Number.POSITIVE_INFINITY) return;
        for (const conn of peer.conns()) if (conn.idle) this.#roster.end(conn, "expired");
      },
    };
    this.#unwatch(peer);
    this.#watches.set(peer, task);
    this.#schedule.add(task, ms);
  }

  #unwatch(peer: Peer<K, C>): void {
    const task = this.#watches.get(peer);
    if (task === undefined) return;
    this.#watches.delete(peer);
    this.#schedule.cancel(task);
  }
}

function keptFor<K, C extends PoolConn>({ rules: { expirationMs } }: Peer<K, C>): number {
  return expirationMs === Number.POSITIVE_INFINITY ? keptMs : expirationMs;
}

function noMatch<K, C extends PoolConn>(count: number, { key }: Peer<K, C>): NoMatchError {
  return new NoMatchError(`${count} dials of ${show(key)} brought fewer conns that pass the filter`);
}

/** A caller that waits for conns to be ready. */
class Warmer<K, C extends PoolConn> implements Task, AbortWatcher {
  due = 0;
  place = -1;
  readonly count: number;
  readonly request: Request<K, C>;
  readonly promise: Promise<void>;
  /** What it may still dial. Dials whose conns do not pass the filter are not followed by others without end. */
  dials: number;
  resolve!: () => void;
  reject!: (error: unknown) => void;
  readonly #schedule: Schedule;
  readonly #giveUp: (error: unknown) => void;

  constructor(count: number, request: Request<K, C>, schedule: Schedule, giveUp: (error: unknown) => void) {
    this.count = count;
    this.request = request;
    this.dials = request.filter === undefined ? Number.POSITIVE_INFINITY : count;
    this.#schedule = schedule;
    this.#giveUp = giveUp;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = request;
    if (signal !== undefined) watchAbort(signal, this);
    if (timeoutMs < Number.POSITIVE_INFINITY) schedule.add(this, timeoutMs);
  }

  run(): void {
    this.#giveUp(new WaitTimeoutError(`${this.count} conns were not ready in time`));
  }

  onAbort(reason: unknown): void {
    this.#giveUp(reason);
  }

  detach(): void {
    this.#schedule.cancel(this);
    if (this.request.signal !== undefined) unwatchAbort(this.request.signal, this);
  }
}
