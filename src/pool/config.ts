import { checkCount, checkOptions, checkTime, checkTimeout } from "../argument.ts";
import type { Backoff, KeyLimits, Limits } from "../options.ts";

/** More than any count; a small integer, since each call compares with it. */
export const unlimited: number = 2 ** 31 - 1;

/** A count as the pool compares with it: 0 becomes unlimited, negative becomes 0. */
const count = (value: number): number => (value === 0 ? unlimited : Math.min(Math.max(value, 0), unlimited));

/** A time as the pool compares with it: 0 becomes infinity. */
const time = (value: number): number => (value === 0 ? Number.POSITIVE_INFINITY : value);

/** Delays between failed dials, complete. */
export type BackoffRule = { readonly baseMs: number; readonly maxMs: number; readonly maxAttempts: number };

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
  readonly maxUses: number;
  readonly minIdle: number;
  readonly validateAfterMs: number;
  readonly backoff: BackoffRule | undefined;
}

export interface Rules extends KeyRules {
  readonly capacity: number;
  readonly maxConns: number;
}

type Row = { readonly check: (name: string, value: unknown) => void; readonly rule: (value: number) => number };
const countRow: Row = { check: checkCount, rule: count };
const timeRow: Row = { check: checkTime, rule: time };

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
  maxUses: { check: checkCount, rule: (value) => Math.max(count(value), 1) },
  minIdle: { check: checkCount, rule: (value) => Math.max(value, 0) },
  validateAfterMs: { check: checkTime, rule: (value) => value },
} satisfies Record<string, Row>;
const totalRows = { capacity: countRow, maxConns: countRow };

export const keyLimitNames: readonly string[] = [...Object.keys(keyRows), "backoff"];
export const limitNames: readonly string[] = [...keyLimitNames, ...Object.keys(totalRows)];

export const defaultRules: Rules = {
  capacity: unlimited,
  keyCapacity: unlimited,
  expirationMs: Number.POSITIVE_INFINITY,
  maxConns: unlimited,
  maxKeyConns: unlimited,
  maxStreams: unlimited,
  maxKeyDials: unlimited,
  maxWaiters: 1000,
  waitTimeoutMs: Number.POSITIVE_INFINITY,
  dialTimeoutMs: 20_000,
  maxLifetimeMs: Number.POSITIVE_INFINITY,
  maxUses: unlimited,
  minIdle: 0,
  validateAfterMs: 500,
  backoff: undefined,
};

function backoffRule(backoff: Backoff | false): BackoffRule | undefined {
  if (backoff === false) return undefined;
  checkOptions("backoff", backoff, ["baseMs", "maxMs", "maxAttempts"]);
  const { baseMs = 100, maxMs = 10_000, maxAttempts = 0 } = backoff;
  checkTimeout("backoff.baseMs", baseMs);
  checkTimeout("backoff.maxMs", maxMs);
  checkCount("backoff.maxAttempts", maxAttempts);
  return { baseMs, maxMs: Math.max(baseMs, maxMs), maxAttempts: Math.max(count(maxAttempts), 1) };
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
  if (limits.backoff !== undefined) changed["backoff"] = backoffRule(limits.backoff);
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
