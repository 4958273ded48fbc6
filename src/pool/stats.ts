import type { CloseReason, PoolConn } from "../contract.ts";
import type { ConnInfo, Limits } from "../options.ts";
import type { KeyPool } from "./key-pool.ts";

/**
 * What `stats()` returns: of the pool, or of one key since it last appeared. It adds up:
 * `open = idle + leased + draining`, `dials = dialed + dialErrors + abandoned + dialing`, and
 * `misses = served + timeouts + refused + aborted + failed + empty + waiting`.
 */
export interface PoolStats {
  /** Conns now: idle, leased and draining ones. */
  readonly open: number;
  /** Dials in flight now. */
  readonly dialing: number;
  /** Conns now that run no stream. */
  readonly idle: number;
  /** Conns now that run streams and take more, or would if they had room. */
  readonly leased: number;
  /** Conns now that take no new streams, and close after their last. */
  readonly draining: number;
  /** Conns now, idle or leased, that are skipped: `unblocked()` is pending, or a `reset`, a validation or a ping runs. */
  readonly blocked: number;
  /** Streams that run now. */
  readonly streams: number;
  /** Callers that wait for a lease now. */
  readonly waiting: number;
  /** Keys with a conn, a dial, a waiter or a running backoff. */
  readonly keys: number;
  /** Requests that found a conn with room at once. */
  readonly hits: number;
  /** Requests that found none. */
  readonly misses: number;
  /** Dials begun. */
  readonly dials: number;
  /** Dials that brought a conn. */
  readonly dialed: number;
  /** Dials that failed, or were not done in time. */
  readonly dialErrors: number;
  /** Dials that nobody wanted any more before they were done. */
  readonly abandoned: number;
  /** Requests that waited and got a lease. */
  readonly served: number;
  /** Requests that got no lease in time. */
  readonly timeouts: number;
  /** Requests refused: `maxWaiters` others waited, a backoff ran, or newer ones were served first (`queue: "codel"`). */
  readonly refused: number;
  /** Requests whose signal aborted while they waited. */
  readonly aborted: number;
  /** Requests that failed otherwise: the dial failed, nothing could dial, no conn passed the filter, the pool was closed. */
  readonly failed: number;
  /** Calls of `tryAcquire` that found no lease. */
  readonly empty: number;
  /** Conns that were closed, by reason. */
  readonly closed: Readonly<Record<CloseReason, number>>;
  /** The limits in force, as the options say them. */
  readonly limits: Limits;
  /** Milliseconds that these counts cover. */
  readonly sinceMs: number;
  /** With a key: each of its conns. */
  readonly conns?: readonly ConnInfo[];
}

/** What is counted since the start. */
export class Counters {
  hits = 0;
  misses = 0;
  dials = 0;
  dialed = 0;
  dialErrors = 0;
  abandoned = 0;
  served = 0;
  timeouts = 0;
  refused = 0;
  aborted = 0;
  failed = 0;
  empty = 0;
  #closed: Record<CloseReason, number> | undefined;

  get closed(): Record<CloseReason, number> {
    this.#closed ??= { ...noneClosed };
    return this.#closed;
  }

  /** Adds what `other` has counted. */
  add(other: Counters): void {
    for (const name of counted) this[name] += other[name];
    if (other.#closed === undefined) return;
    for (const reason of closeReasons) this.closed[reason] += other.#closed[reason];
  }
}

const counted = [
  "hits",
  "misses",
  "dials",
  "dialed",
  "dialErrors",
  "abandoned",
  "served",
  "timeouts",
  "refused",
  "aborted",
  "failed",
  "empty",
] as const;

const closeReasons = [
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
] as const;

const noneClosed: Readonly<Record<CloseReason, number>> = {
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

/** A frozen snapshot of some keys; `gone` is what keys counted that are forgotten. */
export function statsOf<K, C extends PoolConn>(
  keys: Iterable<KeyPool<K, C>>,
  gone: Counters | undefined,
  limits: Limits,
  sinceMs: number,
  conns?: readonly ConnInfo[],
): PoolStats {
  const counters = new Counters();
  if (gone !== undefined) counters.add(gone);
  const now = { open: 0, dialing: 0, idle: 0, leased: 0, draining: 0, blocked: 0, streams: 0, waiting: 0, keys: 0 };
  for (const key of keys) {
    key.addTo(counters);
    now.open += key.open;
    now.dialing += key.pending.dials.size;
    now.idle += key.idleCount;
    now.leased += key.leasedCount;
    now.draining += key.drainingCount;
    now.blocked += key.blockedCount;
    for (let entry = key.oldest; entry !== undefined; entry = entry.younger) now.streams += entry.streams;
    now.waiting += key.pending.waiters.size;
    now.keys++;
  }
  const closed = Object.freeze(counters.closed);
  const stats = Object.assign(now, counters, { closed, limits: Object.freeze(limits), sinceMs });
  return Object.freeze(conns === undefined ? stats : Object.assign(stats, { conns: Object.freeze(conns) }));
}
