import { status } from "@grpc/grpc-js";
import { GrpcError } from "../status.ts";

/** A flag, 1 for a compressed message, and the message's length: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests */
const prefixLength = 5;

/** A message of at least this size is written behind its prefix instead of being copied there. */
const worthNoCopyBytes = 16 << 10;

/** A message that begins is given this much memory, and more only as its bytes come: a length may be a lie. */
const firstBodyBytes = 64 << 10;

/** The chunks to write for a message: one for a small message, which is copied, two for a large one. */
export function framed(message: Buffer, compressed: boolean): readonly Buffer[] {
  const copied = message.length < worthNoCopyBytes;
  const first = Buffer.allocUnsafe(copied ? prefixLength + message.length : prefixLength);
  first[0] = compressed ? 1 : 0;
  first.writeUInt32BE(message.length, 1);
  if (!copied) return [first, message];
  first.set(message, prefixLength);
  return [first];
}

/** Who gets the messages of a stream. */
export interface FrameSink {
  onFramed(message: Buffer, compressed: boolean): void;
}

/** Joins the bytes of a stream to messages, however they are cut. It holds at most twice what has come of one message. */
export class Deframer {
  readonly #limit: number;
  /** A prefix of which not all has come. */
  #prefix: Buffer | undefined;
  /** A message of which not all has come. */
  #body: Buffer | undefined;
  #filled = 0;
  #length = 0;
  #compressed = false;

  /** `limit`: bytes that a message may have, negative for any number. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether a message has begun and not ended. */
  get partial(): boolean {
    return this.#prefix !== undefined || this.#body !== undefined;
  }

  /** @throws GrpcError for a message over the limit, and for what is no message. Nothing may follow then. */
  push(data: Buffer, sink: FrameSink): void {
    const chunk = this.#prefix === undefined ? data : Buffer.concat([this.#prefix, data]);
    this.#prefix = undefined;
    let at = 0;
    while (at < chunk.length) {
      if (this.#body !== undefined) {
        at = this.#fill(this.#body, chunk, at, sink);
        continue;
      }
      const begin = at + prefixLength;
      if (begin > chunk.length) {
        this.#prefix = Buffer.from(chunk.subarray(at));
        return;
      }
      this.#readPrefix(chunk, at);
      at = begin + this.#length;
      if (at <= chunk.length) {
        sink.onFramed(owned(chunk, begin, at), this.#compressed);
      } else {
        at = begin;
        const first = Math.max(firstBodyBytes, 2 * (chunk.length - begin));
        this.#body = Buffer.allocUnsafeSlow(Math.min(this.#length, first));
        this.#filled = 0;
      }
    }
  }

  #readPrefix(chunk: Buffer, at: number): void {
    const flag = chunk[at] ?? 0;
    const length = chunk.readUInt32BE(at + 1);
    if (this.#limit >= 0 && length > this.#limit) {
      throw new GrpcError(status.RESOURCE_EXHAUSTED, `Received message larger than max (${length} vs ${this.#limit})`);
    }
    if (flag > 1) throw new GrpcError(status.INTERNAL, `Received a message with flag ${flag}, expected 0 or 1`);
    this.#length = length;
    this.#compressed = flag === 1;
  }

  #fill(held: Buffer, chunk: Buffer, at: number, sink: FrameSink): number {
    const end = Math.min(at + this.#length - this.#filled, chunk.length);
    const filled = this.#filled + end - at;
    let body = held;
    if (filled > held.length) {
      body = Buffer.allocUnsafeSlow(Math.min(this.#length, 2 * filled));
      held.copy(body, 0, 0, this.#filled);
    }
    chunk.copy(body, this.#filled, at, end);
    const whole = filled === this.#length;
    this.#filled = filled;
    this.#body = whole ? undefined : body;
    if (whole) sink.onFramed(body, this.#compressed);
    return end;
  }
}

/** A message of its own memory, unless it is most of what it lies in: a small view would keep a whole read alive. */
function owned(chunk: Buffer, begin: number, end: number): Buffer {
  const view = chunk.subarray(begin, end);
  return view.length * 2 >= chunk.buffer.byteLength ? view : Buffer.from(view);
}
