import type { PoolConn } from "../contract.ts";
import type { PoolErrorCode } from "../errors.ts";
import {
  type Counterfactual,
  connText,
  count,
  counterfactual,
  type Decision,
  type Explanation,
  type HeldBackBy,
  type NotFree,
  ToldExplanation,
} from "../explanation.ts";
import type { ExplainOptions, Limits } from "../options.ts";
import { attempt } from "../runtime/guard.ts";
import { type KeyRules, type Rules, withLimits } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";
import type { Waiter } from "./pending.ts";

/** What a caller would meet. */
interface Prospect {
  readonly decision: Decision;
  readonly by: HeldBackBy | undefined;
  readonly why: string;
  readonly code?: PoolErrorCode;
}

/** A conn, and why a caller does not get it. */
interface Seen<K, C extends PoolConn> {
  readonly entry: Entry<K, C>;
  readonly slots: number;
  readonly notFree: NotFree | undefined;
}

/** How far `maxStreams` is raised in a search. */
const mostStreams = 1000;

/** Says what a caller of a key would meet, and why, by asking those who decide it. It changes nothing. */
export class Explainer<K, C extends PoolConn> {
  readonly #pool: string;
  readonly #core: Core<K, C>;

  constructor(pool: string, core: Core<K, C>) {
    this.#pool = pool;
    this.#core = core;
  }

  explain(key: KeyPool<K, C>, caller: ExplainOptions<K, C>): Explanation {
    const { keys, timers, selector, backoffs, capacity } = this.#core;
    const now = timers.now();
    const seen = this.#look(key, caller, key.rules);
    const prospect = this.#prospect(key, caller, seen, key.rules, keys.rules, 1, 0);
    const { decision, by, why, code } = prospect;
    const { pending } = key;
    const conns = seen.map(({ entry, notFree }) => {
      const info = selector.info(entry);
      return Object.freeze({ ...info, notFree, text: connText(info, notFree) });
    });
    const dials = [...pending.dials].map(({ startedAt, slots, isBackground }) =>
      Object.freeze({
        ageMs: now - startedAt,
        slots: slots === Number.POSITIVE_INFINITY ? undefined : slots,
        isBackground,
      }),
    );
    const events = key.history.map(({ what, why: reason, at }) =>
      Object.freeze({ what, why: reason, agoMs: Math.max(now - at, 0) }),
    );
    const facts = {
      pool: this.#pool,
      key: key.name,
      decision,
      why,
      heldBackBy: by === undefined ? undefined : this.#core.account.hold(key, by),
      code,
      waiting: pending.waiters.size,
      keysAhead: capacity.keysAhead(key).length,
      dials: Object.freeze(dials),
      failedDials: pending.backoff?.failures ?? 0,
      pausedMs: backoffs.pausedMs(key),
      conns: Object.freeze(conns),
      events: Object.freeze(events),
      counterfactuals: Object.freeze(by === undefined ? [] : this.#ways(key, caller, seen, prospect)),
    };
    return Object.freeze(Object.assign(new ToldExplanation(), facts));
  }

  #look(key: KeyPool<K, C>, { filter }: ExplainOptions<K, C>, rules: KeyRules): Seen<K, C>[] {
    const { selector, health } = this.#core;
    return key.entries().map((entry) => {
      const { life } = entry;
      const isProven = life === undefined || !entry.isIdle || !entry.mustAskUnblocked || health.isProven(life);
      const notFree = selector.notFree(entry, filter, rules) ?? (isProven ? undefined : "suspect");
      return { entry, notFree, slots: selector.slotsOf(entry, rules) };
    });
  }

  /**
   * What becomes of a newcomer, asked of those who decide it, in the dispatcher's order. `more` dials of the key, and `ahead` of
   * others, would have to be begun until one is for it.
   */
  #prospect(
    key: KeyPool<K, C>,
    { dial, filter, waitForReady }: ExplainOptions<K, C>,
    seen: readonly Seen<K, C>[],
    own: KeyRules,
    all: Rules,
    more: number,
    ahead: number,
  ): Prospect {
    const { drain, dispatcher, capacity, health, selector } = this.#core;
    const { pending } = key;
    const { head, size: waiting } = pending.waiters;
    const met = (decision: Decision, why: string, by?: HeldBackBy, code?: PoolErrorCode): Prospect =>
      code === undefined ? { decision, by, why } : { decision, by, why, code };
    if (drain.isClosed) return met("refuse", "the pool is closed", "closed", "ERR_POOL_CLOSED");

    const free = seen.filter(({ notFree }) => notFree === undefined);
    const before = pending.isBatching ? [] : this.#servedBefore(head, seen);
    if (room(free) > before.length && !pending.isBatching)
      return met("lease", `${free.length} of ${count(seen.length, "conn")} is free`);

    if (seen.some(isDue) && pending.validating <= waiting)
      return met("wait", "a conn is validated before it is used again", "validate");

    const isTried = filter !== undefined && dispatcher.isKnownToFail(key, filter);
    const wantsDial = dial !== undefined && !isTried;
    const wanting = pending.wanting - before.filter((waiter) => waiter.wantsDial).length + (wantsDial ? 1 : 0);
    let promised = pending.promised();
    let by: HeldBackBy | undefined = pending.isBatching ? "queue" : undefined;
    if (wantsDial && wanting > promised && by === undefined) {
      const leaving = seen.filter((conn) => goes(conn) && isAsked(conn) && selector.passes(conn.entry, filter));
      const [going, gone] = [leaving.length, leaving.filter(({ entry }) => entry.isIdle).length];
      by = own.maxStreams === 0 ? "maxStreams" : dispatcher.pauseFor(key, Number.POSITIVE_INFINITY, own);
      by ??= capacity.objection(key, own, all, { more, ahead, going, gone });
      if (by === undefined && pending.backoff !== undefined && this.#dialsUntil(key, dial) > 1) {
        by = "pace"; // it ends the pause for those who wait for that: they are dialed for first, one at a time
        promised += this.#slotsOf(key, dial);
      }
      if (by === undefined) return met("dial", "no conn is free, and nothing is against a dial");
      if (by === "maxConns" && capacity.wouldEvictFor(key))
        return met("dial", "an idle conn of another key makes way for it");
    }
    // Silent conns go to the first of those who cannot hope for another one.
    const lacking = waiting - before.length + 1 - Math.min(promised, wanting);
    const silent = pending.isBatching ? [] : [...health.lastResort(key, filter)];
    const resorting = Math.max(Math.min(silent.length, lacking - health.mayHope(key, own)), 0);
    if (resorting > 0 && waiting === 0) return met("lease", "only a silent conn is free");
    const isPromised = wantsDial && wanting <= promised;
    const heldBack = isPromised ? 0 : lacking - resorting - capacity.placesComing(key);
    const refusal = dispatcher.refusal(key, wantsDial, waitForReady, heldBack, own);
    if (refusal === "backoff")
      return met("refuse", "the key fails, and is not dialed yet", "backoff", pending.backoff?.error.code);
    if (refusal !== undefined) return met("refuse", "too many wait already", "maxWaiters", "ERR_POOL_QUEUE_FULL");
    if (wantsDial && wanting - resorting <= promised)
      return pending.dials.size > 0
        ? met("dial", "a dial in flight will serve it")
        : met("wait", "a conn is validated", "validate");
    if (wantsDial) return met("wait", "no conn is free, and another may not be dialed", by);
    const isDialed = dispatcher.keepsDials(key, wanting);
    const hopeless = isDialed ? undefined : dispatcher.hopeless(key, filter, isTried);
    if (hopeless === "filter") return met("refuse", "no conn passes the filter", "filter", "ERR_POOL_NO_MATCH");
    if (hopeless !== undefined)
      return met("refuse", "there is no conn, and nothing to dial with", "dial", "ERR_POOL_NO_CONN");
    const waitsFor = isDialed ? "what others dial" : "a conn to be free";
    return met("wait", `it cannot dial, and waits for ${waitsFor}`, by ?? (dial === undefined ? "dial" : "filter"));
  }

  /** Those who wait and get slots that conns have gained without a word, as soon as somebody comes. */
  #servedBefore(head: Waiter<K, C> | undefined, seen: readonly Seen<K, C>[]): Waiter<K, C>[] {
    const roomy = seen.filter(({ notFree }) => notFree === undefined || notFree === "filter"); // whatever the newcomer's filter
    const most = room(roomy);
    const served: Waiter<K, C>[] = [];
    for (let waiter = head; waiter !== undefined && served.length < most; waiter = waiter.next) {
      const { filter } = waiter.request;
      if (roomy.some(({ entry }) => this.#core.selector.passes(entry, filter))) served.push(waiter);
    }
    return served;
  }

  /** Which limits would change what it meets, found by asking again under them. */
  #ways(
    key: KeyPool<K, C>,
    caller: ExplainOptions<K, C>,
    seen: readonly Seen<K, C>[],
    { decision, by }: Prospect,
  ): Counterfactual[] {
    const now: Rules = { ...key.rules, ...this.#core.keys.totals };
    const more = this.#dialsUntil(key, caller.dial);
    const ahead = this.#dialsAhead(key);
    const under = (limits: Limits) => {
      const rules = withLimits(now, limits);
      return this.#prospect(key, caller, this.#look(key, caller, rules), rules, rules, more, ahead);
    };
    const ways: Counterfactual[] = [];
    const add = (limits: Limits, then: Prospect): void => {
      if (then.decision !== decision) ways.push(counterfactual(limits, then.decision));
    };

    let limits: Limits = {};
    const lifted = new Set<HeldBackBy>(); // to lift one may bring back another, which is not lifted twice
    for (let hold = by; hold !== undefined && !lifted.has(hold); ) {
      lifted.add(hold);
      const lift = this.#lift(key, seen, hold, more, ahead);
      if (lift === undefined) break;
      limits = { ...limits, ...lift };
      const then = under(limits);
      if (hold === "maxWaiters" && hold === by) {
        add(limits, then);
        limits = {}; // what holds those back who wait may be raised instead
        hold = then.by;
        continue;
      }
      const isLifted = then.by === undefined || (then.by === "maxWaiters" && by === "maxWaiters");
      if (isLifted || then.by === hold) {
        add(limits, then);
        break;
      }
      hold = then.by;
    }
    const maxStreams = by === "maxStreams" ? undefined : this.#slotsUntil(key, seen);
    if (maxStreams !== undefined) add({ maxStreams }, under({ maxStreams }));
    return ways;
  }

  /** The least that would lift a limit. */
  #lift(
    key: KeyPool<K, C>,
    seen: readonly Seen<K, C>[],
    by: HeldBackBy,
    more: number,
    ahead: number,
  ): Limits | undefined {
    const { capacity, dialer } = this.#core;
    const { pending } = key;
    switch (by) {
      case "maxKeyConns":
        return { maxKeyConns: capacity.ofKey(key) + more };
      case "maxKeyDials":
        return { maxKeyDials: pending.dials.size + more };
      case "maxConns":
        return { maxConns: capacity.ofAllAndClosing + ahead + more };
      case "maxDials":
        return { maxDials: dialer.inFlight + ahead + more };
      case "maxWaiters":
        return { maxWaiters: pending.waiters.size + 1 - Math.min(pending.promised(), pending.wanting) };
      case "maxStreams":
        return { maxStreams: 1 };
      case "validate":
        return seen.some(isDue) ? { validateAfterMs: this.#unusedMs(seen) } : undefined;
      case "backoff":
        return { backoff: false };
      default:
        return undefined;
    }
  }

  /** Dials of the key until one is for a newcomer. */
  #dialsUntil(key: KeyPool<K, C>, dial: ExplainOptions<K, C>["dial"]): number {
    const slots = this.#slotsOf(key, dial);
    return slots === Number.POSITIVE_INFINITY ? 1 : Math.floor(unserved(key) / slots) + 1;
  }

  #slotsOf(key: KeyPool<K, C>, dial: ExplainOptions<K, C>["dial"]): number {
    return key.expectedSlots(attempt(() => dial?.maxStreams));
  }

  /** Dials of other keys that have waited for longer. */
  #dialsAhead(key: KeyPool<K, C>): number {
    let dials = 0;
    for (const other of this.#core.capacity.keysAhead(key)) {
      const slots = other.expectedSlots(undefined);
      dials += slots === Number.POSITIVE_INFINITY ? 1 : Math.ceil(unserved(other) / slots);
    }
    return dials;
  }

  /** The least `maxStreams` under which the conns, as many streams as they take themselves, have room for a newcomer. */
  #slotsUntil(key: KeyPool<K, C>, seen: readonly Seen<K, C>[]): number | undefined {
    const { maxStreams } = key.rules;
    const capped = seen.filter(({ notFree }) => notFree === "full" || notFree === "noSlots");
    const most = Math.max(0, ...capped.map(({ entry }) => Math.min(entry.maxStreams, maxStreams + mostStreams)));
    for (let cap = maxStreams + 1; cap <= most; cap++) {
      const gained = capped.reduce(
        (sum, { entry }) => sum + Math.max(Math.min(cap, entry.maxStreams) - entry.streams, 0),
        0,
      );
      if (gained > key.pending.waiters.size) return cap;
    }
    return undefined;
  }

  /** A time for which a conn has not been unused that is due for validation. */
  #unusedMs(seen: readonly Seen<K, C>[]): number {
    const now = this.#core.timers.now();
    const due = seen.filter(isDue);
    return Math.ceil(Math.min(...due.map(({ entry }) => now - (entry.someExtras?.usedAt ?? entry.openedAt)))) + 1;
  }
}

function isDue<K, C extends PoolConn>({ notFree }: Seen<K, C>): boolean {
  return notFree === "validationDue";
}

/** Whether a conn leaves as soon as it is asked, though the pool does not know it yet. */
function goes<K, C extends PoolConn>({ entry, notFree }: Seen<K, C>): boolean {
  return entry.isReady && (notFree === "draining" || notFree === "unreadable");
}

/** Whether a caller would have the conn asked: it is listed as free, or has gained room without a word. */
function isAsked<K, C extends PoolConn>({ entry, slots }: Seen<K, C>): boolean {
  return entry.list !== undefined || entry.streams < slots;
}

/** Streams that conns can take beside those that run. */
function room<K, C extends PoolConn>(conns: readonly Seen<K, C>[]): number {
  return conns.reduce((sum, { slots, entry }) => sum + slots - entry.streams, 0);
}

/** Waiters that are worth a dial, and that nothing in flight will serve. */
function unserved<K, C extends PoolConn>({ pending }: KeyPool<K, C>): number {
  return Math.max(pending.wanting - pending.promised(), 0);
}
