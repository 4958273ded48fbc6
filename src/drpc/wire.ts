/**
 * DRPC on the wire: varints, frames, packets, and what packets carry beside messages, metadata and errors.
 *
 * @see https://github.com/storj/drpc/tree/v0.0.34/drpcwire
 */
import { show } from "../argument.ts";
import type { Metadata } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { attempt } from "../runtime/guard.ts";
import { DrpcError, DrpcProtocolError } from "./errors.ts";

/**
 * An unsigned 64-bit integer without loss: a number where that is exact (up to `Number.MAX_SAFE_INTEGER`), a bigint
 * only above. With one form per value, `<` and `===` compare any two of them rightly.
 */
export type Uint64 = number | bigint;

/** The one form of a value that fits 64 bits. */
function toUint64(value: bigint): Uint64 {
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** @throws PoolRangeError for what is no unsigned integer of 64 bits, and for a number that is not exact. */
function checkUint64(value: Uint64): Uint64 {
  if (typeof value === "number") {
    if (Number.isSafeInteger(value) && value >= 0) return value;
  } else if (value === BigInt.asUintN(64, value)) {
    return toUint64(value);
  }
  throw new PoolRangeError(`Expected a whole number from 0 to 2**64-1, a bigint above 2**53-1, got ${value}`);
}

/** A place in some bytes. Reading moves `at` on. */
export interface Cursor {
  readonly bytes: Uint8Array;
  at: number;
}

/** The longest varint: ten groups of seven bits hold 64. */
const MAX_VARINT_BYTES = 10;

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
  for (let i = at; i < bytes.length && i - at < MAX_VARINT_BYTES; i++) {
    const byte = bytes[i] as number;
    value |= BigInt(byte & 127) << BigInt(7 * (i - at));
    if (byte < 128) {
      if (value > 0xffff_ffff_ffff_ffffn) throw new DrpcProtocolError("a varint of more than 64 bits");
      cursor.at = i + 1;
      return toUint64(value);
    }
  }
  if (bytes.length - at >= MAX_VARINT_BYTES)
    throw new DrpcProtocolError(`a varint of more than ${MAX_VARINT_BYTES} bytes`);
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

/**
 * What a packet is. Kinds unknown here are ignored when they carry the control flag, and end the conn when not.
 *
 * @see https://github.com/storj/drpc/blob/v0.0.34/drpcwire/packet.go
 */
export const Kind = {
  /** Starts an RPC. Data: its name. */
  invoke: 1,
  /** Data: one encoded message. */
  message: 2,
  /** Ends the RPC. Data: eight bytes of code, then text. */
  error: 3,
  /** Ends the RPC: its caller does not want it any more. */
  cancel: 4,
  /** Ends the RPC at once. */
  close: 5,
  /** The sender sends no more messages; after both sides' the RPC has ended. */
  closeSend: 6,
  /** Metadata of the invoke that follows on the same stream. */
  invokeMetadata: 7,
} as const;

/** A packet: what frames carry in one piece or several. */
export interface Packet {
  /** Which RPC of the conn: 1, 2, 3… */
  readonly stream: Uint64;
  /** Which packet of the stream: 1, 2, 3… in each direction. */
  readonly message: Uint64;
  /** A `Kind`, or one that is not known here, up to 63. */
  readonly kind: number;
  /** Whether who does not know the kind may ignore it. */
  readonly control: boolean;
  readonly data: Uint8Array;
}

/** What stands before the data of a frame. */
export interface FrameHeader {
  stream: Uint64;
  message: Uint64;
  kind: number;
  control: boolean;
  /** Whether this is the packet's last frame. */
  done: boolean;
  /** How many bytes of data follow. */
  length: Uint64;
}

/** A control byte and three varints. */
export const MAX_HEADER_BYTES = 31;

/**
 * Reads a frame's header into `header`. False, and the cursor where it was, when the bytes end before the header does.
 *
 * @throws DrpcProtocolError for a varint without end.
 */
export function readFrameHeader(cursor: Cursor, header: FrameHeader): boolean {
  const { bytes, at } = cursor;
  const control = bytes[at];
  if (control === undefined) return false;
  cursor.at = at + 1;
  const stream = readVarint(cursor);
  const message = stream === undefined ? undefined : readVarint(cursor);
  const length = message === undefined ? undefined : readVarint(cursor);
  if (stream === undefined || message === undefined || length === undefined) {
    cursor.at = at;
    return false;
  }
  header.done = (control & 1) !== 0;
  header.kind = (control >> 1) & 63;
  header.control = (control & 128) !== 0;
  header.stream = stream;
  header.message = message;
  header.length = length;
  return true;
}

/** Up to this many bytes, copying into one buffer is cheaper than handing several to the socket. */
const COPY_BYTES = 16 * 1024;

/**
 * Encodes packets as the buffers to write, in order. Small ones come as one buffer; of large ones the data is not
 * copied, so it must not change until it has been written.
 *
 * @param splitBytes how much data a frame carries at most; 0: packets are not split.
 */
export function encodePackets(packets: readonly Packet[], splitBytes: number): Uint8Array[] {
  let total = 0;
  for (const packet of packets) total += frameBytes(packet, splitBytes);
  const copy = total <= COPY_BYTES;
  const buffers: Uint8Array[] = [];
  const out = Buffer.allocUnsafe(copy ? total : MAX_HEADER_BYTES);
  let at = 0;
  for (const packet of packets) {
    const { data } = packet;
    const step = splitBytes === 0 ? data.length : splitBytes;
    let from = 0;
    do {
      const to = Math.min(from + step, data.length);
      if (copy) {
        at = writeFrameHeader(out, at, packet, to - from, to === data.length);
        out.set(from === 0 && to === data.length ? data : data.subarray(from, to), at);
        at += to - from;
      } else {
        const end = writeFrameHeader(out, 0, packet, to - from, to === data.length);
        buffers.push(Buffer.from(out.subarray(0, end)), data.subarray(from, to));
      }
      from = to;
    } while (from < data.length);
  }
  return copy ? [out.subarray(0, at)] : buffers;
}

function writeFrameHeader(out: Uint8Array, at: number, packet: Packet, length: number, done: boolean): number {
  out[at++] = (packet.control ? 128 : 0) | (packet.kind << 1) | (done ? 1 : 0);
  at = writeVarint(out, at, packet.stream);
  at = writeVarint(out, at, packet.message);
  return writeVarint(out, at, length);
}

/** Never too small; exact for a packet in one frame. */
function frameBytes({ stream, message, data }: Packet, splitBytes: number): number {
  const ids = 1 + varintBytes(stream) + varintBytes(message);
  if (splitBytes === 0 || data.length <= splitBytes) return ids + varintBytes(data.length) + data.length;
  return Math.ceil(data.length / splitBytes) * (ids + varintBytes(splitBytes)) + data.length;
}

/** A packet as it is received. */
export interface ReceivedPacket extends Packet {
  readonly data: Buffer;
}

/** Bounds what is neither a message nor an error: names, metadata, unknown packets. Fixed, for both ends. */
export const MAX_OTHER_BYTES: number = 64 * 1024;

const EMPTY = Buffer.alloc(0);

/**
 * Makes packets of the bytes of a connection, however they are cut. A packet that comes in one frame and one chunk is
 * not copied: its data is a view of the chunk. Others are joined in a buffer that grows with what has really come, so
 * a length that lies costs nothing.
 */
export class PacketReader {
  readonly #maxPacketBytes: number;
  readonly #emit: (packet: ReceivedPacket) => void;
  /** The beginning of a header that the last chunk broke off. */
  #rest: Buffer = EMPTY;
  /** The frame under way, and how much of its data is still to come; undefined between frames. */
  readonly #frame: FrameHeader = { stream: 0, message: 0, kind: 0, control: false, done: false, length: 0 };
  #missing: number | undefined;
  // The newest packet. Ids never go down, and no finished packet's id comes again.
  #stream: Uint64 = 1;
  #message: Uint64 = 0;
  #kind = 0;
  #control = false;
  #finished = true;
  /** What has come of it, when it came in pieces: the first `#size` bytes. */
  #joined: Buffer = EMPTY;
  #size = 0;

  /**
   * @param maxPacketBytes most data in a packet, however many frames it comes in; 0: no limit.
   * @param emit is called with each packet, from inside `push`. What it throws leaves `push`.
   */
  constructor(maxPacketBytes: number, emit: (packet: ReceivedPacket) => void) {
    this.#maxPacketBytes = maxPacketBytes === 0 ? Number.MAX_SAFE_INTEGER : maxPacketBytes;
    this.#emit = emit;
  }

  /** Whether the bytes so far end inside a packet. */
  get partial(): boolean {
    return !this.#finished || this.#rest.length > 0;
  }

  /** Whether the bytes so far end inside a frame: the peer sends nothing else before its rest. */
  get midFrame(): boolean {
    return this.#missing !== undefined || this.#rest.length > 0;
  }

  /**
   * Takes the next bytes. They must not change as long as packets made of them are in use.
   *
   * @throws DrpcProtocolError when the peer broke the protocol. The connection is useless then, and so is the reader.
   */
  push(chunk: Buffer): void {
    const cursor = { bytes: this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]), at: 0 };
    this.#rest = EMPTY;
    for (;;) {
      if (this.#missing === undefined) {
        if (!readFrameHeader(cursor, this.#frame)) {
          // A copy: a view would keep the whole chunk for a few bytes.
          if (cursor.at < cursor.bytes.length) this.#rest = Buffer.from(cursor.bytes.subarray(cursor.at));
          return;
        }
        this.#missing = this.#open(this.#frame);
      }
      const piece = cursor.bytes.subarray(cursor.at, cursor.at + this.#missing);
      cursor.at += piece.length;
      const whole = this.#frame.done && this.#size === 0 && piece.length === this.#missing;
      if (!whole) this.#join(piece, this.#missing);
      this.#missing -= piece.length;
      if (this.#missing > 0) return;
      this.#missing = undefined;
      if (this.#frame.done) this.#finish(whole ? piece : this.#joined.subarray(0, this.#size));
    }
  }

  /** Checks a frame against what came before it; returns how much data it brings. */
  #open({ stream, message, kind, control, length }: FrameHeader): number {
    const same = stream === this.#stream && message === this.#message;
    if (stream < this.#stream || (stream === this.#stream && message < this.#message) || (same && this.#finished)) {
      throw new DrpcProtocolError(
        `ids must go up: ${stream}/${message} came after ${this.#stream}/${this.#message} (stream/message)`,
      );
    }
    if (!same) {
      // Also how a sender interrupts itself: a newer id discards the packet that is not finished.
      this.#stream = stream;
      this.#message = message;
      this.#kind = kind;
      this.#control = control;
      this.#finished = false;
      this.#joined = EMPTY;
      this.#size = 0;
    } else if (kind !== this.#kind) {
      throw new DrpcProtocolError(`the kind of a packet changed from ${this.#kind} to ${kind}`);
    }
    this.#control ||= control;
    const big = kind === Kind.message || kind === Kind.error;
    const limit = big ? this.#maxPacketBytes : Math.min(this.#maxPacketBytes, MAX_OTHER_BYTES);
    if (length > limit - this.#size) throw new DrpcProtocolError(`a packet of kind ${kind} with over ${limit} bytes`);
    return Number(length);
  }

  /** Adds a piece, of which `missing` bytes were announced. The buffer doubles, up to the packet's size once known. */
  #join(piece: Uint8Array, missing: number): void {
    const need = this.#size + piece.length;
    if (need > this.#joined.length) {
      const most = this.#frame.done ? this.#size + missing : Number.POSITIVE_INFINITY;
      const grown = Buffer.allocUnsafe(Math.max(need, Math.min(most, 2 * this.#joined.length)));
      this.#joined.copy(grown, 0, 0, this.#size);
      this.#joined = grown;
    }
    this.#joined.set(piece, this.#size);
    this.#size = need;
  }

  #finish(data: Buffer): void {
    this.#finished = true;
    this.#joined = EMPTY;
    this.#size = 0;
    this.#emit({ stream: this.#stream, message: this.#message, kind: this.#kind, control: this.#control, data });
  }
}

/** Field 1 (an entry, or an entry's key) and field 2 (its value), length-delimited. */
const FIELD_1 = 0x0a;
const FIELD_2 = 0x12;

/**
 * Metadata on the wire is protobuf: `message { repeated Entry entries = 1; }` with
 * `message Entry { string key = 1; string value = 2; }`.
 *
 * @returns undefined for no entries: then no packet is sent.
 * @throws PoolTypeError for what is no object of texts: DRPC's receivers keep one text per key, and no bytes.
 * PoolRangeError for over 64 KiB: a receiver closes the connection for it.
 */
export function encodeMetadata(metadata: Metadata): Buffer | undefined {
  if (typeof metadata !== "object" || metadata === null) {
    throw new PoolTypeError(`expected \`metadata\` to be an object of strings, got ${show(metadata)}`);
  }
  if ("getMap" in metadata && typeof metadata["getMap"] === "function") {
    throw new PoolTypeError(
      "expected `metadata` to be an object of strings, got grpc-js' Metadata: pass its `getMap()`",
    );
  }
  const parts: Buffer[] = [];
  for (const [key, values] of Object.entries(metadata)) {
    const value = Array.isArray(values) && values.length === 1 ? values[0] : values;
    if (typeof value !== "string") {
      throw new PoolTypeError(`expected metadata \`${key}\` to be one string: DRPC carries no bytes and no lists`);
    }
    const entry = Buffer.concat([encodeField(FIELD_1, Buffer.from(key)), encodeField(FIELD_2, Buffer.from(value))]);
    parts.push(encodeField(FIELD_1, entry));
  }
  if (parts.length === 0) return undefined;
  const bytes = Buffer.concat(parts);
  if (bytes.length <= MAX_OTHER_BYTES) return bytes;
  throw new PoolRangeError(`expected metadata of at most ${MAX_OTHER_BYTES} bytes, got ${bytes.length}`);
}

/** @throws PoolTypeError and PoolRangeError for what cannot be the name of an RPC. */
export function encodePath(path: string): Buffer {
  if (typeof path !== "string")
    throw new PoolTypeError(`expected \`path\` of the RPC to be a string, got ${show(path)}`);
  const bytes = Buffer.from(path);
  if (bytes.length <= MAX_OTHER_BYTES) return bytes;
  throw new PoolRangeError(`expected a path of at most ${MAX_OTHER_BYTES} bytes, got ${bytes.length}`);
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

/** An error packet: eight bytes of code, big-endian, then the message. Takes anything: handlers throw what they like. */
export function encodeError(error: unknown): Buffer {
  const message = textOf(error);
  const bytes = Buffer.allocUnsafe(8 + Buffer.byteLength(message));
  bytes.writeBigUInt64BE(attempt(() => codeOf(error)) ?? 0n, 0);
  bytes.write(message, 8);
  return bytes;
}

/** An error packet too short for its code still fails its RPC, as in Go: with code 0 and what text there is. */
export function decodeError(bytes: Buffer): DrpcError {
  if (bytes.length < 8) return new DrpcError(`${bytes.toString()} (the peer sent an error packet without a code)`);
  return new DrpcError(bytes.toString("utf8", 8), bytes.readBigUInt64BE(0));
}

function textOf(error: unknown): string {
  const isObject = typeof error === "object" && error !== null;
  const message = attempt((): unknown => (isObject && "message" in error ? error.message : undefined));
  return attempt(() => String(message === undefined ? error : message)) ?? "an error without a text";
}

function codeOf(error: unknown): bigint {
  if (typeof error !== "object" || error === null || !("code" in error)) return 0n;
  const { code } = error;
  if (typeof code !== "bigint" && !(typeof code === "number" && Number.isSafeInteger(code))) return 0n;
  const big = BigInt(code);
  return big === BigInt.asUintN(64, big) ? big : 0n;
}
