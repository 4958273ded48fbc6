import { show } from "./argument.ts";
import { pauseMs } from "./backoff.ts";
import type { CloseFailure } from "./closing.ts";
import type { CloseReason, Dial, PoolConn } from "./contract.ts";
import { Dialer, type DialerOwner } from "./dialer.ts";
import { type DialError, NoConnError, NoMatchError, type PoolError, QueueFullError } from "./errors.ts";
import type { Events } from "./events.ts";
import { Health, type HealthOwner } from "./health.ts";
import { Keeper } from "./keeper.ts";
import type { Rules } from "./limits.ts";
import type { Filter, Reset, Validate } from "./options.ts";
import type { Member, Peer, PeerDialing, PeerWaiter } from "./peer.ts";
import { Places } from "./places.ts";
import { Queue, type QueueOwner } from "./queue.ts";
import { Roster, type RosterOwner } from "./roster.ts";
import type { Schedule, Task } from "./schedule.ts";
import type { ShelfOwner } from "./shelf.ts";
import type { Request } from "./waiter.ts";

/** What the pool's owner said that concerns the dispatcher. */
export interface DispatcherOptions<K, C extends PoolConn> {
  readonly rules: Rules;
  readonly dial?: Dial<K, C> | undefined;
  readonly validate?: Validate<C> | undefined;
  readonly reset?: Reset<C> | undefined;
}

/** What the dispatcher tells the pool. */
export interface DispatcherOwner<K, C extends PoolConn> {
  /** Nothing is left of a key. */
  emptied(peer: Peer<K, C>): void;
  closed(conn: Member<K, C>, closing?: Promise<CloseFailure | undefined>): void;
}

/** Waiters served in one go; I/O gets its turn between two. */
const batch = 1000;

/**
 * Hands conns to waiters. Whatever happens to a conn, a dial or a limit ends by calling `serve`, which does for
 * each waiter of a key, in order, what is possible: a conn with a free slot; else a dial; else an idle conn of
 * another key is evicted to make room for one; else it waits.
 */
export class Dispatcher<K, C extends PoolConn>
  implements RosterOwner<K, C>, DialerOwner<K, C>, QueueOwner<K, C>, HealthOwner<K, C>, ShelfOwner<Member<K, C>>
{
  readonly roster: Roster<K, C>;
  readonly dialer: Dialer<K, C>;
  readonly queue: Queue<K, C>;
  readonly now: () => number;
  readonly #schedule: Schedule;
  readonly #owner: DispatcherOwner<K, C>;
  readonly places: Places<K, C>;
  readonly health: Health<K, C>;
  readonly keeper: Keeper<K, C>;
  readonly isDue: ((conn: Member<K, C>) => boolean) | undefined;
  #serving = false;
  /** Keys to serve after the one being served: a callback of the caller's may cause any. */
  readonly #again = new Set<Peer<K, C>>();

  constructor(
    options: DispatcherOptions<K, C>,
    schedule: Schedule,
    events: Events<K, C>,
    owner: DispatcherOwner<K, C>,
  ) {
    this.#schedule = schedule;
    this.#owner = owner;
    this.now = () => schedule.clock.now();
    this.roster = new Roster(options.rules, schedule, events, this);
    this.dialer = new Dialer(this.roster, schedule, events, this);
    this.queue = new Queue(schedule, events, this);
    this.places = new Places(this.roster, this.dialer, this.queue);
    this.keeper = new Keeper(options.dial, schedule, this.roster, this.dialer, this.places, this);
    const health = new Health(options, schedule, this.roster, this);
    this.health = health;
    this.isDue = health.validates ? (conn) => health.isDue(conn) : undefined;
  }

  /** A lease at once: neither dials nor waits, nor passes a waiter of the same key. */
  tryLease(peer: Peer<K, C>, filter: Filter<C> | undefined): Member<K, C> | undefined {
    if (peer.waiters.size !== 0) {
      this.serve(peer);
      if (peer.batching || this.#serving) return undefined;
    }
    // Slots that a conn has gained silently are for those who wait.
    const conn = peer.pick(filter, this.now, peer.waiters.size === 0);
    if (conn === undefined) return undefined;
    this.#lease(conn);
    peer.tally.hits++;
    return conn;
  }

  /** A lease as soon as there is one. `tryLease` has found none. */
  wait(peer: Peer<K, C>, request: Request<K, C>): Promise<Member<K, C>> {
    // It may have aborted since the call began: in a filter, or before an RPC is sent again.
    if (request.signal?.aborted) return Promise.reject(request.signal.reason);
    peer.tally.misses++;
    const waiter = this.queue.join(peer, request);
    this.serve(peer);
    return waiter.promise;
  }

  #lease(conn: Member<K, C>): void {
    const peer = conn.home;
    if (peer.attended) this.#attendLease(conn);
    this.roster.lease(conn);
    if (peer.rules.minIdle > 0) this.serve(peer);
  }

  /** A stream has ended. Its slot is free before the caller learns of the end. */
  release(conn: Member<K, C>): void {
    const peer = conn.home;
    if (peer.attended) this.#attendRelease(conn);
    if (!this.roster.release(conn)) return;
    if (peer.attended) this.health.reset(conn);
    if (this.queue.size !== 0) {
      if (this.places.mustYield(conn)) {
        this.roster.end(conn, "evicted");
        return;
      }
      this.available(peer);
      this.roster.settle(conn);
      this.#feed();
    } else this.roster.settle(conn);
  }

  /** What the options ask for beside counting, kept off the path of those who ask for nothing. */
  #attendLease(conn: Member<K, C>): void {
    conn.latency?.changed(conn.streams, this.now());
    if (conn.home.rules.minIdle > 0) this.keeper.used(conn.home);
  }

  #attendRelease(conn: Member<K, C>): void {
    conn.latency?.ended(conn.streams, this.now());
    if (this.isDue !== undefined) this.health.used(conn);
    if (conn.home.rules.minIdle > 0) this.keeper.used(conn.home);
  }

  /** A key has appeared, or its rules have changed. */
  equip(peer: Peer<K, C>): void {
    peer.attended = this.health.attends || peer.measured || peer.rules.minIdle > 0;
    this.roster.order(peer);
  }

  /** The one way in of a conn: its key's waiters first, then the cache, then other keys. */
  admit(conn: Member<K, C>, peer: Peer<K, C>): void {
    this.roster.add(conn, peer);
    this.#admitted(conn, peer);
  }

  #admitted(conn: Member<K, C>, peer: Peer<K, C>): void {
    this.serve(peer);
    this.roster.settle(conn);
    this.#feed();
  }

  dialed(dialing: PeerDialing<K, C>, conn: Member<K, C>): void {
    const peer = dialing.home;
    peer.failures = 0;
    peer.lastError = undefined;
    this.endPause(peer);
    this.roster.add(conn, peer);
    this.keeper.dialed(dialing, conn);
    // Before anybody is served: a second dial would be started for those whom this conn is of no use to.
    for (const waiter of peer.waitersFor(dialing, 0)) {
      if (waiter.dial === dialing.by && !this.#suits(conn, waiter)) this.queue.giveUpDialing(waiter);
    }
    this.#admitted(conn, peer);
  }

  dialFailed(dialing: PeerDialing<K, C>, error: DialError, ahead: number): void {
    const peer = dialing.home;
    peer.tally.dialErrors++;
    peer.failures++;
    peer.lastError = error;
    const { backoff } = peer.rules;
    const spent = peer.failures >= (backoff?.maxAttempts ?? Number.POSITIVE_INFINITY);
    for (const waiter of spent ? [...peer.waiters] : peer.waitersFor(dialing, ahead)) {
      if (spent || error.final || !waiter.waitForReady) this.queue.reject(waiter, error);
    }
    if (backoff !== undefined) this.#pause(peer, pauseMs(backoff, peer.failures));
    else if (peer.wanting > 0 || this.keeper.isWarming(peer)) this.#pause(peer, undefined);
    if (dialing.background) this.keeper.failed(peer, error, spent);
    this.freed(peer);
  }

  /** No dials for a while; `undefined`: until I/O has had its turn, since a dial may fail at once, time after time. */
  #pause(peer: Peer<K, C>, ms: number | undefined): void {
    this.endPause(peer);
    const pause: Task = {
      due: 0,
      place: -1,
      run: () => {
        if (peer.pause !== pause) return;
        peer.pause = undefined;
        this.#remember(peer);
        this.serve(peer);
      },
    };
    peer.pause = pause;
    if (ms === undefined) setImmediate(() => pause.run());
    else this.#schedule.add(pause, ms);
  }

  /**
   * Callers that fail fast leave nobody behind who waits for the pause to end. The key stays for `maxMs`, or the first
   * of them to come back would begin with the shortest pause again, and dial a dead peer for ever at that pace.
   */
  #remember(peer: Peer<K, C>): void {
    const { backoff } = peer.rules;
    if (backoff === undefined) return;
    const grudge: Task = {
      due: 0,
      place: -1,
      run: () => {
        if (peer.dials.size > 0) {
          this.#schedule.add(grudge, backoff.maxMs); // it may fail yet
          return;
        }
        peer.grudge = undefined;
        peer.failures = 0;
        this.serve(peer);
      },
    };
    peer.grudge = grudge;
    this.#schedule.add(grudge, backoff.maxMs);
  }

  /** The caller serves the key then. */
  endPause(peer: Peer<K, C>): void {
    if (peer.pause !== undefined) this.#schedule.cancel(peer.pause);
    peer.pause = undefined;
    if (peer.grudge !== undefined) this.#schedule.cancel(peer.grudge);
    peer.grudge = undefined;
  }

  available(peer: Peer<K, C>): void {
    if (peer.waiters.size !== 0) this.serve(peer);
  }

  freed(peer: Peer<K, C>): void {
    this.serve(peer);
    this.#feed();
  }

  left(conn: Member<K, C>): void {
    this.health.stop(conn);
    this.keeper.left(conn);
    this.freed(conn.home);
  }

  gaveUp(peer: Peer<K, C>): void {
    this.serve(peer);
  }

  end(conn: Member<K, C>, reason: CloseReason): void {
    this.roster.end(conn, reason);
  }

  block(conn: Member<K, C>, until: PromiseLike<unknown>): void {
    this.roster.block(conn, until);
  }

  keeps(conn: Member<K, C>): boolean {
    return this.keeper.keeps(conn);
  }

  replaces(conn: Member<K, C>): boolean {
    const stays = this.keeper.replaces(conn);
    if (stays) this.serve(conn.home);
    return stays;
  }

  /** Gives a place that has become free to the key that stands first in line for one. */
  #feed(): void {
    const { next } = this.places;
    if (next !== undefined) this.serve(next);
  }

  closed(conn: Member<K, C>, closing?: Promise<CloseFailure | undefined>): void {
    this.#owner.closed(conn, closing);
  }

  /** Does what is possible for the waiters of a key. Whatever is called meanwhile, keys come one after another. */
  serve(peer: Peer<K, C>): void {
    this.#again.add(peer);
    if (this.#serving) return;
    this.#serving = true;
    try {
      for (const next of this.#again) {
        this.#again.delete(next);
        this.#handOut(next);
        this.#validate(next);
        this.#dial(next);
        this.keeper.tend(next);
        this.#screen(next);
        if (next.empty && !this.keeper.isWarming(next)) {
          this.keeper.forget(next);
          this.#owner.emptied(next);
        }
        const waiting = this.places.next ?? this.keeper.next;
        if (waiting !== undefined) this.#again.add(waiting);
      }
    } finally {
      this.#serving = false;
    }
  }

  #handOut(peer: Peer<K, C>): void {
    let left = batch;
    for (let waiter = peer.waiters.head; waiter !== undefined; ) {
      const conn = peer.pick(waiter.filter, this.now);
      const { next } = waiter;
      if (waiter.list === undefined) {
        waiter = peer.waiters.head; // a callback removed it
      } else if (conn !== undefined) {
        this.queue.serve(waiter, conn); // it hears of it when the slot has been counted
        this.#lease(conn);
        waiter = next;
        if (--left === 0) {
          this.#continue(peer);
          return;
        }
      } else if (waiter.filter === undefined) {
        return; // nothing is free, so nothing is free for those behind it
      } else waiter = next;
    }
  }

  /** Validates as many conns as the waiters need that nothing else will serve: no storm after a quiet time. */
  #validate(peer: Peer<K, C>): void {
    if (this.isDue === undefined) return;
    for (let waiter = peer.waiters.head; waiter !== undefined && peer.validating < peer.waiters.size; ) {
      const conn = peer.pickDue(waiter.filter, this.now);
      if (conn !== undefined) this.health.begin(conn);
      else waiter = waiter.next;
    }
  }

  /** Like a release, but that there is nothing to reset. */
  validated(conn: Member<K, C>): void {
    const back = this.roster.release(conn);
    this.serve(conn.home);
    if (back) this.roster.settle(conn);
    this.#feed();
  }

  #continue(peer: Peer<K, C>): void {
    peer.batching = true;
    setImmediate(() => {
      peer.batching = false;
      this.serve(peer);
    });
  }

  /** Starts the dials that the waiters need and the limits allow; abandons those that nobody needs, newest first. */
  #dial(peer: Peer<K, C>): void {
    this.places.leave(peer);
    while (!peer.batching && peer.pause === undefined && peer.wanting > peer.promised() && this.places.mayDial(peer)) {
      const dial = peer.nextToDial()?.dial;
      if (dial === undefined) break;
      peer.turn = undefined;
      this.dialer.start(peer, dial, false);
    }
    for (let dialing = peer.dials.tail; dialing !== undefined; ) {
      const older: PeerDialing<K, C> | undefined = dialing.prev;
      if (peer.promised(dialing) >= peer.wanting && (!dialing.background || this.keeper.spares(peer))) {
        this.dialer.abandon(dialing, "no caller waits for it any more");
      }
      dialing = older;
    }
    this.places.settle(peer);
  }

  /** Turns away newcomers that may not wait, and those whom nothing can serve. */
  #screen(peer: Peer<K, C>): void {
    for (let waiter = peer.waiters.tail; waiter?.fresh; ) {
      const { prev } = waiter;
      waiter.fresh = false;
      const error = this.#refusal(peer, waiter);
      if (error !== undefined) {
        this.queue.reject(waiter, error);
        this.#again.add(peer); // a dial may be one too many now
      }
      waiter = prev;
    }
    if (peer.waiters.size === peer.wanting || peer.dials.size > 0) return;
    for (const waiter of [...peer.waiters]) {
      const error = this.#hopeless(peer, waiter);
      if (error !== undefined && waiter.list !== undefined) this.queue.reject(waiter, error);
    }
  }

  #refusal(peer: Peer<K, C>, waiter: PeerWaiter<K, C>): PoolError | undefined {
    const { backoff, maxWaiters } = peer.rules;
    if (backoff !== undefined && peer.pause !== undefined && waiter.wantsDial && !waiter.waitForReady) {
      return peer.lastError;
    }
    const heldBack = peer.waiters.size - Math.min(peer.promised(), peer.wanting);
    if (heldBack <= maxWaiters) return undefined;
    return new QueueFullError(
      `${heldBack - 1} callers wait for ${show(peer.key)} already, and maxWaiters is ${maxWaiters}`,
    );
  }

  /** Why no conn can ever come to a waiter that is not worth a dial; `undefined`: one may. */
  #hopeless(peer: Peer<K, C>, waiter: PeerWaiter<K, C>): PoolError | undefined {
    const { filter } = waiter;
    if (waiter.wantsDial) return undefined;
    const conns = peer.conns().filter((conn) => conn.ready);
    if (conns.some((conn) => filter === undefined || peer.passes(conn, filter, this.now))) return undefined;
    const cause = peer.lastError === undefined ? {} : { cause: peer.lastError };
    if (waiter.tried && filter === undefined)
      return new NoConnError(`the conn dialed for ${show(peer.key)} has gone`, cause);
    if (waiter.tried || conns.length > 0) {
      return new NoMatchError(`none of the ${conns.length} conns of ${show(peer.key)} passes the filter`);
    }
    return new NoConnError(`${show(peer.key)} has no conn, and there is no dial function to open one`, cause);
  }

  #suits(conn: Member<K, C>, { filter }: PeerWaiter<K, C>): boolean {
    const peer = conn.home;
    return peer.slots(conn) > 0 && (filter === undefined || peer.passes(conn, filter, this.now));
  }
}
