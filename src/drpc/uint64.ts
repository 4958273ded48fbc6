/**
 * An unsigned 64-bit integer without loss: a number where that is exact (up to `Number.MAX_SAFE_INTEGER`), a bigint
 * only above. With one form per value, `<` and `===` compare any two of them rightly.
 */
export type Uint64 = number | bigint;

/** The one form of a value that fits 64 bits. */
export function toUint64(value: bigint): Uint64 {
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}
