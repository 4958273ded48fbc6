import type { CloseReason, PoolConn } from "../contract.ts";
import { processAnchor } from "../runtime/clock.ts";
import type { Failure } from "../runtime/guard.ts";
import { isArmed, type Timer, type Timers, timer } from "../runtime/timers.ts";
import type { Core } from "./core.ts";
import { closePatienceMs } from "./entries.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** What is done to the conns of many keys at once, oldest first: `clear`, `configure` and the close of the pool. */
export class Drain<K, C extends PoolConn> {
  readonly #core: Core<K, C>;
  #shutdown: Shutdown | undefined;

  constructor(core: Core<K, C>) {
    this.#core = core;
  }

  /** The pool is closed, or closes. */
  get isClosed(): boolean {
    return this.#shutdown !== undefined;
  }

  /** All conns drain, now or over a time; dials are abandoned, backoffs end; waiters stay, and are dialed for again. */
  clear(keys: readonly KeyPool<K, C>[], withinMs: number): void {
    this.#stopDials(keys, "the key was cleared");
    if (withinMs === 0) this.#drainAll(keys, "cleared");
    else for (const entry of entriesOf(keys)) this.#core.lifetimes.shorten(entry, Math.random() * withinMs);
    for (const key of keys) this.#core.serve(key);
  }

  /** The rules have changed: what is over them and idle is closed, what is over them and in use drains; dials are abandoned. */
  configured(keys: readonly KeyPool<K, C>[]): void {
    const { capacity, selector, lifetimes } = this.#core;
    const all = entriesOf(keys);
    for (const key of keys) this.#core.ruled(key);
    for (const entry of all) {
      selector.place(entry);
      lifetimes.rearm(entry);
      if (entry.isIdle && entry.tick < 0) entry.key.idleQueue?.touch(entry);
    }
    this.fit(keys, "configured", "limits were lowered");
    for (const key of keys) capacity.trim(key, "configured");
    for (const key of keys) this.#core.freed(key);
  }

  /** What is over the limits goes: dials first, newest first, since nobody uses them yet; then idle conns; those in use drain. */
  fit(keys: readonly KeyPool<K, C>[], reason: CloseReason, why: string): void {
    const { capacity, dialer, entries } = this.#core;
    const dials = keys.flatMap(({ pending }) => [...pending.dials]).sort((a, b) => a.startedAt - b.startedAt);
    for (const dial of dials.reverse()) if (capacity.isOverDials(dial.key)) dialer.abandon(dial, why);
    const all = entriesOf(keys);
    for (const entry of [...all.filter(({ isIdle }) => isIdle), ...all.filter(({ isIdle }) => !isIdle)]) {
      if (capacity.isOver(entry)) entries.drain(entry, reason);
    }
  }

  /**
   * Waiters fail, dials are abandoned, all conns drain, and are closed under their streams when the grace is over. Closing
   * twice is one close; a shorter grace then counts.
   */
  close(graceMs: number): Promise<void> {
    this.#shutdown ??= this.#beginClose();
    this.#shutdown.grant(graceMs);
    return this.#shutdown.done;
  }

  /** A conn has been closed. */
  closed(closing: Promise<Failure | undefined> | undefined): void {
    if (this.#shutdown === undefined) return;
    if (closing !== undefined) this.#shutdown.watch(closing);
    if (this.#core.entries.open === 0) this.#shutdown.allClosed();
  }

  #beginClose(): Shutdown {
    const { timers, keys, queue, minIdle, idleOrder, entries } = this.#core;
    const destroyAll = () => {
      for (const entry of entriesOf([...keys])) entries.destroy(entry, "pool");
    };
    const shutdown = new Shutdown(timers, () => this.#core.enter(destroyAll));
    this.#shutdown = shutdown;
    const all = [...keys];
    const { account } = this.#core;
    keys.retireAll();
    for (const key of all) {
      queue.failAll(key, (waiter) => account.poolClosed(waiter));
      minIdle.rejectAll(key, (warm) => account.poolClosed(warm));
    }
    idleOrder.stop();
    this.#stopDials(all, "the pool was closed");
    this.#drainAll(all, "pool");
    for (const key of all) this.#core.serve(key);
    if (entries.open === 0) shutdown.allClosed();
    return shutdown;
  }

  #stopDials(keys: readonly KeyPool<K, C>[], why: string): void {
    for (const key of keys) {
      this.#core.backoffs.end(key);
      this.#core.dialer.abandonAll(key, why);
    }
  }

  #drainAll(keys: readonly KeyPool<K, C>[], reason: CloseReason): void {
    this.#core.entries.drainAll(entriesOf(keys), reason);
  }
}

/** In the order of their give-backs. */
function entriesOf<K, C extends PoolConn>(keys: readonly KeyPool<K, C>[]): Entry<K, C>[] {
  return keys.flatMap((key) => key.entries()).sort((a, b) => a.releaseSeq - b.releaseSeq);
}

/** The close of a pool: over when no conn is open and each has closed, or failed to. */
class Shutdown {
  readonly done: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  readonly #timers: Timers;
  readonly #graceOver: () => void;
  readonly #grace: Timer;
  readonly #errors: unknown[] = [];
  #pending = 0;
  #isOver = false;
  #hasOpen = true;

  constructor(timers: Timers, graceOver: () => void) {
    this.#timers = timers;
    this.#graceOver = graceOver;
    this.#grace = timer(graceOver);
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    processAnchor().hold();
  }

  /** Leases may run on for so long; a second, shorter grace shortens the first. */
  grant(graceMs: number): void {
    if (!this.#hasOpen) return;
    if (isArmed(this.#grace) && this.#grace.rank <= this.#timers.now() + graceMs) return;
    this.#timers.disarm(this.#grace);
    if (graceMs === 0) this.#graceOver();
    else this.#timers.arm(this.#grace, graceMs);
  }

  watch(closing: Promise<Failure | undefined>): void {
    this.#pending++;
    let isSettled = false;
    const settle = (failure: Failure | undefined) => {
      if (isSettled) return;
      isSettled = true;
      this.#timers.disarm(patience);
      if (failure !== undefined) this.#errors.push(failure.error);
      this.#pending--;
      this.#finish();
    };
    const patience = timer(() =>
      settle({ error: new Error(`close() of a conn was still pending after ${closePatienceMs} ms`) }),
    );
    this.#timers.arm(patience, closePatienceMs);
    void closing.then(settle);
  }

  /** No conn is open any more. */
  allClosed(): void {
    this.#hasOpen = false;
    this.#timers.disarm(this.#grace);
    this.#finish();
  }

  #finish(): void {
    if (this.#hasOpen || this.#pending > 0 || this.#isOver) return;
    this.#isOver = true;
    processAnchor().drop();
    const { length } = this.#errors;
    if (length === 0) this.#resolve();
    else this.#reject(new AggregateError(this.#errors, `${length} of the pool's conns failed to close`));
  }
}
