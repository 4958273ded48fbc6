/** What a pool says of itself: where the time of a call went, and what a caller would meet; and the same as text. */

import type { PoolErrorCode } from "./errors.ts";
import type { ConnInfo, Limits } from "./options.ts";

/** Where the time of a call went, in milliseconds. `waitedMs = slotMs + dialMs + blockedMs`. */
export interface Budget {
  /** What it was given: `timeoutMs`, the time until `deadline`, or `waitTimeoutMs`. Undefined: no limit. */
  readonly askedMs: number | undefined;
  /** How long it waited for a lease. */
  readonly waitedMs: number;
  /** Of that, while every conn of its key was in use, or a limit held it back. */
  readonly slotMs: number;
  /** Of that, while a dial of its key was in flight. */
  readonly dialMs: number;
  /** Of that, while no dial was in flight and a conn of its key was blocked or suspect. */
  readonly blockedMs: number;
  /** How long it ran on a conn. 0: it did not begin. */
  readonly ranMs: number;
}

/**
 * What stands in the way of a caller: an option of the pool by its name, or
 *
 * - `"queue"`: callers of its key that came before it; what is free is theirs;
 * - `"pace"`: while a key fails, the pool dials it again by itself, one dial at a time and after a pause;
 * - `"dial"`: there is no dial function, and no conn without one;
 * - `"filter"`: no conn passes it, and a dial for it brought none that does;
 * - `"closed"`: the pool is closed.
 */
export type HeldBackBy =
  | "maxConns"
  | "maxKeyConns"
  | "maxDials"
  | "maxKeyDials"
  | "maxStreams"
  | "maxWaiters"
  | "backoff"
  | "validate"
  | "queue"
  | "pace"
  | "dial"
  | "filter"
  | "closed";

/** What holds a caller back. */
export interface Hold {
  readonly by: HeldBackBy;
  /** Of a limit: how much of it is used. */
  readonly used?: number | undefined;
  /** Of a limit: what it allows. */
  readonly limit?: number | undefined;
  /** The same for people: "maxConns: 1 of 1, all used by other keys". */
  readonly text: string;
  /** What can be done about it. */
  readonly remedy: string;
}

/**
 * What a caller meets. `"lease"`: a conn at once; `"dial"`: a dial, in flight or begun for it, and nothing is in its way;
 * `"wait"`: it waits until something else happens; `"refuse"`: an error at once.
 */
export type Decision = "lease" | "dial" | "wait" | "refuse";

/** One conn of a key, and why it is not free. */
export interface ExplainedConn extends ConnInfo {
  /**
   * Why a caller does not get it now. Undefined: it may. `"full"`: it runs as many streams as it takes; `"noSlots"`: it takes none;
   * `"draining"`: it closes after its last stream; `"blocked"`: its `unblocked()` is pending; `"reset"`, `"validating"`: that is
   * pending; `"suspect"`: it owes a sign of life, or an answer; `"validationDue"`: `validate` is asked before it is used again;
   * `"filter"`: it does not pass; `"unreadable"`: it cannot be asked, and would be closed.
   */
  readonly notFree?: NotFree | undefined;
  /** The same for people. */
  readonly text: string;
}

export type NotFree =
  | "full"
  | "noSlots"
  | "draining"
  | "blocked"
  | "reset"
  | "validating"
  | "suspect"
  | "validationDue"
  | "filter"
  | "unreadable";

/** A dial in flight. */
export interface ExplainedDial {
  /** Milliseconds since it began. */
  readonly ageMs: number;
  /** Callers that its conn is expected to serve. Undefined: nothing is known of the key yet. */
  readonly slots: number | undefined;
  /** It is for `minIdle`, `warm` or a replacement, not for a caller. */
  readonly isBackground: boolean;
}

/** Something that happened to a key and does not happen all the time. */
export interface KeyEvent {
  readonly what: "dialFailed" | "abandoned" | "closed";
  /** The message of the dial's error, why the dial was given up, or the reason of the close. */
  readonly why: string;
  readonly agoMs: number;
}

/** Limits that would change what a caller meets, as `configure` and the pool's options take them. */
export interface Counterfactual {
  readonly limits: Limits;
  /** What the caller would meet then. */
  readonly decision: Decision;
  /** The same for people: "`maxKeyConns` 5 would dial". */
  readonly text: string;
}

/** What `pool.explain(key)` returns: frozen data. `toString()` is the same for people, on some ten lines. */
export interface Explanation {
  /** The pool's name. */
  readonly pool: string;
  /** The key as messages call it: what `hashKey` made of it, or its `address`. */
  readonly key: string;
  /** What a caller would meet who came now. */
  readonly decision: Decision;
  /** Why, in one sentence. */
  readonly why: string;
  /** What holds the caller back; undefined: nothing does. */
  readonly heldBackBy: Hold | undefined;
  /** The code of the error that a refused caller would get. */
  readonly code: PoolErrorCode | undefined;
  /** Callers that wait for the key now. */
  readonly waiting: number;
  /** Keys that stand in line for a place under `maxConns` before this one. */
  readonly keysAhead: number;
  readonly dials: readonly ExplainedDial[];
  /** Failed dials in a row. 0: the last one came through, or nothing is remembered. */
  readonly failedDials: number;
  /** Milliseconds until the pool dials the key again by itself. 0: it does not pause. */
  readonly pausedMs: number;
  readonly conns: readonly ExplainedConn[];
  /** What happened to the key lately, the last first. */
  readonly events: readonly KeyEvent[];
  /** What would change the decision. Empty: no limit is in the way, or none alone. */
  readonly counterfactuals: readonly Counterfactual[];
  toString(): string;
}

/**
 * With the options that a pool gives to a conn: how much of the call's time was over when the conn got it, for its errors to tell.
 * Its `timeoutMs` is what is left. Under a symbol, so that a conn which does not know it finds nothing strange.
 */
export const spentMs: unique symbol = Symbol.for("rpc-conn-pool.spentMs");

/** Milliseconds of a call's time that were over before `options` came to a conn. */
export function spentOf(options: object | undefined): number {
  if (options === undefined || !(spentMs in options)) return 0;
  return typeof options[spentMs] === "number" ? options[spentMs] : 0;
}

// As text.

/** Conns that the text of an explanation lists. */
const mostListed = 4;

/** What can be done about what holds a caller back. */
export const remedies: Readonly<Record<HeldBackBy, string>> = {
  maxConns: "raise `maxConns`, or see which keys hold their conns for long",
  maxKeyConns: "raise `maxKeyConns`, or see which calls hold their conns for long",
  maxDials: "raise `maxDials`, or see why dials take so long",
  maxKeyDials: "raise `maxKeyDials`, or see why dials take so long",
  maxStreams: "raise `maxStreams`: no conn may run a stream",
  maxWaiters: "send less, raise what holds back those who wait, or raise `maxWaiters`",
  backoff: "see why the peer cannot be dialed; `waitForReady` waits until it can",
  pace: "see why the peer cannot be dialed",
  validate: "see why `validate` takes so long, or raise `validateAfterMs`",
  queue: "wait: it is being served",
  dial: "give a `dial` function, to the pool or with the call, or `put` a conn",
  filter: "loosen the filter, or dial conns that pass it",
  closed: "make a new pool",
};

/** `1,200 ms`. */
export function time(ms: number): string {
  return `${Math.round(ms)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",")} ms`;
}

/** `1 key`, `2 keys`. */
export function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

/** What there is any of: "2 leased, 1 dialing". */
export function census(counts: Readonly<Record<string, number>>): string {
  const some = Object.entries(counts).filter(([, n]) => n > 0);
  return some.map(([what, n]) => `${n} ${what}`).join(", ");
}

/** Whether a request can have reached the peer, and what to do then. */
export function reached(sent: boolean): string {
  return sent
    ? "the request may have reached the peer: repeat it if it may run twice"
    : "the request was not sent: call again, or set `retryUnsent`";
}

/** How long a call waited, and for what. */
export function waited({ slotMs, dialMs, blockedMs, waitedMs, ranMs }: Budget): string {
  const parts = { "a slot": slotMs, "a dial": dialMs, "a blocked conn": blockedMs };
  const some = Object.entries(parts).filter(([, ms]) => Math.round(ms) > 0);
  const spent = some.map(([what, ms]) => `${time(ms)} for ${what}`).join(" and ");
  return `waited ${spent === "" ? time(waitedMs) : spent}${ranMs > 0 ? `, after ${time(ranMs)} on a conn` : ""}`;
}

export function counterfactual(limits: Limits, decision: Decision): Counterfactual {
  const settings = Object.entries(limits).map(([name, value]) => `\`${name}\` ${String(value)}`);
  return Object.freeze({
    limits: Object.freeze(limits),
    decision,
    text: `${settings.join(" and ")} would ${decision}`,
  });
}

export function connText(info: Omit<ExplainedConn, "notFree" | "text">, notFree: NotFree | undefined): string {
  const { state, streams, maxStreams, ageMs, uses } = info;
  return `${state}, ${streams} of ${maxStreams} streams, open for ${time(ageMs)}, used ${count(uses, "time")}: ${notFree ?? "free"}`;
}

/** An explanation: data, which says itself on some ten lines. */
export class ToldExplanation {
  toString(this: Explanation): string {
    const { heldBackBy, counterfactuals, dials, conns, events } = this;
    const code = this.code === undefined ? "" : ` with ${this.code}`;
    const lines = [
      `pool ${JSON.stringify(this.pool)}, key ${this.key}: a caller who came now would ${verbs[this.decision]}${code}`,
      `why: ${this.why}${heldBackBy === undefined ? "" : `; held back by ${heldBackBy.text}`}`,
    ];
    if (heldBackBy !== undefined) lines.push(`what to do: ${heldBackBy.remedy}`);
    if (counterfactuals.length > 0) lines.push(`else: ${counterfactuals.map(({ text }) => text).join("; ")}`);
    const line = this.keysAhead === 0 ? "" : `; ${count(this.keysAhead, "key")} in line before this one`;
    lines.push(`waiting: ${this.waiting}${line}`);
    const ages = dials.map(({ ageMs }) => time(ageMs)).slice(0, mostListed);
    const failed = this.failedDials === 0 ? "" : `; ${this.failedDials} failed in a row`;
    const paused = this.pausedMs === 0 ? "" : `; not dialed again for ${time(this.pausedMs)}`;
    lines.push(
      `dials in flight: ${dials.length}${ages.length === 0 ? "" : ` (for ${ages.join(", ")})`}${failed}${paused}`,
    );
    lines.push(`conns: ${conns.length}`);
    for (const { text } of conns.slice(0, mostListed)) lines.push(`  ${text}`);
    if (conns.length > mostListed) lines.push(`  and ${conns.length - mostListed} more`);
    for (const { what, why, agoMs } of events.slice(0, 2)) lines.push(`${time(agoMs)} ago: ${happened[what]}: ${why}`);
    return lines.join("\n");
  }
}

const verbs: Readonly<Record<Decision, string>> = {
  lease: "get a conn at once",
  dial: "get what is dialed",
  wait: "wait",
  refuse: "be refused",
};

const happened = { dialFailed: "a dial failed", abandoned: "a dial was abandoned", closed: "a conn was closed" };
