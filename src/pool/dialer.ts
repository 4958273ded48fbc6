import { checkConn, show } from "../argument.ts";
import type { Dial, PoolConn } from "../contract.ts";
import { DialError, DialTimeoutError, PoolTypeError } from "../errors.ts";
import { attempt, outcome } from "../runtime/guard.ts";
import type { Schedule } from "../runtime/timers.ts";
import { Dialing, type DialOwner } from "./dialing.ts";
import type { Roster } from "./entries.ts";
import type { Events } from "./events.ts";
import type { Member, Peer, PeerDialing } from "./key-pool.ts";

/** Told how a dial ended. By then it does not count any more. */
export interface DialerOwner<K, C extends PoolConn> {
  dialed(dialing: PeerDialing<K, C>, conn: Member<K, C>): void;
  /** `ahead`: the waiters that older dials still in flight will serve. */
  dialFailed(dialing: PeerDialing<K, C>, error: DialError, ahead: number): void;
}

/** Starts dials, counts those in flight, and sees to it that nothing is left of those that nobody wants. */
export class Dialer<K, C extends PoolConn> implements DialOwner<PeerDialing<K, C>> {
  /** Dials in flight, of all keys. */
  count = 0;
  /** Raised by each `clear`; a conn carries the number of its dial. */
  generation = 0;
  readonly #roster: Roster<K, C>;
  readonly #schedule: Schedule;
  readonly #events: Events<K, C>;
  readonly #owner: DialerOwner<K, C>;

  constructor(roster: Roster<K, C>, schedule: Schedule, events: Events<K, C>, owner: DialerOwner<K, C>) {
    this.#roster = roster;
    this.#schedule = schedule;
    this.#events = events;
    this.#owner = owner;
  }

  start(peer: Peer<K, C>, dial: Dial<K, C>, background: boolean): void {
    const now = this.#schedule.clock.now();
    const dialing = new Dialing<Peer<K, C>>(
      peer,
      dial,
      peer.expectedSlots(attempt(() => dial.maxStreams)),
      background,
      now,
      this,
    );
    const demand = peer.need();
    if (demand.dials.size === 0) demand.dialingSince = now;
    demand.addDial(dialing);
    peer.tally.dials++;
    this.count++;
    const { dialTimeoutMs } = peer.rules;
    if (dialTimeoutMs < Number.POSITIVE_INFINITY) this.#schedule.add(dialing, dialTimeoutMs);
    const { generation } = this;
    // A dial function that throws at once fails like one that rejects.
    new Promise<C>((resolve) => resolve(dial(peer.key, { signal: dialing.signal }))).then(
      (conn) => this.#arrived(dialing, conn, generation),
      (error: unknown) => this.#failed(dialing, error),
    );
  }

  /** Nobody wants it any more: it stops counting at once, and what it still brings is closed. */
  abandon(dialing: PeerDialing<K, C>, reason: string): void {
    if (!dialing.inFlight) return;
    this.#uncount(dialing);
    dialing.abort(new DialError(`the dial of ${show(dialing.home.key)} was abandoned: ${reason}`));
  }

  abandonAll(peer: Peer<K, C>, reason: string): void {
    for (let dialing = peer.demand.dials.tail; dialing !== undefined; dialing = peer.demand.dials.tail)
      this.abandon(dialing, reason);
  }

  timedOut(dialing: PeerDialing<K, C>): void {
    const { key, rules } = dialing.home;
    const error = new DialTimeoutError(
      `the dial of ${show(key)} was not done within dialTimeoutMs (${rules.dialTimeoutMs} ms)`,
    );
    const ahead = this.#ahead(dialing);
    this.#uncount(dialing);
    dialing.abort(error);
    this.#fail(dialing, error, ahead);
  }

  #arrived(dialing: PeerDialing<K, C>, conn: C, generation: number): void {
    if (!dialing.inFlight) {
      discard(conn);
      return;
    }
    let member: Member<K, C>;
    let held = false;
    try {
      checkConn("what the dial function returned", conn);
      held = this.#roster.memberOf(conn) !== undefined;
      if (held) {
        throw new PoolTypeError("the dial function returned a conn that this pool has already: return a new one");
      }
      member = this.#roster.enlist(conn, dialing.home, generation);
    } catch (error) {
      if (!held) discard(conn);
      this.#failed(dialing, error);
      return;
    }
    // One that has closed already says so within this microtask: it is a failed dial then, not a conn.
    queueMicrotask(() => {
      const draining = attempt(() => conn.draining) === true;
      if (!dialing.inFlight) {
        if (!member.taken) return;
        this.#roster.drop(member);
        discard(conn);
      } else if (member.taken && !draining) {
        this.#uncount(dialing);
        this.#events.dialed.emit(() => ({ key: dialing.home.key, conn, ms: this.#tookMs(dialing) }));
        this.#owner.dialed(dialing, member);
      } else if (member.taken) {
        this.#roster.refuse(member, dialing.home, "goaway");
        this.#failed(dialing, new Error("the conn was draining as soon as it was dialed"));
      } else {
        this.#failed(dialing, new Error("the conn was closed as soon as it was dialed"));
      }
    });
  }

  #failed(dialing: PeerDialing<K, C>, cause: unknown): void {
    if (!dialing.inFlight) return;
    const { why, final } = explain(cause);
    const error = new DialError(`the dial of ${show(dialing.home.key)} failed: ${why}`, { cause, final });
    const ahead = this.#ahead(dialing);
    this.#uncount(dialing);
    this.#fail(dialing, error, ahead);
  }

  #fail(dialing: PeerDialing<K, C>, error: DialError, ahead: number): void {
    this.#events.dialFailed.emit(() => ({ key: dialing.home.key, error, ms: this.#tookMs(dialing) }));
    this.#owner.dialFailed(dialing, error, ahead);
  }

  #tookMs(dialing: PeerDialing<K, C>): number {
    return this.#schedule.clock.now() - dialing.startedAt;
  }

  /** How many waiters the dials started before it will serve. */
  #ahead(dialing: PeerDialing<K, C>): number {
    if (dialing.next === undefined) return dialing.home.demand.promised(dialing);
    let ahead = 0;
    for (let older = dialing.prev; older !== undefined; older = older.prev) ahead += older.slots;
    return ahead;
  }

  #uncount(dialing: PeerDialing<K, C>): void {
    const { demand } = dialing.home;
    demand.removeDial(dialing);
    this.count--;
    this.#schedule.cancel(dialing);
    if (demand.dials.size === 0) demand.dialedMs += this.#schedule.clock.now() - demand.dialingSince;
  }
}

/** What an error says. It is the caller's: to read it may throw. */
function explain(cause: unknown): { why: string; final: boolean } {
  try {
    const final = typeof cause === "object" && cause !== null && "final" in cause && cause.final === true;
    return { why: cause instanceof Error ? reasonOf(cause) : show(cause), final };
  } catch {
    return { why: "its error cannot be read", final: false };
  }
}

/** Node's error of a name with several addresses has no message of its own, but one for each. */
function reasonOf(cause: Error): string {
  if (cause.message !== "" || !(cause instanceof AggregateError)) return String(cause.message);
  return cause.errors.map((error: unknown) => (error instanceof Error ? error.message : show(error))).join("; ");
}

/** Closes what a dial brought and nobody can use, conn or not, as well as it can be closed. */
function discard(brought: { closed?: unknown; close?: unknown; destroy?: unknown }): void {
  if ((typeof brought !== "object" && typeof brought !== "function") || brought === null) return;
  void outcome(() => brought.closed); // heard, should it reject
  void outcome(() => {
    const { close, destroy } = brought;
    const end = typeof close === "function" ? close : destroy;
    return typeof end === "function" ? end.call(brought) : undefined;
  });
}
