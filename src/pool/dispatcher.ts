import type { PoolConn } from "../contract.ts";
import type { Filter } from "../options.ts";
import { inNextTurn } from "../runtime/clock.ts";
import type { KeyRules } from "./config.ts";
import type { Core } from "./core.ts";
import type { KeyPool } from "./key-pool.ts";
import type { DialFor, PendingDial, Request, Waiter } from "./pending.ts";

/** Waiters served in one go; I/O gets its turn between two. */
const batch = 1000;

/**
 * Does for the waiters of one key, in order, what is possible: a conn with a free slot; else a dial; else an idle conn
 * of another key is evicted to make room for one; else it waits, or is turned away. Dials for
 * waiters start here; for `minIdle` and `warm` in min-idle.ts, for a rotation in expiry.ts.
 */
export class Dispatcher<K, C extends PoolConn> {
  readonly #core: Core<K, C>;

  constructor(core: Core<K, C>) {
    this.#core = core;
  }

  /** `"steady"`: nothing else follows from it. `"again"`: the key must be served once more. */
  dispatch(key: KeyPool<K, C>): "steady" | "served" | "again" {
    this.#handOut(key);
    if (this.isSteady(key)) return "steady"; // what follows would find nothing to do
    if (this.#core.hooks.validates) this.#core.hooks.validateFor(key);
    this.#judgeArrival(key);
    this.#judgeNewcomers(key);
    if (key.isResting) {
      this.#core.capacity.leaveLine(key);
    } else {
      this.#startDials(key);
      this.#resort(key);
      this.#abandonDials(key);
    }
    this.#core.minIdle.refill(key);
    return this.#turnAway(key) ? "again" : "served";
  }

  /** Nothing but a conn given back can serve those who wait for the key, and nobody else waits for a place. */
  isSteady(key: KeyPool<K, C>): boolean {
    const { waiters, dials, mustRecheck, backoff, arrived } = key.pending;
    if (waiters.tail?.isNew !== false || mustRecheck || this.#core.hooks.validates) return false;
    if (dials.head !== undefined || backoff !== undefined || arrived !== undefined) return false;
    return !this.#core.capacity.keyHasRoom(key) && this.#core.capacity.lineIsEmpty && this.#core.minIdle.isUnused;
  }

  /** Whether one more waiter can change nothing, so that the key need not be served for it. */
  onlyQueues(key: KeyPool<K, C>, { dial, filter }: Request<K, C>): boolean {
    const { head, size } = key.pending.waiters;
    if (head === undefined || head.request.filter !== undefined || size >= key.rules.maxWaiters) return false;
    if (dial === undefined || !this.isSteady(key)) return false;
    return filter === undefined || !this.isKnownToFail(key, filter);
  }

  /** A waiter has joined. Returns whether its key must be served. */
  joined(waiter: Waiter<K, C>, hasEffect: boolean): boolean {
    // Not before it has joined: to read slots runs the conn's code, which may call the pool.
    waiter.isNew = hasEffect || this.#core.selector.reread(waiter.key, 1);
    return waiter.isNew;
  }

  /** Something has gone that the waiters of the key may have hoped for, or that stood in their way. */
  recheck(key: KeyPool<K, C>): void {
    if (!key.isResting) key.pending.mustRecheck = true;
  }

  /** Gives what is free to those who wait, in their order. */
  #handOut(key: KeyPool<K, C>): void {
    const { pending } = key;
    const { selector, queue } = this.#core;
    if (pending.isBatching) return; // I/O has its turn first
    const isReversed = queue.shedOverload(key);
    const { waiters } = pending;
    if (waiters.head === undefined || !(selector.hasFree(key) || selector.reread(key))) return;
    let left = batch;
    let waiter = isReversed ? waiters.tail : waiters.head;
    while (waiter !== undefined && selector.hasFree(key)) {
      const { filter } = waiter.request;
      const entry = selector.pick(key, filter);
      const next: Waiter<K, C> | undefined = isReversed ? waiter.prev : waiter.next;
      if (!waiter.isWaiting) {
        waiter = isReversed ? waiters.tail : waiters.head; // a callback removed it
      } else if (entry !== undefined) {
        queue.grant(waiter, entry); // it resolves a promise: who waits for that runs when the next line has counted the slot
        this.#core.lease(entry);
        waiter = next;
        if (--left === 0) {
          this.#handOutLater(key);
          return;
        }
      } else if (filter === undefined) {
        return; // nothing is free, so nothing is free for those behind it
      } else waiter = next;
    }
  }

  #handOutLater(key: KeyPool<K, C>): void {
    const pending = key.ownPending();
    pending.isBatching = true;
    inNextTurn(() => {
      pending.isBatching = false;
      this.#core.enterAndServe(key);
    });
  }

  /** A waiter that the last dial was for, and that cannot use its conn, is marked as tried: a second dial would bring the same. */
  #judgeArrival({ pending }: KeyPool<K, C>): void {
    const { arrived } = pending;
    if (arrived === undefined) return;
    pending.arrived = undefined;
    const { dial, entry } = arrived;
    for (const waiter of pending.unserved(dial.slots)) {
      const { filter } = waiter.request;
      if (waiter.request.dial !== dial.dial || this.#core.selector.suits(entry, filter)) continue;
      this.#core.queue.markTried(waiter);
      pending.mustRecheck = true; // the conn that the others could hope for may have gone already
      if (filter !== undefined) entry.extras.failedFilter = filter;
    }
  }

  #judgeNewcomers(key: KeyPool<K, C>): void {
    for (let waiter = key.pending.waiters.tail; waiter?.isNew; waiter = waiter.prev) {
      const { filter, dial } = waiter.request;
      if (filter !== undefined && dial !== undefined && this.isKnownToFail(key, filter))
        this.#core.queue.markTried(waiter);
    }
  }

  /** A conn that was dialed for the same filter and does not pass it speaks for all that would be dialed. */
  isKnownToFail(key: KeyPool<K, C>, filter: Filter<C>): boolean {
    for (let entry = key.oldest; entry !== undefined; entry = entry.younger) {
      if (!entry.isReady || entry.someExtras?.failedFilter !== filter) continue;
      return !this.#core.selector.passes(entry, filter); // and no further: it may have changed what is walked here
    }
    return false;
  }

  /** Each dial is for the oldest waiter that those in flight will not serve, and uses its function. */
  #startDials(key: KeyPool<K, C>): void {
    const { pending } = key;
    let last: DialFor<K, C> | undefined;
    while (
      !pending.isBatching &&
      pending.wanting > pending.promised() &&
      this.pauseFor(key, pending.waiters.tail?.seq ?? 0) === undefined
    ) {
      if (!this.#core.capacity.claimDial(key)) return; // it says itself where the key stands in line
      last = pending.nextToDial(last);
      const dial = last?.waiter.request.dial;
      if (dial === undefined) break;
      if (!this.#core.dialer.start(key, dial, false, undefined, last?.waiter.caller)) return;
      this.#core.capacity.leaveLine(key); // it has had its turn
    }
    this.#core.capacity.leaveLine(key);
  }

  /** Who can have no other conn, nor hope for one, gets one that is only doubtful. */
  #resort(key: KeyPool<K, C>): void {
    const { health } = this.#core;
    const lacking = key.pending.heldBack - health.mayHope(key);
    if (lacking > 0 && health.resort(key, lacking)) this.#handOut(key);
  }

  /** What keeps the key from being dialed yet. A caller that came after the last failure waits for no pause of the pool's own. */
  pauseFor(key: KeyPool<K, C>, youngest: number, rules: KeyRules = key.rules): "backoff" | "pace" | undefined {
    const { backoff } = key.pending;
    if (backoff === undefined || !this.#core.backoffs.isPaused(key)) return undefined;
    if (rules.backoff !== undefined) return "backoff";
    return youngest <= backoff.failedAtSeq ? "pace" : undefined;
  }

  /** Dials that nobody waits for any more go, the newest first. */
  #abandonDials(key: KeyPool<K, C>): void {
    const { pending } = key;
    for (let dial = pending.dials.tail; dial !== undefined; ) {
      if (pending.promised() <= pending.wanting) return; // none is too many
      const older: PendingDial<K, C> | undefined = dial.prev;
      const isSpare = this.#isSpare(dial);
      if (isSpare && pending.promised(dial) >= pending.wanting) {
        this.#core.dialer.abandon(dial, "no caller waits for it any more");
      }
      dial = older;
    }
  }

  /** Whether a dial stays in flight when so many wait who are worth one. */
  keepsDials({ pending }: KeyPool<K, C>, wanting: number): boolean {
    return [...pending.dials].some((dial) => wanting > pending.validating || !this.#isSpare(dial));
  }

  /** Whether nothing but waiters could want what the dial brings. */
  #isSpare({ key, isBackground, replaces }: PendingDial<K, C>): boolean {
    // One that comes too late, since the old conn has gone meanwhile for its age, is worth keeping all the same.
    if (replaces !== undefined) return !replaces.isReady && replaces.reason !== "retired";
    return !isBackground || this.#core.minIdle.hasSpareDials(key);
  }

  /** Rejects newcomers that may not wait, and waiters whom nothing can serve. Returns whether a dial may be one too many now. */
  #turnAway(key: KeyPool<K, C>): boolean {
    const { pending } = key;
    const { waiters } = pending;
    const before = waiters.size;
    if (before === 0) return false;
    let doubtful: Waiter<K, C>[] = [];
    for (let waiter = waiters.tail; waiter?.isNew; ) {
      const { prev } = waiter;
      waiter.isNew = false;
      const isPromised = waiter.wantsDial && pending.wanting <= pending.promised();
      const heldBack = isPromised ? 0 : pending.heldBack - this.#core.capacity.placesComing(key);
      const why = this.refusal(key, waiter.wantsDial, waiter.request.waitForReady, heldBack);
      if (why !== undefined) this.#core.queue.refuse(waiter, this.#core.account.refused(waiter, why, heldBack - 1));
      else if (!waiter.wantsDial) doubtful.push(waiter);
      waiter = prev;
    }
    const refused = waiters.size < before;
    if (pending.dials.size > 0) {
      pending.mustRecheck = true;
      return refused;
    }
    if (pending.mustRecheck && waiters.size > pending.wanting) doubtful = [...waiters];
    pending.mustRecheck = false;
    for (const waiter of doubtful) {
      const { wantsDial, isTried, request } = waiter;
      const why = wantsDial ? undefined : this.hopeless(key, request.filter, isTried);
      if (why !== undefined) this.#core.queue.fail(waiter, this.#core.account.hopeless(waiter, why));
    }
    return refused;
  }

  /** What turns a newcomer away, with whom so many are held back; `undefined`: it may wait. */
  refusal(
    key: KeyPool<K, C>,
    wantsDial: boolean,
    waitForReady: boolean | undefined,
    heldBack: number,
    rules: KeyRules = key.rules,
  ): "backoff" | "maxWaiters" | undefined {
    if (wantsDial && !waitForReady && this.#core.backoffs.holdsNewcomers(key, rules)) return "backoff";
    return heldBack <= rules.maxWaiters ? undefined : "maxWaiters";
  }

  /** Why no conn can ever come to a caller that is not worth a dial (any more: `isTried`); `undefined`: one may. */
  hopeless(
    key: KeyPool<K, C>,
    filter: Filter<C> | undefined,
    isTried: boolean,
  ): "filter" | "gone" | "dial" | undefined {
    const { selector } = this.#core;
    if (filter === undefined && key.usable > 0) return undefined;
    const entries = key.entries().filter((entry) => entry.isReady);
    if (entries.some((entry) => selector.passes(entry, filter))) return undefined;
    if (filter !== undefined && (isTried || entries.length > 0)) return "filter";
    return isTried ? "gone" : "dial";
  }
}
