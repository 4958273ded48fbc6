import type { PoolConn } from "../contract.ts";
import {
  DialError,
  DialTimeoutError,
  NoConnError,
  NoMatchError,
  PoolClosedError,
  type PoolError,
  type PoolErrorOptions,
  QueueFullError,
  WaitTimeoutError,
} from "../errors.ts";
import { type Budget, census, count, type HeldBackBy, type Hold, remedies, time, waited } from "../explanation.ts";
import type { DelayRule, KeyRules, Rules } from "./config.ts";
import type { Core } from "./core.ts";
import type { KeyPool } from "./key-pool.ts";
import type { Request, Waiter } from "./pending.ts";

/** Waiters that are counted before one that failed: a long queue is not walked for each error. */
const mostCounted = 1000;

/** Somebody who asked for a lease, or for conns to be ready, and what the times of the key were then. */
export interface Asking<K, C extends PoolConn> {
  readonly key: KeyPool<K, C>;
  readonly request: Request<K, C>;
  readonly since: number;
  readonly dialedBefore: number;
  readonly blockedBefore: number;
}

/** What those are told who get no lease: where their time went, and what held them back. Made when they fail, of what is there. */
export class Account<K, C extends PoolConn> {
  readonly #core: Core<K, C>;

  constructor(core: Core<K, C>) {
    this.#core = core;
  }

  timedOut(waiter: Waiter<K, C>): WaitTimeoutError {
    const { key } = waiter;
    const told = this.#told(waiter, this.#holdOf(waiter));
    const { dials, waiters } = key.pending;
    const ahead = aheadOf(waiter);
    const queue = census({
      [ahead === mostCounted ? "or more ahead" : "ahead"]: ahead,
      behind: waiters.size - ahead - 1,
    });
    const more = [queue, dials.size > 0 ? this.#dialing(key) : ""].filter((part) => part !== "");
    const message = [`no lease for ${key.name} ${told.text}`, ...more].join("; ");
    return new WaitTimeoutError(message + told.end, told.options);
  }

  notWarm(warm: Asking<K, C> & { readonly count: number }): WaitTimeoutError {
    const { name, open, pending } = warm.key;
    const told = this.#told(warm, this.#holdOf(warm));
    const found = `${warm.count} conns wanted, ${open} open, ${pending.dials.size} dialing`;
    return new WaitTimeoutError(`${name} was not warm ${told.text}; ${found}${told.end}`, told.options);
  }

  /** The time of a caller was over before it asked. */
  late(key: KeyPool<K, C>, askedMs: number): WaitTimeoutError {
    const budget = { askedMs, waitedMs: 0, slotMs: 0, dialMs: 0, blockedMs: 0, ranMs: 0 };
    const left = `the time limit was over when it was asked for (${Math.round(askedMs)} ms were left)`;
    return new WaitTimeoutError(`no lease for ${key.name} in time: ${left}: see where its caller spent the time`, {
      budget,
    });
  }

  /** The dial failed that was to serve it. The error of a dial is one for all; where the time went is each caller's own. */
  dialFailed(asking: Asking<K, C>, error: DialError): DialError {
    const budget = this.budget(asking);
    const remedy = error.final
      ? "correct what it is dialed with, to dial again is useless"
      : `see whether the peer can be reached; ${patience}`;
    return dialErrorOf(error, `${waited(budget)}: ${remedy}`, { budget });
  }

  poolClosed(asking: Asking<K, C>): PoolClosedError {
    const { options } = this.#told(asking, this.hold(asking.key, "closed"));
    return new PoolClosedError(
      `the pool was closed while the caller waited: ${waited(options.budget)}; make a new one`,
      options,
    );
  }

  /** It may not wait. `others`: how many do. */
  refused(asking: Asking<K, C>, why: "backoff" | "maxWaiters", others: number): PoolError {
    const { key } = asking;
    const hold = this.hold(key, why, key.rules, this.#core.keys.rules, others);
    const error = key.pending.backoff?.error;
    if (why === "backoff" && error !== undefined) {
      const again = `not dialed again for ${time(this.#core.backoffs.pausedMs(key))} (backoff)`;
      return dialErrorOf(error, `${again}: see whether the peer can be reached; ${patience}`, {
        budget: this.budget(asking),
        heldBackBy: hold,
      });
    }
    const rest = this.#holdOf(asking);
    const told = this.#told(asking, hold);
    const further = rest === undefined ? "" : `; held back by ${rest.text}`;
    const { maxWaiters } = key.rules;
    const already = `${count(others, "caller")} ${others === 1 ? "waits" : "wait"} for ${key.name} already, and maxWaiters is ${maxWaiters}`;
    const full = maxWaiters === 0 ? `nobody may wait for ${key.name} (maxWaiters)` : already;
    return new QueueFullError(`${full}${further}${told.end}`, told.options);
  }

  /** With `queue: "codel"`: it has waited for so long that it would only be late, and hold up others. */
  overloaded(waiter: Waiter<K, C>, { targetMs, intervalMs }: DelayRule): QueueFullError {
    const { text, end, options } = this.#told(waiter, this.#holdOf(waiter));
    const why = `nobody has got a conn within ${time(targetMs)} for over ${time(intervalMs)} (\`queue\`), so the newest are served first`;
    return new QueueFullError(`${waiter.key.name} is overloaded: ${text}; ${why}${end}`, options);
  }

  /** No conn can ever come to it. */
  hopeless(asking: Asking<K, C>, why: "filter" | "gone" | "dial"): PoolError {
    const { key, request } = asking;
    const { options } = this.#told(asking, this.hold(key, why === "filter" ? "filter" : "dial"));
    if (why === "filter") {
      const thrown = request.filter && this.#core.selector.thrownBy(request.filter);
      const threw = thrown === undefined ? "" : ", which threw";
      const ready = key.usable;
      return new NoMatchError(
        `none of the ${ready} conns of ${key.name} passes the filter${threw}; ${waited(options.budget)}: ${thrown === undefined ? remedies.filter : "correct the filter"}`,
        thrown === undefined ? { ...options, cause: undefined } : { ...options, cause: thrown },
      );
    }
    const what =
      why === "gone"
        ? `the conn dialed for ${key.name} has gone`
        : `${key.name} has ${key.usable === 0 ? "no conn" : "too few conns"}, and there is no dial function to open one`;
    return new NoConnError(
      `${what}; ${waited(options.budget)}: ${why === "gone" ? "call again" : remedies.dial}`,
      options,
    );
  }

  budget({ key, request, since, dialedBefore, blockedBefore }: Asking<K, C>): Budget {
    const now = this.#core.timers.now();
    const { pending } = key;
    if (!key.isResting) pending.count(now);
    const waitedMs = Math.max(now - since, 0);
    const dialMs = part(pending.dialedMs - dialedBefore, waitedMs);
    const blockedMs = part(pending.blockedMs - blockedBefore, waitedMs - dialMs);
    const ranMs = request.spentMs ?? 0;
    const limit = request.timeoutMs ?? Number.POSITIVE_INFINITY;
    const askedMs = limit === Number.POSITIVE_INFINITY ? undefined : limit + ranMs;
    return { askedMs, waitedMs, slotMs: waitedMs - dialMs - blockedMs, dialMs, blockedMs, ranMs };
  }

  /** What an error says of the time, and at its end of what to do. */
  #told(asking: Asking<K, C>, heldBackBy: Hold | undefined) {
    const { key } = asking;
    const budget = this.budget(asking);
    const cause = key.pending.backoff?.error;
    const options = { budget, heldBackBy, ...(cause === undefined ? {} : { cause }) } satisfies PoolErrorOptions;
    const { askedMs } = budget;
    const by = askedMs === key.rules.waitTimeoutMs ? " (waitTimeoutMs)" : "";
    const limit = askedMs === undefined ? "" : `within ${time(askedMs)}${by}: `;
    const held = heldBackBy === undefined ? "" : `; held back by ${heldBackBy.text}`;
    const remedy = heldBackBy?.remedy ?? "see whether the peer answers, or give it more time";
    return { options, text: `${limit}${waited(budget)}${held}`, end: `${this.#failing(key)}: ${remedy}` };
  }

  /** The last failed dial of a key that fails. */
  #failing(key: KeyPool<K, C>): string {
    const { backoff } = key.pending;
    if (backoff === undefined) return "";
    const last = key.history.find(({ what }) => what === "dialFailed");
    const ago = last === undefined ? "" : ` ${time(this.#core.timers.now() - last.at)} ago`;
    return `; last dial failed${ago}: ${last?.why ?? backoff.error.message}${this.#again(key)}`;
  }

  #again(key: KeyPool<K, C>): string {
    const ms = this.#core.backoffs.pausedMs(key);
    return ms > 0 ? `; not dialed again for ${time(ms)}` : "";
  }

  #dialing({ pending: { dials }, rules: { dialTimeoutMs } }: KeyPool<K, C>): string {
    const oldest = dials.head === undefined ? 0 : this.#core.timers.now() - dials.head.startedAt;
    const limit = dialTimeoutMs < Number.POSITIVE_INFINITY ? ` of ${time(dialTimeoutMs)} (dialTimeoutMs)` : "";
    return `${count(dials.size, "dial")} in flight, the oldest for ${time(oldest)}${limit}`;
  }

  // What holds a caller back.

  /** Of somebody who waits. */
  #holdOf(asking: Asking<K, C> & { readonly wantsDial?: boolean; readonly seq?: number }): Hold | undefined {
    const { key, request, wantsDial = request.dial !== undefined, seq } = asking;
    const { pending } = key;
    const { dispatcher, capacity, keys } = this.#core;
    if (pending.isBatching) return this.hold(key, "queue");
    if (!wantsDial) return this.hold(key, request.dial === undefined ? "dial" : "filter");
    if (pending.promised() >= pending.wanting) return pending.dials.size > 0 ? undefined : this.hold(key, "validate");
    if (key.rules.maxStreams === 0) return this.hold(key, "maxStreams");
    const by = dispatcher.pauseFor(key, seq ?? 0) ?? capacity.objection(key, key.rules, keys.rules);
    return by === undefined ? undefined : this.hold(key, by);
  }

  /** What holds a caller back, with its numbers. */
  hold(
    key: KeyPool<K, C>,
    by: HeldBackBy,
    own: KeyRules = key.rules,
    all: Rules = this.#core.keys.rules,
    waiting: number = key.pending.waiters.size,
  ): Hold {
    const { entries, capacity, dialer } = this.#core;
    const { dials, backoff } = key.pending;
    const { leasedCount: leased, idleCount: idle, blockedCount: blocked } = key;
    const limited = (used: number, limit: number, what: string): Hold => {
      const text = limit <= 0 ? `${by}: none allowed` : `${by}: ${used} of ${limit}${what === "" ? "" : `, ${what}`}`;
      const remedy =
        blocked > 0 && by === "maxKeyConns" ? `see why conns stay blocked, or ${remedies[by]}` : remedies[by];
      return Object.freeze({ by, used, limit, text, remedy });
    };
    const plain = (text: string): Hold => Object.freeze({ by, text, remedy: remedies[by] });
    switch (by) {
      case "maxKeyConns":
        return limited(
          capacity.ofKey(key),
          own.maxKeyConns,
          census({ leased, idle, dialing: dials.size, "of them blocked": blocked }),
        );
      case "maxConns": {
        const used = capacity.ofAllAndClosing;
        const { closing, draining } = entries;
        const others = used - closing - key.open - dials.size;
        const whose =
          others === used ? "all used by other keys" : census({ "used by other keys": others, draining, closing });
        const inLine = capacity.othersInLine(key);
        return limited(used, all.maxConns, inLine === 0 ? whose : `${whose}; ${count(inLine, "other key")} in line`);
      }
      case "maxKeyDials":
        return limited(dials.size, own.maxKeyDials, "");
      case "maxDials":
        return limited(dialer.inFlight, all.maxDials, dials.size === 0 ? "all of other keys" : "");
      case "maxStreams":
        return limited(0, own.maxStreams, "");
      case "maxWaiters":
        return limited(waiting, own.maxWaiters, "");
      case "backoff":
      case "pace":
        return plain(`${by}: ${count(backoff?.failures ?? 0, "failed dial")} in a row`);
      case "queue":
        return plain(`queue: ${waiting} came before it`);
      case "validate":
        return plain("validate: a conn is asked whether it works");
      case "dial":
        return plain(
          `dial: there is no dial function${key.usable === 0 ? "" : `, and ${census({ leased, idle, "of them blocked": blocked })}`}`,
        );
      case "filter":
        return plain(`filter: none of the ${key.usable} conns passes it`);
      case "closed":
        return plain("closed: the pool is closed");
    }
  }
}

const patience = "callers with `waitForReady` wait until it can";

/** The error of a dial for one of those whom it failed, or would have. */
function dialErrorOf(error: DialError, more: string, options: PoolErrorOptions): DialError {
  const message = `${error.message}; ${more}`;
  const told = "cause" in error ? { ...options, cause: error.cause } : options;
  if (error instanceof DialTimeoutError) return new DialTimeoutError(message, told);
  return new DialError(message, { ...told, final: error.final });
}

/** So many whole milliseconds of a time: all of it, where they are. */
function part(ms: number, of: number): number {
  return ms > 0 && of - ms < 1 ? of : ms;
}

function aheadOf<K, C extends PoolConn>(waiter: Waiter<K, C>): number {
  let ahead = 0;
  for (let { prev } = waiter; prev !== undefined && ahead < mostCounted; prev = prev.prev) ahead++;
  return ahead;
}
