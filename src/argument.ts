import type { PoolConn } from "./contract.ts";
import { PoolRangeError, PoolTypeError } from "./errors.ts";
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
      return value === null
        ? "null"
        : Array.isArray(value)
          ? "an array"
          : `an object (${value.constructor?.name ?? "null prototype"})`;
    default:
      return String(value);
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

/** Of a count that must be there, and is no limit to lift. */
export function checkAtLeastOne(name: string, value: unknown): asserts value is number {
  if (!Number.isSafeInteger(value) || Number(value) < 1) refuseNumber(name, "an integer of at least 1", value);
}

export function checkTime(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value >= 0 && value < Number.POSITIVE_INFINITY)) {
    refuseNumber(name, "a number of milliseconds, 0 or more (0: never)", value);
  }
}

export function checkTimeout(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value > 0 && value < Number.POSITIVE_INFINITY)) {
    refuseNumber(name, "a finite number of milliseconds over 0 (omit it for no limit)", value);
  }
}

/** A part of a whole. */
export function checkFraction(name: string, value: unknown): asserts value is number {
  if (typeof value !== "number" || !(value >= 0 && value <= 1)) refuseNumber(name, "a number from 0 to 1", value);
}

export function checkFunction(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "function") refuse(name, "a function", value);
}

/** Whether `value` is a number of things of which there must be at least one, or was left out. */
export function checkPositive(name: string, value: unknown): asserts value is number | undefined {
  if (value === undefined) return;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
    refuseNumber(name, "an integer of at least 1", value);
  }
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
  for (const name of Object.keys(value)) {
    if (!allowed.includes(name)) {
      throw new PoolTypeError(`unknown option \`${name}\` in ${what}; known are ${allowed.join(", ")}`);
    }
  }
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
