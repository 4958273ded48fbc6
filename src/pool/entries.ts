import type { CloseReason, PoolConn } from "../contract.ts";
import { inNextTurn } from "../runtime/clock.ts";
import { isThenable, outcome } from "../runtime/guard.ts";
import { type Timers, timer } from "../runtime/timers.ts";
import { unlimited } from "./config.ts";
import type { Core } from "./core.ts";
import { Entry, TakenConn } from "./entry.ts";
import { ConnEvents, type Events } from "./events.ts";
import type { KeyPool } from "./key-pool.ts";
import { Latency } from "./selector.ts";

/** A function that hands its `this` on: to bind it costs half of a closure for each entry. */
function told<T>(tell: (bound: T) => void): (this: T) => void {
  return function (this: T): void {
    tell(this);
  };
}

/** A conn whose `close()` takes longer does not count any more: one that hangs must not hold up others for ever. */
export const closePatienceMs = 5_000;

/**
 * The conns that the pool holds: how they come, carry streams, and leave. The one place that moves an entry through its
 * table of states, and the one writer of every counter that a limit reads.
 */
export class Entries<K, C extends PoolConn> {
  /** Open conns of all keys, draining ones included. */
  open = 0;
  idle = 0;
  draining = 0;
  /** Of those that drain, the ones that make way for another key. */
  yielding = 0;
  /** Conns whose `close()` has been called and that are not closed yet. Kept where `maxConns` counts them. */
  readonly #closing = new Set<Entry<K, C>>();
  readonly #timers: Timers;
  readonly #conns: ConnEvents<K, C>;
  /** Asked at each call. */
  private readonly onLease: Events<K, C>["leased"];
  private readonly onRelease: Events<K, C>["released"];
  private readonly core: Core<K, C>;
  /** What the pool holds. A weak map of many entries would make every garbage collection pay. */
  readonly #held = new Map<C, Entry<K, C>>();
  /** What it does not hold, since it was taken out or closed, is remembered only as long as somebody keeps it. */
  readonly #others = new WeakMap<C, Entry<K, C> | TakenConn<C>>();
  readonly #onClosed = told<C>((conn) => this.#hasClosed(conn));
  private releases = 0;

  constructor(timers: Timers, events: Events<K, C>, core: Core<K, C>) {
    this.#timers = timers;
    this.#conns = new ConnEvents(events, timers);
    this.onLease = events.leased;
    this.onRelease = events.released;
    this.core = core;
  }

  /** Conns that are being closed: their sockets are still there. */
  get closing(): number {
    return this.#closing.size;
  }

  find(conn: C): Entry<K, C> | TakenConn<C> | undefined {
    return this.#held.get(conn) ?? this.#others.get(conn);
  }

  /** Makes a record of a conn and watches it. It does not count before `add`. */
  enlist(conn: C, key: KeyPool<K, C>): Entry<K, C> {
    const known = this.find(conn);
    if (known instanceof Entry) return known;
    const entry = new Entry<K, C>(conn, key, this.#timers.now(), known);
    this.#others.delete(conn);
    this.#held.set(conn, entry);
    if (known !== undefined) return entry; // it is watched since it came first
    if (this.core.selector.selection === "fastest") entry.extras.latency = new Latency(entry.openedAt);
    try {
      this.#watch(entry);
    } catch (error) {
      this.#held.delete(conn); // not the pool's: it cannot be watched
      throw error;
    }
    return entry;
  }

  /** By the conn, not by its entry: the entry goes when the conn is taken out. */
  #watch(entry: Entry<K, C>): void {
    const { conn } = entry;
    const onClosed = this.#onClosed.bind(conn);
    conn.closed.then(onClosed, onClosed);
    entry.subscribe(() => this.core.enter(() => this.#changed(conn)));
  }

  /** It is not held any more, or what was enlisted will not be added. */
  drop(entry: Entry<K, C>): void {
    const { conn } = entry;
    if (this.#held.get(conn) !== entry) return; // it has come back, as another entry
    this.#held.delete(conn);
    this.#others.set(conn, entry.isTaken ? new TakenConn<C>(entry, this.core.transfer.generationOf(entry)) : entry);
  }

  /** The one way in for what was dialed, adopted or put back. The caller dispatches, and then the caps are kept. */
  add(entry: Entry<K, C>, key: KeyPool<K, C>, isDialed: boolean): void {
    entry.isDialed = isDialed;
    this.#change(entry, () => entry.put(key));
    if (this.#others.delete(entry.conn)) this.#held.set(entry.conn, entry); // it had been taken
    entry.releaseSeq = ++this.releases;
    key.enter(entry);
    this.core.selector.place(entry);
    key.learn(this.core.selector.slotsOf(entry));
    this.core.lifetimes.rearm(entry);
    this.core.hooks.entered(entry);
    entry.holdProcess(false);
  }

  /** Counts a stream on a conn that the selector chose: no `await` may stand between the two. */
  lease(entry: Entry<K, C>): void {
    if (entry.streams === 0) {
      this.idle--;
      entry.key.idleCount--;
    }
    entry.lease();
    this.core.selector.begun(entry);
    if (this.onLease.isActive) this.#conns.leased(entry);
  }

  /** The same for a stream of the pool's own: no use of the conn, and no event. */
  leaseUnseen(entry: Entry<K, C>): void {
    if (entry.streams === 0) {
      this.idle--;
      entry.key.idleCount--;
    }
    entry.leaseUnseen();
    this.core.selector.begun(entry);
  }

  /** Somebody wants to hear how long streams ran. */
  get isTimed(): boolean {
    return this.onRelease.isActive;
  }

  /** When a stream that begins now began, where somebody wants to hear how long it ran. */
  clock(): number | undefined {
    return this.isTimed ? this.#timers.now() : undefined;
  }

  /** Uncounts a stream that has ended. True: the conn can be handed out again, and then the caps are to be kept. */
  release(entry: Entry<K, C>, since: number | undefined): boolean {
    if (this.onRelease.isActive) this.#conns.released(entry, since);
    return this.releaseUnseen(entry);
  }

  releaseUnseen(entry: Entry<K, C>): boolean {
    if (!entry.isReady) {
      this.#releaseDraining(entry);
      return false;
    }
    entry.release();
    if (entry.streams === 0) {
      this.idle++;
      entry.key.idleCount++;
      entry.releaseSeq = ++this.releases;
    }
    this.core.selector.ended(entry);
    return true;
  }

  #releaseDraining(entry: Entry<K, C>): void {
    if (!entry.isOpen) return;
    if (entry.reason === "evicted") this.core.capacity.yieldsProgress();
    if (entry.streams > 1) {
      entry.release(); // it drains on
      return;
    }
    this.#transit(entry, () => entry.release());
    this.#conns.drained(entry);
  }

  /** No new streams: closed at once if idle, else after its last stream. */
  drain(entry: Entry<K, C>, reason: CloseReason): void {
    if (entry.isReady) this.#transit(entry, () => entry.drain(reason));
  }

  /** Drains all before the first `close()` is called, which may ask for one of the others. */
  drainAll(entries: readonly Entry<K, C>[], reason: CloseReason): void {
    const drained = entries.filter((entry) => entry.isReady);
    const left = drained.filter((entry) => this.#move(entry, () => entry.drain(reason)));
    if (this.core.keys.rules.maxConns < unlimited) for (const entry of left) this.#closing.add(entry); // before the first close
    for (const entry of left) this.#close(entry);
    for (const entry of drained) this.core.left(entry);
  }

  /** Closes a conn under its streams. */
  destroy(entry: Entry<K, C>, reason: CloseReason): void {
    if (entry.isOpen) this.#transit(entry, () => entry.destroy(reason));
  }

  /** Closes a conn that is about to be adopted, and is not. */
  refuse(entry: Entry<K, C>, key: KeyPool<K, C>, reason: CloseReason): void {
    entry.key = key;
    entry.destroy(reason);
    this.drop(entry);
    this.#close(entry);
  }

  /** Removes an idle conn, which the caller owns from now on. */
  take(entry: Entry<K, C>): void {
    this.#transit(entry, () => entry.take());
  }

  /** Skipped until `until` settles; a rejection closes the conn. */
  block(entry: Entry<K, C>, until: PromiseLike<unknown>): void {
    if (!entry.isReady) {
      Promise.resolve(until).catch(() => {}); // it has gone while it was asked
      return;
    }
    const { extras, uses } = entry;
    // A conn that answers each question with a new promise must not starve the event loop.
    const settled =
      extras.blockedAtUses === uses
        ? Promise.resolve(until).then(() => new Promise<void>((resolve) => inNextTurn(resolve)))
        : until;
    extras.blockedAtUses = uses;
    this.hold(
      entry,
      () => this.core.hooks.withinDialTimeout(entry, settled),
      "blocked",
      () => this.core.available(entry.key),
    );
  }

  /** Skipped until `unskip`, for what it would be closed with `reason`. */
  skip(entry: Entry<K, C>, reason: CloseReason): void {
    this.#addHold(entry, 1);
    entry.extras.heldFor = reason;
  }

  /** Nothing, where it has left meanwhile. */
  unskip(entry: Entry<K, C>): void {
    if (entry.isHeld) this.#addHold(entry, -1);
  }

  /** Skipped until what `ask` returns has settled. A failure closes the conn, and then `done`, which may serve its key, is called. */
  hold(entry: Entry<K, C>, ask: () => unknown, reason: CloseReason, done: () => void): void {
    this.skip(entry, reason);
    const finish = (failed: boolean) => {
      this.unskip(entry);
      if (failed) this.drain(entry, reason);
      done();
    };
    try {
      const until = ask();
      if (isThenable(until)) {
        Promise.resolve(until).then(
          () => this.core.enter(() => finish(false)),
          () => this.core.enter(() => finish(true)),
        );
      } else finish(false);
    } catch {
      finish(true);
    }
  }

  /** The same for a conn that is asked for a sign of life: others may be dialed in its place. */
  suspect(entry: Entry<K, C>, life: Promise<unknown>, done: () => void): void {
    this.#setSuspect(entry, true);
    this.hold(
      entry,
      () => life,
      "silent",
      () => {
        this.#setSuspect(entry, false);
        done();
      },
    );
  }

  #setSuspect(entry: Entry<K, C>, isSuspect: boolean): void {
    const { key, life } = entry;
    if (life === undefined || life.isSuspect === isSuspect) return;
    key.extras.suspect += isSuspect ? 1 : -1;
    life.isSuspect = isSuspect;
  }

  #addHold(entry: Entry<K, C>, by: 1 | -1): void {
    this.#setHolds(entry, entry.holdCount + by);
    if (entry.isOpen) this.core.selector.place(entry);
  }

  #setHolds(entry: Entry<K, C>, holds: number): void {
    const { key } = entry;
    const by = Number(holds > 0) - Number(entry.isHeld);
    entry.holdCount = holds;
    if (by === 0) return;
    if (!key.isResting) key.pending.count(this.#timers.now());
    key.extras.blocked += by;
  }

  #changed(conn: C): void {
    const entry = this.#held.get(conn);
    if (!entry?.isReady) return;
    if (entry.saysDraining) {
      this.drain(entry, "goaway");
      return;
    }
    this.core.selector.place(entry);
    entry.key.learn(this.core.selector.slotsOf(entry));
    this.core.available(entry.key);
  }

  #hasClosed(conn: C): void {
    this.core.enter(() => {
      const known = this.find(conn);
      if (known === undefined) return; // it was not taken in
      if (known instanceof TakenConn) known.destroy();
      else if (known.isOpen) this.#transit(known, () => known.destroy("died"), true);
      else if (known.isTaken) {
        known.destroy("died");
        this.drop(known);
      } else this.#gone(known);
    });
  }

  /** Runs a transition, moves the counters by what it changed, and does what follows from it. */
  #transit(entry: Entry<K, C>, transition: () => void, died = false): void {
    if (this.#move(entry, transition)) {
      if (entry.isTaken) entry.holdProcess(true);
      else if (died) this.#closed(entry, undefined);
      else this.#close(entry);
    }
    if (!entry.isReady) this.core.left(entry);
  }

  /** The part of a change that calls nobody. Returns whether the conn has left. */
  #move(entry: Entry<K, C>, transition: () => void): boolean {
    this.#change(entry, transition);
    if (entry.isOpen) {
      this.core.selector.place(entry);
      return false;
    }
    entry.key.leave(entry);
    entry.key.idleQueue?.forget(entry);
    this.core.lifetimes.rearm(entry);
    this.drop(entry);
    return true;
  }

  #change(entry: Entry<K, C>, transition: () => void): void {
    this.#count(entry, -1);
    transition();
    if (!entry.isReady) {
      if (entry.isHeld) this.#setHolds(entry, 0);
      this.#setSuspect(entry, false);
    }
    this.#count(entry, 1);
  }

  #count(entry: Entry<K, C>, by: 1 | -1): void {
    if (!entry.isOpen) return;
    const { key } = entry;
    this.open += by;
    key.open += by;
    if (entry.isIdle) {
      this.idle += by;
      key.idleCount += by;
    }
    if (entry.isDraining) {
      this.draining += by;
      key.extras.draining += by;
      if (entry.reason === "evicted") this.yielding += by;
    }
  }

  #close(entry: Entry<K, C>): void {
    let isAsync = false;
    const closing = outcome(() => {
      const closed: unknown = entry.conn.close();
      isAsync = isThenable(closed);
      return closed;
    });
    if (this.core.keys.rules.maxConns < unlimited) this.#countClosing(entry, closing, isAsync);
    this.#closed(entry, closing);
  }

  /** Counts a conn until its `closed` settles, or its `close()`, where that is async; in any case not for ever. */
  #countClosing(entry: Entry<K, C>, closing: Promise<unknown>, isAsync: boolean): void {
    this.#closing.add(entry);
    const patience = timer(() => this.core.enter(() => this.#gone(entry)));
    this.#timers.arm(patience, closePatienceMs);
    const gone = () => {
      this.#timers.disarm(patience);
      this.core.enter(() => this.#gone(entry));
    };
    void outcome(() => entry.conn.closed).then(gone);
    if (isAsync) void closing.then(gone);
  }

  /** The socket of a conn is not there any more. */
  #gone(entry: Entry<K, C>): void {
    if (!this.#closing.delete(entry)) return;
    this.core.placeFreed();
    if (this.#closing.size === 0) this.core.minIdle.letGo();
  }

  /** `closing` is what its `close()` brings; it never rejects. Absent: the conn died. */
  #closed(entry: Entry<K, C>, closing: ReturnType<typeof outcome> | undefined): void {
    const { key, reason } = entry;
    key.counters.closed[reason]++;
    key.remember("closed", reason, this.#timers.now());
    this.#conns.closed(entry, closing);
    this.core.closed(closing);
  }
}
