import {
  checkBoolean,
  checkClock,
  checkCount,
  checkFactor,
  checkFraction,
  checkFunction,
  checkOneOf,
  checkOptions,
  checkPause,
  checkSignal,
  checkString,
  checkTime,
} from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import type { AcquireOptions, Backoff, KeyLimits, Limits, PoolOptions, Queueing, Selection } from "../options.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";

/** More than any count; a small integer, since each call compares with it. */
export const unlimited: number = 2 ** 31 - 1;

/** A count as the pool compares with it: 0 becomes unlimited, negative becomes 0. */
const count = (value: number): number => (value === 0 ? unlimited : Math.min(Math.max(value, 0), unlimited));

/** A time as the pool compares with it: 0 becomes infinity. */
const time = (value: number): number => (value === 0 ? Number.POSITIVE_INFINITY : value);

/** Delays between failed dials, complete. */
export type BackoffRule = {
  readonly baseMs: number;
  readonly maxMs: number;
  readonly factor: number;
  readonly jitter: number | "full";
  readonly maxAttempts: number;
};

/** The limits of one key, in the form that the pool compares with: no zero means "unlimited" any more. */
export interface KeyRules {
  readonly keyCapacity: number;
  readonly expirationMs: number;
  readonly maxKeyConns: number;
  readonly maxStreams: number;
  readonly maxKeyDials: number;
  readonly maxWaiters: number;
  readonly waitTimeoutMs: number;
  readonly dialTimeoutMs: number;
  readonly maxLifetimeMs: number;
  readonly lifetimeJitter: number;
  readonly maxUses: number;
  readonly minIdle: number;
  readonly validateAfterMs: number;
  readonly backoff: BackoffRule | undefined;
}

export interface Rules extends KeyRules {
  readonly capacity: number;
  readonly maxConns: number;
  readonly maxDials: number;
}

type Row = {
  readonly check: (name: string, value: unknown) => void;
  readonly rule: (value: number) => number;
  /** The rule as the option would say it. */
  readonly option: (rule: number) => number;
};
const asIs = (value: number): number => value;
const countRow: Row = {
  check: checkCount,
  rule: count,
  option: (rule) => (rule === unlimited ? 0 : rule === 0 ? -1 : rule),
};
const timeRow: Row = { check: checkTime, rule: time, option: (rule) => (rule === Number.POSITIVE_INFINITY ? 0 : rule) };

const keyRows = {
  keyCapacity: countRow,
  expirationMs: timeRow,
  maxKeyConns: countRow,
  maxStreams: countRow,
  maxKeyDials: countRow,
  maxWaiters: countRow,
  waitTimeoutMs: timeRow,
  dialTimeoutMs: timeRow,
  maxLifetimeMs: timeRow,
  lifetimeJitter: { check: checkFraction, rule: asIs, option: asIs },
  maxUses: { ...countRow, rule: (value) => Math.max(count(value), 1) },
  minIdle: { check: checkCount, rule: (value) => Math.max(value, 0), option: asIs },
  validateAfterMs: { check: checkTime, rule: asIs, option: asIs },
} satisfies Record<string, Row>;
const totalRows = { capacity: countRow, maxConns: countRow, maxDials: countRow };

const keyLimitNames: readonly string[] = [...Object.keys(keyRows), "backoff"];
export const limitNames: readonly string[] = [...keyLimitNames, ...Object.keys(totalRows)];

export const defaultRules: Rules = {
  capacity: unlimited,
  keyCapacity: unlimited,
  expirationMs: Number.POSITIVE_INFINITY,
  maxConns: unlimited,
  maxKeyConns: unlimited,
  maxStreams: unlimited,
  maxKeyDials: unlimited,
  maxDials: unlimited,
  maxWaiters: 1000,
  waitTimeoutMs: Number.POSITIVE_INFINITY,
  dialTimeoutMs: 20_000,
  maxLifetimeMs: Number.POSITIVE_INFINITY,
  lifetimeJitter: 0.1,
  maxUses: unlimited,
  minIdle: 0,
  validateAfterMs: 500,
  backoff: undefined,
};

/** Delays between failed dials, checked and complete. */
export function backoffRule(given: Backoff): BackoffRule {
  checkOptions("backoff", given, ["baseMs", "maxMs", "factor", "jitter", "maxAttempts"]);
  const { baseMs = 100, maxMs = 10_000, factor = 2, jitter = "full", maxAttempts = 0 } = given;
  checkPause("backoff.baseMs", baseMs);
  checkPause("backoff.maxMs", maxMs);
  checkFactor("backoff.factor", factor);
  if (jitter !== "full") checkFraction("backoff.jitter", jitter);
  checkCount("backoff.maxAttempts", maxAttempts);
  return { baseMs, maxMs: Math.max(baseMs, maxMs), factor, jitter, maxAttempts: Math.max(count(maxAttempts), 1) };
}

function changes(limits: Limits, rows: Record<string, Row>): Record<string, unknown> {
  const given = new Map<string, unknown>(Object.entries(limits));
  const changed: Record<string, unknown> = {};
  for (const [name, { check, rule }] of Object.entries(rows)) {
    const value = given.get(name);
    if (value === undefined) continue;
    check(name, value);
    changed[name] = rule(Number(value));
  }
  const { backoff } = limits;
  if (backoff !== undefined)
    changed["backoff"] = backoff === false ? undefined : backoffRule(backoff === true ? {} : backoff);
  return changed;
}

/** What `limits` says, checked, over `rules`; what it leaves out stays. Throws before anything has changed. */
export function withLimits(rules: Rules, limits: Limits): Rules {
  return { ...rules, ...changes(limits, { ...keyRows, ...totalRows }) };
}

/** The same for one key. The result has nothing but the changes, so that they can lie over other rules later. */
export function keyChanges(limits: KeyLimits, what: string): Partial<KeyRules> {
  checkOptions(what, limits, keyLimitNames);
  return changes(limits, keyRows);
}

/** What is kept ready is dialed by the pool itself. */
export function checkMinIdle({ minIdle }: Partial<KeyRules>, dial: unknown): void {
  if (minIdle === undefined || minIdle === 0 || dial !== undefined) return;
  throw new PoolTypeError("`minIdle` needs the pool's `dial` option: conns that nobody waits for are dialed with it");
}

/** The rules as the options would say them. */
export function limitsOf(rules: KeyRules): Limits {
  const values = new Map<string, unknown>(Object.entries(rules));
  const limits: Record<string, unknown> = { backoff: backoffOf(rules.backoff) };
  for (const [name, { option }] of Object.entries({ ...keyRows, ...totalRows })) {
    const value = values.get(name);
    if (typeof value === "number") limits[name] = option(value);
  }
  return limits;
}

function backoffOf(rule: BackoffRule | undefined): Backoff | false {
  return rule === undefined ? false : Object.freeze({ ...rule, maxAttempts: countRow.option(rule.maxAttempts) });
}

/** `queue: "codel"`, complete. */
export type DelayRule = { readonly targetMs: number; readonly intervalMs: number };

function delayRule(queue: Queueing): DelayRule | undefined {
  if (typeof queue === "string") checkOneOf("queue", queue, ["fifo", "codel"]);
  if (queue === "fifo") return undefined;
  const given = queue === "codel" ? {} : queue;
  checkOptions("queue", given, ["targetMs", "intervalMs"]);
  const { targetMs = 50, intervalMs = 1000 } = given;
  checkPause("queue.targetMs", targetMs);
  checkPause("queue.intervalMs", intervalMs);
  return { targetMs, intervalMs };
}

const otherNames = [
  "dial",
  "hashKey",
  "limits",
  "selection",
  "queue",
  "validate",
  "reset",
  "prime",
  "name",
  "clock",
  "leakAfterMs",
];

/** The options of a pool, checked and complete. */
export interface Config<K, C extends PoolConn>
  extends Pick<PoolOptions<K, C>, "dial" | "hashKey" | "limits" | "validate" | "reset" | "prime"> {
  readonly selection: Selection<C>;
  /** Absent: first come, first served. */
  readonly delay: DelayRule | undefined;
  readonly name: string;
  readonly clock: Clock;
  readonly leakAfterMs: number;
  readonly rules: Rules;
}

/** @throws PoolTypeError or PoolRangeError for a wrong value or an unknown name. */
export function configOf<K, C extends PoolConn>(options: PoolOptions<K, C>): Config<K, C> {
  checkOptions("the pool's options", options, [...limitNames, ...otherNames]);
  const { dial, hashKey, limits, validate, reset, prime, ...others } = options;
  const { selection = "newest", queue = "fifo", name = "pool", clock = systemClock, leakAfterMs = 0, ...rest } = others;
  for (const [option, value] of Object.entries({ dial, hashKey, limits, validate, reset, prime }))
    checkFunction(option, value);
  if (typeof selection !== "function") {
    checkOneOf("selection", selection, ["oldest", "newest", "least-loaded", "fastest"]);
  }
  checkString("name", name);
  checkClock(clock);
  checkTime("leakAfterMs", leakAfterMs);
  const rules = withLimits(defaultRules, rest);
  checkMinIdle(rules, dial);
  return {
    dial,
    hashKey,
    limits,
    validate,
    reset,
    prime,
    selection,
    delay: delayRule(queue),
    name,
    clock,
    leakAfterMs,
    rules,
  };
}

const acquireOptionNames = ["dial", "signal", "timeoutMs", "deadline", "filter", "waitForReady"];

/** Whether `options`, of the method `what`, say how to get a lease. Throws the reason of a signal that has aborted. */
export function checkAcquire<K, C extends PoolConn>(
  what: string,
  options: AcquireOptions<K, C>,
  furtherNames: readonly string[] = [],
): void {
  checkOptions(`${what}'s options`, options, [...acquireOptionNames, ...furtherNames]);
  checkRequest(options);
  checkFunction("dial", options.dial);
  options.signal?.throwIfAborted();
}

export function checkRequest(options: { signal?: unknown; filter?: unknown; waitForReady?: unknown }): void {
  checkSignal("signal", options.signal);
  checkFunction("filter", options.filter);
  checkBoolean("waitForReady", options.waitForReady);
}
