import { DrpcProtocolError } from "./error.ts";
import { type FrameHeader, Kind, type Packet, readFrameHeader } from "./frame.ts";
import type { Uint64 } from "./uint64.ts";

/** A packet as it is received. */
export interface ReceivedPacket extends Packet {
  readonly data: Buffer;
}

/** Bounds what is neither a message nor an error: names, metadata, unknown packets. */
const MAX_OTHER_BYTES = 64 * 1024;

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
