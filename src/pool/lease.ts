import type { Lease, PoolConn } from "../contract.ts";
import type { Timer, Timers } from "../runtime/timers.ts";
import { timer } from "../runtime/timers.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { Events } from "./events.ts";

/** A stream slot in the hands of a caller. */
export class PoolLease<K, C extends PoolConn> implements Lease<C> {
  readonly conn: C;
  #entry: Entry<K, C> | undefined;
  readonly #core: Core<K, C>;

  constructor(entry: Entry<K, C>, core: Core<K, C>) {
    this.conn = entry.conn;
    this.#entry = entry;
    this.#core = core;
  }

  /** When it was taken, where that is known. */
  protected get since(): number | undefined {
    return undefined;
  }

  release(outcome?: { readonly unanswered?: boolean | undefined }): void {
    const entry = this.#entry;
    if (entry === undefined) return;
    this.#entry = undefined;
    if (outcome?.unanswered) this.#core.unanswered(entry);
    this.#core.release(entry, this.since);
  }

  discard(error?: unknown): void {
    const entry = this.#entry;
    if (entry === undefined) return;
    this.#core.discard(entry, error);
    this.release();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** One whose time somebody wants to know. */
export class TimedLease<K, C extends PoolConn> extends PoolLease<K, C> {
  readonly #since: number | undefined;

  constructor(entry: Entry<K, C>, core: Core<K, C>) {
    super(entry, core);
    this.#since = core.entries.clock();
  }

  protected override get since(): number | undefined {
    return this.#since;
  }
}

/** One that is missed if it does not come back. */
export class WatchedLease<K, C extends PoolConn> extends TimedLease<K, C> {
  readonly #leaks: LeakDetector<K, C>;
  readonly #ticket: LeaseTicket<K, C>;

  /** `stack`: where it was taken. */
  constructor(entry: Entry<K, C>, core: Core<K, C>, leaks: LeakDetector<K, C>, stack: string) {
    super(entry, core);
    this.#leaks = leaks;
    this.#ticket = leaks.taken(this, entry, stack);
  }

  override release(outcome?: { readonly unanswered?: boolean | undefined }): void {
    this.#leaks.released(this.#ticket);
    super.release(outcome);
  }
}

/** What is known of a lease that is out. It must not refer to the lease, which could not be collected then. */
export interface LeaseTicket<K, C extends PoolConn> extends Timer {
  readonly entry: Entry<K, C>;
  readonly since: number;
  readonly stack: string;
}

/** Finds leases that are not given back: those older than a limit, and those that nobody can give back any more. */
export class LeakDetector<K, C extends PoolConn> {
  readonly #afterMs: number;
  readonly #timers: Timers;
  readonly #events: Events<K, C>;
  readonly #tickets = new Set<LeaseTicket<K, C>>();
  readonly #collected = new FinalizationRegistry<LeaseTicket<K, C>>((ticket) => {
    this.#report(ticket, true);
    this.released(ticket);
  });

  constructor(afterMs: number, timers: Timers, events: Events<K, C>) {
    this.#afterMs = afterMs;
    this.#timers = timers;
    this.#events = events;
  }

  /** Where the caller of the pool's method is: taken before it waits, since the way back is lost then. */
  static where(): string {
    const frames = new Error().stack?.split("\n") ?? [];
    return frames.slice(3).join("\n"); // without the message, this method and the pool's
  }

  taken(lease: Lease<C>, entry: Entry<K, C>, stack: string): LeaseTicket<K, C> {
    const since = this.#timers.now();
    const ticket: LeaseTicket<K, C> = {
      ...timer(() => this.#report(ticket, false)),
      entry,
      since,
      stack,
    };
    this.#tickets.add(ticket);
    this.#timers.arm(ticket, this.#afterMs);
    this.#collected.register(lease, ticket, ticket);
    return ticket;
  }

  /** The pool is closed: nobody needs the slots any more. */
  stop(): void {
    for (const ticket of this.#tickets) this.released(ticket);
  }

  released(ticket: LeaseTicket<K, C>): void {
    this.#tickets.delete(ticket);
    this.#timers.disarm(ticket);
    this.#collected.unregister(ticket);
  }

  #report({ entry, since, stack }: LeaseTicket<K, C>, collected: boolean): void {
    const { conn, key } = entry;
    const ms = this.#timers.now() - since;
    const how = collected ? "was collected as garbage, and never released" : "has not been released";
    process.emitWarning(`a lease for ${key.name}, taken ${Math.round(ms)} ms ago, ${how}. It was taken\n${stack}`, {
      code: "RPC_CONN_POOL_LEAK",
    });
    this.#events.leaked.emit(() => ({ key: key.id, conn, ms, collected, stack }));
  }
}
