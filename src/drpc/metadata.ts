import type { Metadata } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import { DrpcProtocolError } from "./error.ts";
import { readVarint, varintBytes, writeVarint } from "./varint.ts";

/** Field 1 (an entry, or an entry's key) and field 2 (its value), length-delimited. */
const FIELD_1 = 0x0a;
const FIELD_2 = 0x12;

/**
 * Metadata on the wire is protobuf: `message { repeated Entry entries = 1; }` with
 * `message Entry { string key = 1; string value = 2; }`.
 *
 * @returns undefined for no entries: then no packet is sent.
 * @throws PoolTypeError for bytes and for several values under one key: DRPC's receivers keep one text per key.
 */
export function encodeMetadata(metadata: Metadata): Buffer | undefined {
  const parts: Buffer[] = [];
  for (const [key, values] of Object.entries(metadata)) {
    const value = Array.isArray(values) && values.length === 1 ? values[0] : values;
    if (typeof value !== "string") {
      throw new PoolTypeError(`Expected metadata \`${key}\` to be one string: DRPC carries no bytes and no lists`);
    }
    const entry = Buffer.concat([encodeField(FIELD_1, Buffer.from(key)), encodeField(FIELD_2, Buffer.from(value))]);
    parts.push(encodeField(FIELD_1, entry));
  }
  return parts.length === 0 ? undefined : Buffer.concat(parts);
}

/**
 * The last value of a key counts, as in Go.
 *
 * @throws DrpcProtocolError for anything but such entries.
 */
export function decodeMetadata(bytes: Buffer): Record<string, string> {
  const metadata: Record<string, string> = Object.create(null); // the peer chooses the keys: no prototype to shadow
  for (const all = { bytes, at: 0 }; all.at < bytes.length; ) {
    const entry = { bytes: decodeField(all, FIELD_1), at: 0 };
    const key = decodeField(entry, FIELD_1).toString();
    metadata[key] = decodeField(entry, FIELD_2).toString();
    if (entry.at < entry.bytes.length) throw new DrpcProtocolError("metadata with unknown fields");
  }
  return metadata;
}

function encodeField(tag: number, data: Buffer): Buffer {
  const field = Buffer.allocUnsafe(1 + varintBytes(data.length) + data.length);
  field[0] = tag;
  field.set(data, writeVarint(field, 1, data.length));
  return field;
}

function decodeField(cursor: { readonly bytes: Buffer; at: number }, tag: number): Buffer {
  if (cursor.bytes[cursor.at] !== tag) throw new DrpcProtocolError("metadata that is not protobuf");
  cursor.at++;
  const length = readVarint(cursor);
  if (length === undefined || length > cursor.bytes.length - cursor.at) {
    throw new DrpcProtocolError("metadata that ends too early");
  }
  const from = cursor.at;
  cursor.at += Number(length);
  return cursor.bytes.subarray(from, cursor.at);
}
