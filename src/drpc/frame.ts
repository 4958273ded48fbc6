import type { Uint64 } from "./uint64.ts";
import { type Cursor, readVarint, varintBytes, writeVarint } from "./varint.ts";

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
