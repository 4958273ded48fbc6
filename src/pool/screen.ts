import { show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { NoConnError, NoMatchError, type PoolError, QueueFullError } from "../errors.ts";
import type { Peer, PeerWaiter } from "./key-pool.ts";
import type { Queue } from "./wait-queue.ts";

/** Turns away newcomers that may not wait, and waiters whom nothing can serve any more. */
export class Screen<K, C extends PoolConn> {
  readonly #queue: Queue<K, C>;

  constructor(queue: Queue<K, C>) {
    this.#queue = queue;
  }

  /** Returns whether a newcomer was refused: a dial may be one too many now. */
  screen(peer: Peer<K, C>): boolean {
    const { demand } = peer;
    const { waiters } = demand;
    const before = waiters.size;
    if (before === 0) return false;
    let doubtful: PeerWaiter<K, C>[] = [];
    for (let waiter = waiters.tail; waiter?.fresh; ) {
      const { prev } = waiter;
      waiter.fresh = false;
      const error = this.#refusal(peer, waiter);
      if (error !== undefined) this.#queue.reject(waiter, error);
      else if (!waiter.wantsDial) doubtful.push(waiter);
      waiter = prev;
    }
    const refused = waiters.size < before;
    if (demand.dials.size > 0) {
      demand.inDoubt = true;
      return refused;
    }
    if (demand.inDoubt && waiters.size > demand.wanting) doubtful = [...waiters];
    demand.inDoubt = false;
    for (const waiter of doubtful) {
      const error = this.#hopeless(peer, waiter);
      if (error !== undefined && waiter.list !== undefined) this.#queue.reject(waiter, error);
    }
    return refused;
  }

  #refusal(peer: Peer<K, C>, waiter: PeerWaiter<K, C>): PoolError | undefined {
    const { demand } = peer;
    const { backoff, maxWaiters } = peer.rules;
    if (backoff !== undefined && demand.pause !== undefined && waiter.wantsDial && !waiter.request.waitForReady) {
      return demand.lastError;
    }
    const heldBack = demand.waiters.size - Math.min(demand.promised(), demand.wanting);
    if (heldBack <= maxWaiters) return undefined;
    return new QueueFullError(
      `${heldBack - 1} callers wait for ${show(peer.key)} already, and maxWaiters is ${maxWaiters}`,
    );
  }

  /** Why no conn can ever come to a waiter that is not worth a dial; `undefined`: one may. */
  #hopeless(peer: Peer<K, C>, waiter: PeerWaiter<K, C>): PoolError | undefined {
    const { tried } = waiter;
    const { filter } = waiter.request;
    if (waiter.wantsDial || (filter === undefined && peer.open > peer.drainingCount)) return undefined;
    const conns = peer.conns().filter((conn) => conn.ready);
    if (conns.some((conn) => peer.passes(conn, filter))) return undefined;
    const key = show(peer.key);
    const { lastError } = peer.demand;
    const cause = lastError === undefined ? {} : { cause: lastError };
    if (filter !== undefined && (tried || conns.length > 0)) {
      return new NoMatchError(`none of the ${conns.length} conns of ${key} passes the filter`);
    }
    if (tried) return new NoConnError(`the conn dialed for ${key} has gone`, cause);
    return new NoConnError(`${key} has no conn, and there is no dial function to open one`, cause);
  }
}
