import type { PoolConn } from "../contract.ts";
import type { DialError } from "../errors.ts";
import { type Linked, List } from "../runtime/list.ts";
import type { Task } from "../runtime/timers.ts";
import type { Dialing } from "./dialing.ts";
import type { Waiter } from "./waiter.ts";

/** A waiter to dial for: how many before it the dials in flight will serve, and how many wanted one then. */
export interface DialFor<W> {
  readonly waiter: W;
  readonly ahead: number;
  readonly wanting: number;
}

/**
 * What is asked of a key beyond its open conns: who waits, what is dialed for them, and what the last dials came to.
 * Most keys rest most of the time: they share one record, which nobody may change.
 */
export class Demand<K, C extends PoolConn, M, H> implements Linked<Demand<K, C, M, H>> {
  /** Its place among the keys that `maxConns` holds back: the lowest turn goes first. */
  prev: Demand<K, C, M, H> | undefined = undefined;
  next: Demand<K, C, M, H> | undefined = undefined;
  list: List<Demand<K, C, M, H>> | undefined = undefined;
  turn: number | undefined = undefined;

  /** The record of its key; none: it is the one of all that rest. */
  readonly home: H | undefined;
  readonly waiters: List<Waiter<K, C, M, H>> = new List();
  /** Of the waiters, those that are worth a dial. */
  wanting = 0;
  /** In flight, oldest first. */
  readonly dials: List<Dialing<H>> = new List();
  /** Of the dials, those for `minIdle` and `warm`. */
  preparing = 0;
  /** When the oldest dial in flight began, and how long there have been dials in flight before that. */
  dialingSince = 0;
  dialedMs = 0;
  /** Failed dials in a row, and the last of them. */
  failures = 0;
  lastError: DialError | undefined = undefined;
  /** While it is scheduled, nothing is dialed. */
  pause: Task | undefined = undefined;
  /** While it is scheduled, failed dials of before the last pause still count. */
  grudge: Task | undefined = undefined;
  /** What its waiters hope for may have gone. */
  inDoubt = false;
  /** Its waiters are being served in batches: what is free is theirs. */
  batching = false;
  /** Slots that conns which are being validated will have. */
  validating = 0;
  /** Slots that the dials in flight will bring, and dials of which nothing is known. */
  #promised = 0;
  #unknown = 0;

  constructor(home: H | undefined) {
    this.home = home;
  }

  /** Nobody waits, and nothing is dialed or put off. */
  get empty(): boolean {
    const { pause, grudge } = this;
    return this.dials.size + this.waiters.size === 0 && pause === undefined && grudge === undefined;
  }

  /** Nothing is left to be remembered. */
  get rests(): boolean {
    const remembers = this.lastError !== undefined || this.turn !== undefined || this.validating > 0 || this.batching;
    return this.empty && !remembers;
  }

  /** The first conn of the key came: those whose dials announced no slots know theirs now. */
  learn(slots: number): void {
    if (this.#unknown === 0) return;
    for (const dial of this.dials) {
      if (dial.slots !== Number.POSITIVE_INFINITY) continue;
      dial.slots = slots;
      this.#unknown--;
      this.#promised += slots;
    }
  }

  /** The waiters that `dialing` will serve, where older dials will serve so many `ahead`. */
  waitersFor(dialing: Dialing<H>, ahead: number): Waiter<K, C, M, H>[] {
    if (dialing.slots === Number.POSITIVE_INFINITY) return [...this.waiters];
    const waiters: Waiter<K, C, M, H>[] = [];
    const behind = this.wanting - ahead - dialing.slots;
    if (behind < ahead) {
      let after = 0;
      for (let waiter = this.waiters.tail; waiter !== undefined && after < this.wanting - ahead; waiter = waiter.prev) {
        if (waiter.wantsDial && after++ >= behind) waiters.push(waiter);
      }
      return waiters.reverse();
    }
    let skip = ahead;
    for (let waiter = this.waiters.head; waiter !== undefined && waiters.length < dialing.slots; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) waiters.push(waiter);
    }
    return waiters;
  }

  /** The oldest waiter that no dial in flight will serve. The `last` that it was spares the walk from the head. */
  nextToDial(last?: DialFor<Waiter<K, C, M, H>>): DialFor<Waiter<K, C, M, H>> | undefined {
    const { wanting } = this;
    const ahead = this.promised();
    const { tail } = this.waiters;
    if (ahead === wanting - 1 && tail?.wantsDial) return { waiter: tail, ahead, wanting };
    const goOn = last !== undefined && last.wanting === wanting && last.waiter.list !== undefined;
    let skip = goOn ? ahead - last.ahead : ahead;
    let waiter = goOn ? last.waiter : this.waiters.head;
    for (; waiter !== undefined; waiter = waiter.next) {
      if (waiter.wantsDial && skip-- <= 0) return { waiter, ahead, wanting };
    }
    return undefined;
  }

  /** How long there have been dials in flight, so far. */
  dialedFor(now: number): number {
    return this.dialedMs + (this.dials.size === 0 ? 0 : now - this.dialingSince);
  }

  addDial(dial: Dialing<H>): void {
    this.dials.push(dial);
    if (dial.background) this.preparing++;
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown++;
    else this.#promised += dial.slots;
  }

  removeDial(dial: Dialing<H>): void {
    this.dials.remove(dial);
    if (dial.background) this.preparing--;
    if (dial.slots === Number.POSITIVE_INFINITY) this.#unknown--;
    else this.#promised -= dial.slots;
  }

  /** Waiters that the dials and validations in flight will serve, `except` one of the dials. */
  promised(except?: Dialing<H>): number {
    const unknown = except?.slots === Number.POSITIVE_INFINITY ? 1 : 0;
    if (this.#unknown > unknown) return Number.POSITIVE_INFINITY;
    return this.validating + this.#promised - (except === undefined || unknown === 1 ? 0 : except.slots);
  }
}
