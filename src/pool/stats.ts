import type { CloseReason } from "../contract.ts";
import type { ConnInfo } from "../options.ts";

/** What `stats()` returns: of the pool, or of one key since it last appeared. */
export interface PoolStats {
  /** Conns now: idle, leased and draining ones. */
  readonly open: number;
  /** Dials in flight. */
  readonly dialing: number;
  readonly idle: number;
  readonly leased: number;
  readonly draining: number;
  /** Conns, idle or leased, whose last `unblocked()` is pending. */
  readonly blocked: number;
  /** Streams that run now. */
  readonly streams: number;
  /** Callers that wait for a lease. */
  readonly waiting: number;
  /** Keys with a conn, a dial, a waiter or a running backoff. */
  readonly keys: number;
  /** Leases that found a conn with room at once. */
  readonly hits: number;
  /** Requests that found none. */
  readonly misses: number;
  readonly dials: number;
  readonly dialErrors: number;
  /** Requests that got no lease in time. */
  readonly timeouts: number;
  readonly closed: Readonly<Record<CloseReason, number>>;
  /** Milliseconds that these counts cover. */
  readonly sinceMs: number;
  /** With a key: each of its conns. */
  readonly conns?: readonly ConnInfo[];
}

/** What is counted since the start. */
export class Tally {
  hits = 0;
  misses = 0;
  dials = 0;
  dialErrors = 0;
  timeouts = 0;
  #closed: Record<CloseReason, number> | undefined;

  get closed(): Record<CloseReason, number> {
    this.#closed ??= {
      evicted: 0,
      expired: 0,
      retired: 0,
      cleared: 0,
      configured: 0,
      invalid: 0,
      reset: 0,
      blocked: 0,
      silent: 0,
      discarded: 0,
      died: 0,
      goaway: 0,
      pool: 0,
    };
    return this.#closed;
  }

  /** Adds what `other` has counted. */
  absorb(other: Tally): void {
    this.hits += other.hits;
    this.misses += other.misses;
    this.dials += other.dials;
    this.dialErrors += other.dialErrors;
    this.timeouts += other.timeouts;
    if (other.#closed === undefined) return;
    const { closed } = this;
    for (const reason of closeReasons) closed[reason] += other.#closed[reason];
  }
}

const closeReasons: readonly CloseReason[] = [
  "evicted",
  "expired",
  "retired",
  "cleared",
  "configured",
  "invalid",
  "reset",
  "blocked",
  "silent",
  "discarded",
  "died",
  "goaway",
  "pool",
];

/** What the counts are made of; a key's record is one. */
export interface Counted {
  readonly open: number;
  readonly idleCount: number;
  readonly drainingCount: number;
  readonly demand: { readonly dials: { readonly size: number }; readonly waiters: { readonly size: number } };
  count(sum: Tally): void;
  conns(): readonly { readonly streams: number; readonly blocked: boolean }[];
}

/** A frozen snapshot of some keys; `gone` is what keys counted that are forgotten. */
export function statsOf(
  peers: Iterable<Counted>,
  gone: Tally | undefined,
  sinceMs: number,
  conns?: readonly ConnInfo[],
): PoolStats {
  const tally = new Tally();
  if (gone !== undefined) tally.absorb(gone);
  const now = { open: 0, dialing: 0, idle: 0, leased: 0, draining: 0, blocked: 0, streams: 0, waiting: 0, keys: 0 };
  for (const peer of peers) {
    peer.count(tally);
    now.open += peer.open;
    now.dialing += peer.demand.dials.size;
    now.idle += peer.idleCount;
    now.leased += peer.open - peer.idleCount - peer.drainingCount;
    now.draining += peer.drainingCount;
    for (const { streams, blocked } of peer.conns()) {
      now.streams += streams;
      if (blocked) now.blocked++;
    }
    now.waiting += peer.demand.waiters.size;
    now.keys++;
  }
  const { hits, misses, dials, dialErrors, timeouts } = tally;
  const closed = Object.freeze({ ...tally.closed });
  const stats = { ...now, hits, misses, dials, dialErrors, timeouts, closed, sinceMs };
  return Object.freeze(conns === undefined ? stats : { ...stats, conns: Object.freeze(conns) });
}
