import type { CloseReason, PoolConn } from "../contract.ts";
import type { Selection } from "../options.ts";
import { attempt, type Failure, outcome } from "../runtime/guard.ts";
import type { Schedule } from "../runtime/timers.ts";
import { Blocks } from "./blocks.ts";
import { Census } from "./census.ts";
import type { Rules } from "./config.ts";
import { PooledConn } from "./entry.ts";
import type { Events } from "./events.ts";
import { IdleOrder } from "./expiry.ts";
import { Herald } from "./herald.ts";
import { type Member, Peer, type PeerDemand, type PeerOwner } from "./key-pool.ts";
import { Lifetimes } from "./lifetime.ts";
import { Demand } from "./pending.ts";
import { Register } from "./register.ts";
import { Latency } from "./selection.ts";

/** Told when something may have become possible for a waiter. */
export interface RosterOwner<K, C extends PoolConn> {
  /** A conn can be handed out again. */
  available(peer: Peer<K, C>): void;
  /** A conn has gone, or will not take streams any more. */
  left(conn: Member<K, C>): void;
  /** Whether a conn whose idle time is over stays. */
  keeps(conn: Member<K, C>): boolean;
  /** Whether a conn whose lifetime is over stays until its replacement has come. */
  replaces(conn: Member<K, C>): boolean;
  /** A conn has been closed. `closing` is what its `close()` brought; it never rejects. Absent: it died. */
  closed(conn: Member<K, C>, closing?: Promise<Failure | undefined>): void;
}

/** A function to be bound, which tells what it is bound to. */
function told<T>(tell: (bound: T) => void): (this: T) => void {
  return function (this: T): void {
    tell(this);
  };
}

/** A conn that waits for its replacement is closed without one after this. */
const replacementMs = 1000;

/** The conns that the pool holds: how they come, carry streams, and leave. */
export class Roster<K, C extends PoolConn> implements PeerOwner<K, C> {
  rules: Rules;
  readonly census: Census<K, C> = new Census();
  readonly selection: Selection<C>;
  isDue: ((conn: Member<K, C>) => boolean) | undefined = undefined;
  inLine: boolean;
  readonly rest: PeerDemand<K, C> = new Demand<K, C, Member<K, C>, Peer<K, C>>(undefined);
  readonly idle: IdleOrder<Member<K, C>>;
  readonly lifetimes: Lifetimes<K, C>;
  readonly blocks: Blocks<K, C>;
  readonly #schedule: Schedule;
  readonly #herald: Herald<K, C>;
  /** Asked at each call. */
  private readonly onLease: Events<K, C>["leased"];
  private readonly onRelease: Events<K, C>["released"];
  readonly #owner: RosterOwner<K, C>;
  readonly #register = new Register<C, Member<K, C>>();
  /** Bound to each conn: half of what a closure each would take. */
  readonly #dead = told<Member<K, C>>((conn) => this.#died(conn));
  /** Of conns that are out with callers, who may keep them longer than the pool keeps their keys. */
  #nowhere: Peer<K, C> | undefined;
  #giveBacks = 0;

  constructor(
    rules: Rules,
    selection: Selection<C>,
    schedule: Schedule,
    events: Events<K, C>,
    owner: RosterOwner<K, C>,
  ) {
    this.rules = rules;
    this.selection = selection;
    this.inLine = selection === "oldest";
    Object.freeze(this.rest);
    this.#schedule = schedule;
    this.#herald = new Herald(events, schedule);
    this.onLease = events.leased;
    this.onRelease = events.released;
    this.#owner = owner;
    this.blocks = new Blocks(this.census, this, owner);
    this.lifetimes = new Lifetimes(schedule, (conn) => this.#outlived(conn));
    this.idle = new IdleOrder(schedule, (conn) => {
      if (owner.keeps(conn)) conn.home.lane?.touch(conn);
      else this.end(conn, "expired");
    });
  }

  now(): number {
    return this.#schedule.clock.now();
  }

  /** Conns are validated before reuse, where `isDue` says so. */
  validate(isDue: (conn: Member<K, C>) => boolean): void {
    this.isDue = isDue;
    this.inLine = false;
  }

  memberOf(conn: C): Member<K, C> | undefined {
    return this.#register.find(conn);
  }

  /** Makes a record of a conn and watches it. It does not count before `add`. */
  enlist(conn: C, peer: Peer<K, C>, generation: number): Member<K, C> {
    const member: Member<K, C> = new PooledConn(conn, peer, generation, this.now());
    this.#register.hold(conn, member);
    if (this.selection === "fastest") member.latency = new Latency(member.openedAt);
    const died = this.#dead.bind(member);
    try {
      conn.closed.then(died, died);
      this.#subscribe(member);
    } catch (error) {
      this.#register.forget(conn); // not the pool's: it cannot be watched
      throw error;
    }
    return member;
  }

  #subscribe(conn: Member<K, C>): void {
    conn.conn.onChange?.(() => this.#changed(conn));
  }

  /** What was enlisted will not be added. */
  drop(conn: Member<K, C>): void {
    this.#register.release(conn.conn, conn);
  }

  /** The one way in for what was dialed, adopted or put back. The caller dispatches, and then the caps are kept. */
  add(conn: Member<K, C>, peer: Peer<K, C>): void {
    this.census.change(conn, () => conn.put(peer));
    this.#register.takeBack(conn.conn, conn);
    conn.givenBack = ++this.#giveBacks;
    peer.enter(conn);
    peer.place(conn);
    peer.learn(conn);
    this.lifetimes.limit(conn);
    if (conn.holds) peer.attended = true;
    conn.holdProcess(false);
  }

  /** Counts a stream on a conn that `peer.pick` chose: no `await` may stand between the two. */
  lease(conn: Member<K, C>): void {
    if (conn.streams === 0) this.census.busy(conn.home);
    conn.lease();
    conn.home.begun(conn);
    if (this.onLease.active) this.#herald.leased(conn);
  }

  /** The same for a stream of the pool's own: no use of the conn. */
  probe(conn: Member<K, C>): void {
    conn.uses--;
    this.lease(conn);
  }

  /** Uncounts a stream that has ended. True: the conn can be handed out again, and then the caps are to be kept. */
  release(conn: Member<K, C>): boolean {
    if (this.onRelease.active) this.#herald.released(conn);
    if (!conn.ready) {
      this.#releaseLast(conn);
      return false;
    }
    conn.release();
    if (conn.streams === 0) {
      this.census.idles(conn.home);
      conn.givenBack = ++this.#giveBacks;
    }
    conn.home.ended(conn);
    return true;
  }

  #releaseLast(conn: Member<K, C>): void {
    if (conn.open) this.#change(conn, () => conn.release());
  }

  /** No new streams: closed at once if idle, else after its last stream. */
  end(conn: Member<K, C>, reason: CloseReason): void {
    if (conn.ready) this.#change(conn, () => conn.end(reason));
  }

  /** Ends all before the first `close()` is called, which may ask for one of the others. */
  endAll(conns: readonly Member<K, C>[], reason: CloseReason): void {
    const ended = conns.filter((conn) => conn.ready);
    const left = ended.filter((conn) => this.#move(conn, () => conn.end(reason)));
    for (const conn of left) {
      this.#closed(
        conn,
        outcome(() => conn.conn.close()),
      );
    }
    for (const conn of ended) this.#owner.left(conn);
  }

  /** Closes a conn under its streams. */
  cut(conn: Member<K, C>, reason: CloseReason): void {
    if (conn.open) this.#change(conn, () => conn.cut(reason));
  }

  /** Closes a conn that is about to be adopted, and is not. */
  refuse(conn: Member<K, C>, peer: Peer<K, C>, reason: CloseReason): void {
    conn.cut(reason);
    this.drop(conn);
    peer.tally.closed[reason]++;
    this.#owner.closed(
      conn,
      outcome(() => conn.conn.close()),
    );
  }

  /** Removes an idle conn, which the caller owns from now on. */
  take(conn: Member<K, C>): void {
    const { key, hash } = conn.home;
    this.#change(conn, () => conn.take());
    if (!conn.taken) return; // a callback has put it back
    this.#nowhere ??= new Peer(key, hash, this.rules, 0, this);
    conn.home = this.#nowhere;
  }

  block(conn: Member<K, C>, until: PromiseLike<unknown>): void {
    this.blocks.block(conn, until);
  }

  #changed(conn: Member<K, C>): void {
    if (!conn.ready) return;
    if (attempt(() => conn.conn.draining) === true) {
      this.end(conn, "goaway");
      return;
    }
    conn.home.place(conn);
    conn.home.learn(conn);
    this.#owner.available(conn.home);
  }

  #died(conn: Member<K, C>): void {
    if (conn.open) this.#change(conn, () => conn.cut("died"), true);
    else if (conn.taken) {
      conn.cut("died");
      this.drop(conn);
    }
  }

  /** Runs a transition, moves the counters by what it changed, and does what follows from it. */
  #change(conn: Member<K, C>, transition: () => void, died = false): void {
    const wasDraining = conn.draining;
    if (this.#move(conn, transition)) {
      if (conn.taken) conn.holdProcess(true);
      else this.#closed(conn, died ? undefined : outcome(() => conn.conn.close()));
    }
    if (wasDraining && !died) this.#herald.drained(conn);
    if (!conn.ready) this.#owner.left(conn);
  }

  /** The part of a change that calls nobody. Returns whether the conn has left. */
  #move(conn: Member<K, C>, transition: () => void): boolean {
    this.census.change(conn, transition);
    if (conn.open) {
      conn.home.place(conn);
      return false;
    }
    this.#register.release(conn.conn, conn);
    conn.home.leave(conn);
    conn.home.lane?.forget(conn);
    this.lifetimes.limit(conn);
    return true;
  }

  #closed(conn: Member<K, C>, closing: Promise<Failure | undefined> | undefined): void {
    conn.home.tally.closed[conn.reason]++;
    this.#herald.closed(conn, closing);
    this.#owner.closed(conn, closing);
  }

  #outlived(conn: Member<K, C>): void {
    if (this.#owner.replaces(conn)) this.lifetimes.extend(conn, replacementMs);
    else this.end(conn, "retired");
  }
}
