import { PoolRangeError } from "../errors.ts";

/**
 * An unsigned 64-bit integer without loss: a number where that is exact (up to `Number.MAX_SAFE_INTEGER`), a bigint
 * only above. With one form per value, `<` and `===` compare any two of them rightly.
 */
export type Uint64 = number | bigint;

/** The one form of a value that fits 64 bits. */
export function toUint64(value: bigint): Uint64 {
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** @throws PoolRangeError for what is no unsigned integer of 64 bits, and for a number that is not exact. */
export function checkUint64(value: Uint64): Uint64 {
  if (typeof value === "number") {
    if (Number.isSafeInteger(value) && value >= 0) return value;
  } else if (value === BigInt.asUintN(64, value)) {
    return toUint64(value);
  }
  throw new PoolRangeError(`Expected a whole number from 0 to 2**64-1, a bigint above 2**53-1, got ${value}`);
}
