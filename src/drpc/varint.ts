import { DrpcProtocolError } from "./error.ts";
import { checkUint64, toUint64, type Uint64 } from "./uint64.ts";

/** A place in some bytes. Reading moves `at` on. */
export interface Cursor {
  readonly bytes: Uint8Array;
  at: number;
}

/** The longest varint: ten groups of seven bits hold 64. */
const MAX_BYTES = 10;

/**
 * Reads an unsigned little-endian base-128 number. `undefined`, and the cursor where it was, when the bytes end before
 * the number does.
 *
 * @throws DrpcProtocolError when the number takes more than ten bytes or more than 64 bits. (Go drops the bits above.)
 */
export function readVarint(cursor: Cursor): Uint64 | undefined {
  const { bytes, at } = cursor;
  let value = 0;
  let scale = 1;
  for (let i = at; i < bytes.length; i++) {
    const byte = bytes[i] as number;
    if (i - at === 7) return readLongVarint(cursor);
    value += (byte & 127) * scale;
    if (byte < 128) {
      cursor.at = i + 1;
      return value;
    }
    scale *= 128;
  }
  return undefined;
}

/** The eighth byte goes past what a number holds exactly. */
function readLongVarint(cursor: Cursor): Uint64 | undefined {
  const { bytes, at } = cursor;
  let value = 0n;
  for (let i = at; i < bytes.length && i - at < MAX_BYTES; i++) {
    const byte = bytes[i] as number;
    value |= BigInt(byte & 127) << BigInt(7 * (i - at));
    if (byte < 128) {
      if (value > 0xffff_ffff_ffff_ffffn) throw new DrpcProtocolError("a varint of more than 64 bits");
      cursor.at = i + 1;
      return toUint64(value);
    }
  }
  if (bytes.length - at >= MAX_BYTES) throw new DrpcProtocolError(`a varint of more than ${MAX_BYTES} bytes`);
  return undefined;
}

/**
 * How many bytes `writeVarint` will write.
 *
 * @throws PoolRangeError as `writeVarint` does.
 */
export function varintBytes(value: Uint64): number {
  const exact = checkUint64(value);
  if (typeof exact === "bigint") return Math.ceil(exact.toString(2).length / 7);
  let bytes = 1;
  for (let rest = exact; rest >= 128; rest /= 128) bytes++;
  return bytes;
}

/**
 * Writes `value` at `at`; returns the place behind it.
 *
 * @throws PoolRangeError for what is no unsigned integer of 64 bits, and for a number that is not exact.
 */
export function writeVarint(bytes: Uint8Array, at: number, value: Uint64): number {
  let rest = checkUint64(value);
  while (typeof rest === "bigint") {
    bytes[at++] = Number(rest & 127n) | 128;
    rest = toUint64(rest >> 7n);
  }
  while (rest >= 128) {
    bytes[at++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  bytes[at++] = rest;
  return at;
}
