import { PoolRangeError, PoolTypeError } from "../errors.ts";

/** Node's timers fire at once beyond this. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/** @throws PoolTypeError when `options` is no object or has a name that is not `known`. */
export function checkNames(options: object, known: readonly string[]): void {
  if (typeof options !== "object" || options === null) {
    throw new PoolTypeError(`Expected options to be an object, got ${options === null ? "null" : typeof options}`);
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw new PoolTypeError(`Unknown option \`${name}\`: there are ${known.join(", ")}`);
  }
}

/** @throws PoolTypeError or PoolRangeError unless `value` is absent or a whole number from 0. */
export function checkCount(name: string, value: number | undefined, absent: number): number {
  const count = checkNumber(name, value, absent);
  if (!Number.isSafeInteger(count)) throw new PoolRangeError(`Expected \`${name}\` to be a whole number, got ${count}`);
  return count;
}

/** @throws PoolTypeError or PoolRangeError unless `value` is absent or milliseconds from 0; `Infinity` is never, as 0 is. */
export function checkMs(name: string, value: number | undefined, absent: number): number {
  const ms = checkNumber(name, value, absent);
  return ms === Number.POSITIVE_INFINITY ? 0 : Math.min(ms, MAX_DELAY_MS);
}

/** @throws PoolTypeError or PoolRangeError unless `value` is absent or milliseconds over 0. */
export function checkTimeoutMs(value: number | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (checkNumber("timeoutMs", value, 0) === 0) throw new PoolRangeError("Expected `timeoutMs` to be over 0");
  return Math.min(value, MAX_DELAY_MS);
}

/** @throws PoolTypeError unless `value` is absent or one of `choices`. */
export function checkChoice<T>(name: string, value: T | undefined, choices: readonly T[], absent: T): T {
  if (value === undefined) return absent;
  if (!choices.includes(value)) {
    throw new PoolTypeError(`Expected \`${name}\` to be one of ${choices.join(", ")}, got ${String(value)}`);
  }
  return value;
}

/** @throws PoolTypeError unless `value` is absent or a function. */
export function checkFunction<T>(name: string, value: T | undefined): T | undefined {
  if (value !== undefined && typeof value !== "function") {
    throw new PoolTypeError(`Expected \`${name}\` to be a function, got ${typeof value}`);
  }
  return value;
}

/** @throws PoolTypeError for what is no stream of Node's. */
export function checkDuplex(duplex: unknown): void {
  if (typeof duplex === "object" && duplex !== null && "destroy" in duplex && "write" in duplex && "on" in duplex)
    return;
  throw new PoolTypeError(`Expected a duplex, got ${duplex === null ? "null" : typeof duplex}`);
}

function checkNumber(name: string, value: number | undefined, absent: number): number {
  if (value === undefined) return absent;
  if (typeof value !== "number") throw new PoolTypeError(`Expected \`${name}\` to be a number, got ${typeof value}`);
  if (!(value >= 0)) throw new PoolRangeError(`Expected \`${name}\` to be 0 or more, got ${value}`);
  return value;
}
