import { show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { WaitTimeoutError } from "../errors.ts";
import { processAnchor } from "../runtime/clock.ts";
import type { Schedule } from "../runtime/timers.ts";
import type { Events } from "./events.ts";
import type { Member, Peer, PeerWaiter } from "./key-pool.ts";
import { type Request, Waiter, type WaiterOwner } from "./waiter.ts";

/** Told when a waiter has left by itself: its dial may be one too many now. */
export interface QueueOwner<K, C extends PoolConn> {
  gaveUp(peer: Peer<K, C>): void;
}

/** The waiters of all keys: how they come and go. While there is one, the process stays. */
export class Queue<K, C extends PoolConn> implements WaiterOwner<PeerWaiter<K, C>> {
  /** Waiters of all keys. */
  size = 0;
  #numbers = 0;
  readonly schedule: Schedule;
  readonly #events: Events<K, C>;
  readonly #owner: QueueOwner<K, C>;

  constructor(schedule: Schedule, events: Events<K, C>, owner: QueueOwner<K, C>) {
    this.schedule = schedule;
    this.#events = events;
    this.#owner = owner;
  }

  /** A number after all that the waiters have had so far. */
  next(): number {
    return ++this.#numbers;
  }

  join<R>(
    peer: Peer<K, C>,
    request: Request<K, C>,
    give: (conn: Member<K, C>) => R,
    resolve: (given: R) => void,
    reject: (error: unknown) => void,
  ): PeerWaiter<K, C> {
    const waiter: PeerWaiter<K, C> = new Waiter(peer, request, this.next(), give, resolve, reject, this);
    waiter.watch();
    if (waiter.timed || this.#events.served.active) {
      waiter.since = this.schedule.clock.now();
      waiter.dialedBefore = peer.demand.dialedFor(waiter.since);
    }
    const demand = peer.need();
    demand.waiters.push(waiter);
    if (waiter.wantsDial) demand.wanting++;
    if (this.size++ === 0) processAnchor().hold();
    if (this.#events.waiting.active) this.#tellWaiting(peer);
    return waiter;
  }

  serve(waiter: PeerWaiter<K, C>, conn: Member<K, C>): void {
    this.#leave(waiter);
    waiter.resolve(conn);
    if (waiter.since !== undefined && this.#events.served.active) this.#tellServed(waiter, conn);
  }

  // Apart from their callers: a closure in those would cost an allocation at each call, made or not.

  #tellWaiting(peer: Peer<K, C>): void {
    this.#events.waiting.emit(() => ({ key: peer.key }));
  }

  #tellServed(waiter: PeerWaiter<K, C>, conn: Member<K, C>): void {
    const ms = waitedMs(waiter, this.schedule.clock.now());
    this.#events.served.emit(() => ({ key: waiter.home.key, conn: conn.conn, ms }));
  }

  reject(waiter: PeerWaiter<K, C>, error: unknown): void {
    this.#leave(waiter);
    waiter.reject(error);
  }

  rejectAll(peer: Peer<K, C>, error: unknown): void {
    for (let waiter = peer.demand.waiters.head; waiter !== undefined; waiter = peer.demand.waiters.head)
      this.reject(waiter, error);
  }

  /** Its dial brought a conn that it cannot use: it is not dialed for again. */
  giveUpDialing(waiter: PeerWaiter<K, C>): void {
    if (waiter.list === undefined || !waiter.wantsDial) return;
    waiter.tried = true;
    waiter.home.demand.wanting--;
  }

  timedOut(waiter: PeerWaiter<K, C>): void {
    const peer = waiter.home;
    const now = this.schedule.clock.now();
    const ms = waitedMs(waiter, now);
    const waited = Math.round(ms);
    const dialed = Math.round(peer.demand.dialedFor(now) - waiter.dialedBefore);
    const leased = peer.open - peer.idleCount - peer.drainingCount;
    const message =
      `no lease for ${show(peer.key)} in time: waited ${waited} ms, ${dialed} ms of it dialing; conns of this key: ` +
      `${peer.open} open, ${peer.idleCount} idle, ${leased} leased; waiting: ${peer.demand.waiters.size}`;
    peer.tally.timeouts++;
    const error = new WaitTimeoutError(
      message,
      peer.demand.lastError === undefined ? {} : { cause: peer.demand.lastError },
    );
    this.#events.timedOut.emit(() => ({ key: peer.key, error, ms }));
    this.reject(waiter, error);
    this.#owner.gaveUp(peer);
  }

  aborted(waiter: PeerWaiter<K, C>, reason: unknown): void {
    this.reject(waiter, reason);
  }

  left(waiter: PeerWaiter<K, C>): void {
    this.#owner.gaveUp(waiter.home);
  }

  #leave(waiter: PeerWaiter<K, C>): void {
    const peer = waiter.home;
    peer.demand.waiters.remove(waiter);
    if (waiter.wantsDial) peer.demand.wanting--;
    if (--this.size === 0) processAnchor().drop();
  }
}

/** Nothing, where it is not known since when: nobody may ask then. */
function waitedMs({ since }: { readonly since: number | undefined }, now: number): number {
  return since === undefined ? 0 : now - since;
}
