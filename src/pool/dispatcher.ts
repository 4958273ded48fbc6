import type { Dial, PoolConn } from "../contract.ts";
import type { DialError } from "../errors.ts";
import type { Filter, Reset, Selection, Validate } from "../options.ts";
import type { Failure } from "../runtime/guard.ts";
import type { Schedule } from "../runtime/timers.ts";
import { Attendant } from "./attendant.ts";
import { pauseMs } from "./backoff.ts";
import { Places } from "./capacity.ts";
import { Caps } from "./caps.ts";
import type { Rules } from "./config.ts";
import { Dialer, type DialerOwner } from "./dialer.ts";
import { Roster, type RosterOwner } from "./entries.ts";
import type { Events } from "./events.ts";
import { Handout, type HandoutOwner } from "./handout.ts";
import { Health, type HealthOwner } from "./health.ts";
import type { Member, Peer, PeerDialing } from "./key-pool.ts";
import { Keeper } from "./min-idle.ts";
import { Pauses } from "./pause.ts";
import { Planner } from "./planner.ts";
import { Rounds } from "./rounds.ts";
import { Screen } from "./screen.ts";
import { Queue, type QueueOwner } from "./wait-queue.ts";
import type { Request } from "./waiter.ts";

/** What the pool's owner said that concerns the dispatcher. */
export interface DispatcherOptions<K, C extends PoolConn> {
  readonly rules: Rules;
  readonly selection: Selection<C>;
  readonly dial?: Dial<K, C> | undefined;
  readonly validate?: Validate<C> | undefined;
  readonly reset?: Reset<C> | undefined;
}

/** What the dispatcher tells the pool. */
export interface DispatcherOwner<K, C extends PoolConn> {
  /** Nothing is left of a key. */
  emptied(peer: Peer<K, C>): void;
  closed(conn: Member<K, C>, closing?: Promise<Failure | undefined>): void;
}

/**
 * Hands conns to waiters. Whatever happens to a conn, a dial or a limit ends by calling `serve`, which does for
 * each waiter of a key, in order, what is possible: a conn with a free slot; else a dial; else an idle conn of
 * another key is evicted to make room for one; else it waits.
 */
export class Dispatcher<K, C extends PoolConn>
  implements RosterOwner<K, C>, DialerOwner<K, C>, QueueOwner<K, C>, HandoutOwner<K, C>, HealthOwner<K, C>
{
  readonly roster: Roster<K, C>;
  readonly caps: Caps<K, C>;
  readonly dialer: Dialer<K, C>;
  readonly queue: Queue<K, C>;
  readonly #owner: DispatcherOwner<K, C>;
  readonly places: Places<K, C>;
  readonly health: Health<K, C>;
  readonly keeper: Keeper<K, C>;
  readonly pauses: Pauses<K, C>;
  readonly #handout: Handout<K, C>;
  readonly #planner: Planner<K, C>;
  readonly #screen: Screen<K, C>;
  readonly #attendant: Attendant<K, C>;
  readonly #rounds = new Rounds<Peer<K, C>>((peer) => this.#serve(peer));

  constructor(
    options: DispatcherOptions<K, C>,
    schedule: Schedule,
    events: Events<K, C>,
    owner: DispatcherOwner<K, C>,
  ) {
    this.#owner = owner;
    this.roster = new Roster(options.rules, options.selection, schedule, events, this);
    this.caps = new Caps(this.roster);
    this.dialer = new Dialer(this.roster, schedule, events, this);
    this.queue = new Queue(schedule, events, this);
    this.places = new Places(this.roster, this.dialer, this.queue);
    this.pauses = new Pauses(schedule, (peer) => this.serve(peer));
    this.#handout = new Handout(this.queue, this);
    this.#screen = new Screen(this.queue);
    this.keeper = new Keeper(options.dial, schedule, this.roster, this.dialer, this.places, this);
    this.#planner = new Planner(this.dialer, this.places, this.keeper);
    this.health = new Health(options, schedule, this.roster, this);
    if (this.health.validates) this.roster.validate((conn) => this.health.isDue(conn));
    this.#attendant = new Attendant(this.health, this.keeper, this.roster);
  }

  /** A lease at once: neither dials nor waits, nor passes a waiter of the same key. */
  tryLease(peer: Peer<K, C>, filter: Filter<C> | undefined): Member<K, C> | undefined {
    const conn = peer.demand.waiters.head === undefined ? peer.pick(filter) : undefined;
    if (conn === undefined) return this.leaseElse(peer, filter);
    this.lease(conn);
    peer.hits++;
    return conn;
  }

  /** Somebody waits for the key already, or no conn of it is known to be free. */
  private leaseElse(peer: Peer<K, C>, filter: Filter<C> | undefined): Member<K, C> | undefined {
    const { head } = peer.demand.waiters;
    const conn = head === undefined ? this.#pickGained(peer, filter) : this.#pickBehind(peer, filter);
    if (conn === undefined) return undefined;
    this.lease(conn);
    peer.hits++;
    return conn;
  }

  /** What has gained a slot silently. */
  #pickGained(peer: Peer<K, C>, filter: Filter<C> | undefined): Member<K, C> | undefined {
    while (filter === undefined && peer.demand.waiters.head === undefined && peer.reread()) {
      const conn = peer.pick(undefined);
      if (conn !== undefined) return conn;
    }
    return undefined;
  }

  /** What is of no use to those who wait. */
  #pickBehind(peer: Peer<K, C>, filter: Filter<C> | undefined): Member<K, C> | undefined {
    if (peer.demand.waiters.head?.request.filter === undefined) return undefined; // what is not free for it is free for nobody
    this.serve(peer);
    return peer.demand.batching || this.#rounds.busy ? undefined : peer.pick(filter);
  }

  /** One more waiter has nothing to hope for but its turn. */
  #changesNothing(peer: Peer<K, C>, { dial }: Request<K, C>): boolean {
    const { head, size } = peer.demand.waiters;
    if (head === undefined || head.request.filter !== undefined || size >= peer.rules.maxWaiters) return false;
    return dial !== undefined && !this.#rounds.busy && this.#isSteady(peer);
  }

  /** Nothing but hand-overs can serve those who wait for the key, and nobody else waits for a place. */
  #isSteady(peer: Peer<K, C>): boolean {
    const { waiters, dials, pause, inDoubt } = peer.demand;
    if (waiters.tail?.fresh !== false || inDoubt || peer.attended) return false;
    if (dials.head !== undefined || pause !== undefined) return false;
    return !this.places.keyHasRoom(peer) && this.places.quiet && this.keeper.quiet;
  }

  /** What `give` makes of a conn, as soon as there is one. `tryLease` has found none. */
  wait<R>(peer: Peer<K, C>, request: Request<K, C>, give: (conn: Member<K, C>) => R): Promise<R> {
    // It may have aborted since the call began: in a filter, or before an RPC is sent again.
    if (request.signal?.aborted) {
      this.serve(peer); // nothing may be left of its key
      return Promise.reject(request.signal.reason);
    }
    peer.tally.misses++;
    return new Promise((resolve, reject) => {
      const idly = this.#changesNothing(peer, request);
      const waiter = this.queue.join(peer, request, give, resolve, reject);
      waiter.fresh = !idly || peer.reread(1); // only now that it stands in line: that may call the pool
      if (waiter.fresh) this.serve(peer);
    });
  }

  lease(conn: Member<K, C>): void {
    if (conn.home.attended) this.leaseAttended(conn);
    else this.roster.lease(conn);
  }

  private leaseAttended(conn: Member<K, C>): void {
    if (this.#attendant.lease(conn)) this.serve(conn.home);
  }

  /** A stream has ended. Its slot is free before the caller learns of the end. */
  release(conn: Member<K, C>): void {
    const peer = conn.home;
    if (peer.attended) this.#attendant.releasing(conn);
    if (!this.roster.release(conn)) return;
    if (peer.attended) this.#attendant.released(conn);
    if (this.queue.size !== 0) {
      if (this.places.mustYield(conn)) {
        this.roster.end(conn, "evicted");
        return;
      }
      this.available(peer);
      this.caps.settle(conn);
      this.#feed();
    } else this.caps.settle(conn);
  }

  /** A key has appeared, or its rules have changed. */
  equip(peer: Peer<K, C>): void {
    peer.attended = this.#attendant.isNeeded(peer);
    this.caps.order(peer);
  }

  /** The one way in of a conn: its key's waiters first, then the cache, then other keys. */
  admit(conn: Member<K, C>, peer: Peer<K, C>): void {
    this.roster.add(conn, peer);
    this.#admitted(conn, peer);
  }

  #admitted(conn: Member<K, C>, peer: Peer<K, C>): void {
    this.serve(peer);
    this.caps.settle(conn);
    this.#feed();
  }

  dialed(dialing: PeerDialing<K, C>, conn: Member<K, C>): void {
    const peer = dialing.home;
    const demand = peer.need();
    demand.failures = 0;
    demand.lastError = undefined;
    this.pauses.end(peer);
    this.roster.add(conn, peer);
    this.keeper.dialed(dialing, conn);
    // Before anybody is served: a second dial would be started for those whom this conn is of no use to.
    for (const waiter of peer.demand.waitersFor(dialing, 0)) {
      if (waiter.request.dial === dialing.by && !peer.suits(conn, waiter.request.filter))
        this.queue.giveUpDialing(waiter);
    }
    this.#admitted(conn, peer);
  }

  dialFailed(dialing: PeerDialing<K, C>, error: DialError, ahead: number): void {
    const peer = dialing.home;
    peer.tally.dialErrors++;
    const demand = peer.need();
    demand.failures++;
    demand.lastError = error;
    const { backoff } = peer.rules;
    const spent = demand.failures >= (backoff?.maxAttempts ?? Number.POSITIVE_INFINITY);
    for (const waiter of spent ? [...demand.waiters] : demand.waitersFor(dialing, ahead)) {
      if (spent || error.final || !waiter.request.waitForReady) this.queue.reject(waiter, error);
    }
    if (backoff !== undefined) this.pauses.begin(peer, pauseMs(backoff, demand.failures));
    else if (demand.wanting > 0 || this.keeper.isWarming(peer)) this.pauses.begin(peer, undefined);
    if (dialing.background) this.keeper.failed(peer, error, spent);
    this.freed(peer);
  }

  available(peer: Peer<K, C>): void {
    if (peer.demand.waiters.size !== 0) this.serve(peer);
  }

  freed(peer: Peer<K, C>): void {
    if (!peer.resting) peer.demand.inDoubt = true;
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
    const next = this.places.next ?? this.keeper.next;
    if (next !== undefined) this.serve(next);
  }

  closed(conn: Member<K, C>, closing?: Promise<Failure | undefined>): void {
    this.#owner.closed(conn, closing);
  }

  /** Does what is possible for the waiters of a key. Whatever is called meanwhile, keys come one after another. */
  serve(peer: Peer<K, C>): void {
    this.#rounds.run(peer);
  }

  #serve(peer: Peer<K, C>): void {
    this.#handout.run(peer);
    if (this.#isSteady(peer)) return; // what follows would find nothing to do
    if (peer.attended) this.health.serve(peer);
    this.#planner.plan(peer);
    this.keeper.tend(peer);
    if (this.#screen.screen(peer)) this.#rounds.add(peer);
    peer.calm();
    if (peer.empty && !this.keeper.isWarming(peer)) {
      this.keeper.forget(peer);
      this.#owner.emptied(peer);
    }
    const next = this.places.next ?? this.keeper.next;
    if (next !== undefined) this.#rounds.add(next);
  }

  /** Like a release, but that there is nothing to reset, unless the last stream of callers ended meanwhile. */
  validated(conn: Member<K, C>, shared: boolean): void {
    const back = this.roster.release(conn);
    if (back && shared) this.#attendant.released(conn);
    this.serve(conn.home);
    if (back) this.caps.settle(conn);
    this.#feed();
  }
}
