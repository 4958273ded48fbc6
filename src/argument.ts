import type { CallOptions, PoolConn } from "./contract.ts";
import { PoolRangeError, PoolTypeError } from "./errors.ts";
import type { Backoff } from "./options.ts";
import type { Clock } from "./runtime/clock.ts";

/** `value` for a message: short, and without the contents of objects, which may hold credentials. */
export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value.length > 100 ? `${value.slice(0, 100)}…` : value);
    case "bigint":
      return `${value}n`;
    case "symbol":
      return value.toString();
    case "function":
      return `function ${value.name || "(anonymous)"}`;
    case "object":
      return value === null ? "null" : Array.isArray(value) ? "an array" : `an object (${constructorName(value)})`;
    default:
      return String(value);
  }
}

function constructorName(value: object): string {
  try {
    return value.constructor?.name ?? "null prototype";
  } catch {
    return "unreadable";
  }
}

function refusal(name: string, expected: string, value: unknown): string {
  return `expected \`${name}\` to be ${expected}, got ${show(value)}`;
}

function refuse(name: string, expected: string, value: unknown): never {
  throw new PoolTypeError(refusal(name, expected, value));
}

/** Of a number that was to be another one. */
function refuseNumber(name: string, expected: string, value: unknown): never {
  if (typeof value === "number") throw new PoolRangeError(refusal(name, expected, value));
  refuse(name, expected, value);
}

export function checkCount(name: string, value: unknown): asserts value is number {
  if (!Number.isSafeInteger(value)) refuseNumber(name, "an integer (0: unlimited, negative: none)", value);
}

/** Of sizes and counts for which there is no "none". */
export function checkSize(name: string, value: unknown): asserts value is number {
  if (!Number.isSafeInteger(value) || Number(value) < 0) refuseNumber(name, "an integer, 0 or more", value);
}

/** Of a number of things of which there must be at least one. It may be left out. */
export function checkAtLeastOne(name: string, value: unknown): asserts value is number | undefined {
  if (value === undefined || (Number.isSafeInteger(value) && Number(value) >= 1)) return;
  refuseNumber(name, "an integer of at least 1", value);
}

export function checkTime(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value >= 0 && value < Number.POSITIVE_INFINITY)) {
    refuseNumber(name, "a number of milliseconds, 0 or more (0: never)", value);
  }
}

/** A time that must be over 0: of a pause, say. */
export function checkPause(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value > 0 && value < Number.POSITIVE_INFINITY)) {
    refuseNumber(name, "a finite number of milliseconds over 0", value);
  }
}

/** A time limit. 0 or less is the usual result of a deadline that has passed: it has timed out. */
export function checkTimeout(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(Math.abs(value) < Number.POSITIVE_INFINITY)) {
    refuseNumber(name, "a finite number of milliseconds (omit it for no limit)", value);
  }
}

/** The time limit that `timeoutMs` and `deadline` set, the earlier of both; `undefined`: none. Throws for what is neither. */
export function timeLimit(
  options: { readonly timeoutMs?: unknown; readonly deadline?: unknown },
  wallNow: () => number,
): number | undefined {
  const { timeoutMs, deadline } = options;
  if (timeoutMs !== undefined) checkTimeout("timeoutMs", timeoutMs);
  if (deadline === undefined) return timeoutMs;
  const at = deadline instanceof Date ? deadline.getTime() : deadline;
  if (typeof at !== "number" || !Number.isFinite(at)) {
    refuseNumber("deadline", "a Date, or milliseconds since the epoch (omit it for no limit)", at);
  }
  return Math.min(at - wallNow(), timeoutMs ?? Number.POSITIVE_INFINITY);
}

/** How many times as much something becomes, at least as much. */
export function checkFactor(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value >= 1)) refuseNumber(name, "1 or more", value);
}

/** A part of a whole. */
export function checkFraction(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value >= 0 && value <= 1)) refuseNumber(name, "a number from 0 to 1", value);
}

/** A number that is drawn: always the same, or from the least of a pair to the most. */
export function checkRange(
  name: string,
  value: unknown,
  least = 0,
): asserts value is number | readonly [least: number, most: number] {
  const [low, high, ...more]: readonly unknown[] = Array.isArray(value) ? value : [value, value];
  const isRange = typeof low === "number" && typeof high === "number" && more.length === 0;
  if (isRange && low >= least && high >= low && high < Number.POSITIVE_INFINITY) return;
  const expected = `a number of at least ${least}, or a pair of them, [least, most]`;
  if (isRange) throw new PoolRangeError(refusal(name, expected, value));
  refuse(name, expected, value);
}

export function checkFunction(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "function") refuse(name, "a function", value);
}

/** Whether `value` is an object, or was left out. */
export function checkObject(name: string, value: unknown): asserts value is object | undefined {
  if (value !== undefined && (typeof value !== "object" || value === null)) refuse(name, "an object", value);
}

export function checkClock(clock: unknown): asserts clock is Clock {
  if (typeof clock !== "object" || clock === null) refuse("clock", "an object", clock);
  const given = clock as Partial<Record<string, unknown>>; // any property of it may be missing
  for (const part of ["now", "setTimeout", "clearTimeout"]) checkFunction(`clock.${part}`, given[part] ?? null);
}

export function checkBoolean(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "boolean") refuse(name, "a boolean", value);
}

export function checkString(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "string") refuse(name, "a string", value);
}

export function checkOneOf(name: string, value: unknown, allowed: readonly string[]): void {
  if (value === undefined || (typeof value === "string" && allowed.includes(value))) return;
  refuse(name, `one of ${allowed.map(show).join(", ")}`, value);
}

export function checkSignal(name: string, value: unknown): void {
  if (value !== undefined && !(value instanceof AbortSignal)) refuse(name, "an AbortSignal", value);
}

/** Whether `value` is an object of options, with no name outside `allowed`. */
export function checkOptions(what: string, value: unknown, allowed: readonly string[]): void {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(what, "an object of options", value);
  refuseGrpcMetadata(what, value);
  for (const name of Object.keys(value)) {
    if (!allowed.includes(name)) {
      const like = nearest(name, allowed);
      const hint = like === undefined ? "" : `; did you mean \`${like}\`?`;
      throw new PoolTypeError(`unknown option \`${name}\` in ${what}${hint}; known are ${allowed.join(", ")}`);
    }
  }
}

const callOptionNames: readonly (keyof CallOptions)[] = [
  "signal",
  "timeoutMs",
  "deadline",
  "metadata",
  "onHeader",
  "onTrailer",
  "waitForReady",
];
const callOptions: ReadonlySet<string> = new Set(callOptionNames);

/**
 * The options of one RPC, at each call, of a handle and of each adapter: names and metadata alone, the rest is checked where
 * it is used.
 */
export function checkCallOptions(options: CallOptions): void {
  if (typeof options !== "object" || options === null) refuse("a call's options", "an object of options", options);
  for (const name in options) if (!callOptions.has(name)) checkOptions("a call's options", options, callOptionNames);
  const { metadata } = options;
  if (metadata === undefined) return;
  // Headers, a Map or a list has no properties that are metadata: nothing of it would be sent, and nothing would say so.
  if (typeof metadata !== "object" || metadata === null || Symbol.iterator in metadata)
    refuse("metadata", "a plain object (Object.fromEntries makes one)", metadata);
  refuseGrpcMetadata("`metadata`", metadata);
}

function refuseGrpcMetadata(what: string, value: object): void {
  if ("getMap" in value && typeof value.getMap === "function")
    throw new PoolTypeError(
      `expected ${what} to be a plain object, got a Metadata of grpc-js: give { metadata: metadata.getMap() }`,
    );
}

/** Names that begin with the same letters, so many, mean the same: `maxConnections` and `maxConns`. */
const sharedLetters = 7;

/** The name of `allowed` that `name` was probably meant to be; none, where none is like it. */
function nearest(name: string, allowed: readonly string[]): string | undefined {
  const [best] = allowed
    .map((candidate) => ({ candidate, edits: editsBetween(name.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.edits - b.edits);
  if (best !== undefined && best.edits <= Math.max(1, name.length / 3)) return best.candidate;
  return allowed.find((candidate) => name.startsWith(candidate.slice(0, sharedLetters)));
}

/** Letters to insert, drop or replace: https://en.wikipedia.org/wiki/Levenshtein_distance */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** A key for a message. Of an object: its `address`, or what `hashKey` made of it; never its contents, which may be secret. */
export function showKey(key: unknown, hash: unknown): string {
  if (typeof key !== "object" || key === null) return show(key);
  try {
    const address: unknown = "address" in key ? key.address : undefined;
    if (typeof address === "string" && address !== "") return show(address);
  } catch {
    // It cannot be read: its hash may say more.
  }
  return show(typeof hash === "object" ? key : hash);
}

/** Whether `value` is something that a pool can hold. Says what to do about a socket, the likeliest mistake. */
export function checkConn(what: string, value: unknown): asserts value is PoolConn {
  if (typeof value !== "object" && typeof value !== "function") refuse(what, "a conn", value);
  if (value === null) refuse(what, "a conn", value);
  if (!("close" in value) || typeof value.close !== "function") {
    if ("destroy" in value) {
      throw new PoolTypeError(`expected ${what} to be a conn, got a stream or socket: wrap it with socketConn(socket)`);
    }
    refuse(what, "a conn, with a `close()` method", value);
  }
  const closed: unknown = "closed" in value ? value.closed : undefined;
  const thenable =
    (typeof closed === "object" || typeof closed === "function") &&
    closed !== null &&
    "then" in closed &&
    typeof closed.then === "function";
  if (thenable) return;
  const hint = typeof closed === "boolean" ? " (a socket? wrap it with socketConn(socket))" : "";
  throw new PoolTypeError(
    `expected \`closed\` of ${what} to be a promise that settles when the conn is closed, got ${show(closed)}${hint}`,
  );
}

/** The way in which an adapter tells a pool the pace that its transport asks for; a pool that does not know it keeps its own. */
const ownPace: unique symbol = Symbol.for("rpc-conn-pool.pace");

/** The same options, and how dials for that caller alone are paced where the pool has no `backoff`. */
export function atOwnPace<T extends object>(options: T, pace: Backoff): T {
  return { ...options, [ownPace]: pace };
}

export function ownPaceOf(options: (object & { readonly [ownPace]?: Backoff }) | undefined): Backoff | undefined {
  return options?.[ownPace];
}
