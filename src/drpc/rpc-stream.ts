/** One RPC on the wire, and the queue of what it has received: the same for client and server. */
import { type Pushable, pushable } from "it-pushable";
import { show } from "../argument.ts";
import { PoolTypeError } from "../errors.ts";
import { DrpcCode, DrpcError, DrpcProtocolError } from "./errors.ts";
import { Hold, type Transport } from "./transport.ts";
import { decodeError, encodeError, Kind, type Packet, type ReceivedPacket, type Uint64 } from "./wire.ts";

const NO_DATA = Buffer.alloc(0);

/** What an RPC failed with. In a box, as a signal's reason may be anything, `undefined` and `null` too. */
export interface Failure {
  readonly error: unknown;
  /** Whether this side ended the RPC: then what the peer has sent before is of no interest. */
  readonly local: boolean;
}

/** The side of an RPC that takes what the peer sends. */
export interface Receiver {
  onMessage(message: Buffer): void;
  /** The peer's last message has come. Not called when the RPC ends first. */
  onLastMessage(): void;
  /** The RPC has ended: called once, when its conn is free for the next one already. */
  onEnd(failure: Failure | undefined): void;
}

/** What an RPC begins with: its name, and metadata where there is any. */
export interface Invocation {
  readonly path: Uint8Array;
  readonly metadata: Uint8Array | undefined;
}

/**
 * One RPC on the wire, the same for client and server. It ends once: by both sides' close-send, by an error, a cancel
 * or a close of either side, or with its conn. What the peer sends after that is ignored.
 */
export class RpcStream {
  /** The stream id of its packets. */
  readonly id: Uint64;
  readonly #transport: Transport;
  readonly #receiver: Receiver;
  readonly #onEnd: () => void;
  #message = 0;
  #sending = true;
  #receiving = true;
  #ended = false;
  #failure: Failure | undefined;
  /** The sends that wait for room in the socket. */
  #waiting: { readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];

  /** @param onEnd gives the slot back; it hears of the end before anyone else. */
  constructor(id: Uint64, transport: Transport, receiver: Receiver, onEnd: () => void) {
    this.id = id;
    this.#transport = transport;
    this.#receiver = receiver;
    this.#onEnd = onEnd;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Starts a unary call: all of it in one write. */
  call(prelude: Invocation, request: Uint8Array): void {
    const packets = this.#invoke(prelude);
    packets.push(this.#packet(Kind.message, request), this.#packet(Kind.closeSend));
    this.#sending = false;
    this.#transport.write(packets);
  }

  /** Starts a streaming RPC. What is sent in the same tick goes out with it. */
  open(prelude: Invocation): void {
    this.#transport.writeSoon(this.#invoke(prelude));
  }

  /** Takes a packet of this stream. @throws DrpcProtocolError where the conn has to end with it. */
  receive({ kind, control, data }: ReceivedPacket): void {
    if (this.#ended) return;
    switch (kind) {
      case Kind.message:
        if (this.#receiving) this.#receiver.onMessage(data);
        return;
      case Kind.error:
        this.#end({ error: decodeError(data), local: false });
        return;
      case Kind.cancel:
        this.#end({ error: new DrpcError("the peer cancelled the RPC", DrpcCode.cancelled), local: false });
        return;
      case Kind.close:
        this.#end(undefined);
        return;
      case Kind.closeSend:
        if (!this.#receiving) return;
        this.#receiving = false;
        if (this.#sending) this.#receiver.onLastMessage();
        else this.#end(undefined);
        return;
      case Kind.invoke:
        throw new DrpcProtocolError("an invoke on a running stream");
      default:
        if (!control) throw new DrpcProtocolError(`a packet of the unknown kind ${kind}`);
    }
  }

  /** Sends a message; resolves when there is room for the next. */
  send(message: Uint8Array): Promise<void> {
    if (!this.#sending) return Promise.reject(this.#refusal());
    this.#transport.writeSoon([this.#packet(Kind.message, message)]);
    return this.#room();
  }

  /** Says that no more messages follow, behind `last` if there is one; resolves as `send` does. */
  closeSend(last?: Uint8Array): Promise<void> {
    if (!this.#sending && last !== undefined) return Promise.reject(this.#refusal());
    this.finish(last);
    return this.#ended ? Promise.resolve() : this.#room();
  }

  /** `closeSend` without waiting for room, and without a word when it comes too late. */
  finish(last?: Uint8Array): void {
    if (!this.#sending) return;
    this.#sending = false;
    const packets = last === undefined ? [] : [this.#packet(Kind.message, last)];
    packets.push(this.#packet(Kind.closeSend));
    this.#transport.write(packets);
    if (!this.#receiving) this.#end(undefined);
  }

  /** Ends the RPC with an error that the peer is told. */
  fail(error: unknown): void {
    if (!this.#ended) this.#transport.write([this.#packet(Kind.error, encodeError(error))]);
    this.#end({ error, local: true });
  }

  /** Ends the RPC and tells the peer that nobody wants it any more. */
  cancel(error: unknown): void {
    if (!this.#ended) this.#transport.write([this.#packet(Kind.cancel, NO_DATA, true)]);
    this.#end({ error, local: true });
  }

  /** Ends the RPC without a word to the peer. */
  abandon(failure: Failure): void {
    this.#end(failure);
  }

  /** The transport takes bytes again. */
  onRoom(): void {
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }

  #invoke({ path, metadata }: Invocation): Packet[] {
    const packets = metadata === undefined ? [] : [this.#packet(Kind.invokeMetadata, metadata)];
    packets.push(this.#packet(Kind.invoke, path));
    return packets;
  }

  #packet(kind: number, data: Uint8Array = NO_DATA, control = false): Packet {
    return { stream: this.id, message: ++this.#message, kind, control, data };
  }

  #room(): Promise<void> {
    if (!this.#transport.full) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  #refusal(): unknown {
    if (this.#failure !== undefined) return this.#failure.error;
    return new DrpcError(this.#ended ? "the RPC has ended" : "closeSend() was called: no message can follow");
  }

  #end(failure: Failure | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#sending = false;
    this.#receiving = false;
    this.#failure = failure;
    this.#onEnd();
    this.#receiver.onEnd(failure);
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (failure === undefined) resolve();
      else reject(failure.error);
    }
  }
}

/** What a message costs beside its bytes, so that a flood of empty ones counts. */
const MESSAGE_COST = 64;

/**
 * The receive side of a stream: an it-pushable for one consumer. It never waits on its own, so past the high-water
 * mark it stops the socket, until the consumer has caught up.
 */
export class ReceiveQueue {
  readonly #queue: Pushable<Buffer> = pushable<Buffer>({ objectMode: true });
  readonly #highWaterBytes: number;
  /** None once nothing more is taken in: the transport may serve the next RPC then. */
  #transport: Transport | undefined;
  #failure: Failure | undefined;
  #consumed = false;
  /** What waits for the consumer: how many messages, and the bytes that they keep in memory. */
  #length = 0;
  #cost = 0;
  /** What the message put in last, and the one taken out last, are views of; none when no message waits. */
  #lastIn: ArrayBufferLike | undefined;
  #lastOut: ArrayBufferLike | undefined;

  constructor(transport: Transport, highWaterBytes: number) {
    this.#transport = transport;
    this.#highWaterBytes = highWaterBytes;
  }

  push(message: Buffer): void {
    if (this.#transport === undefined) return;
    this.#length++;
    this.#cost += costOf(message, this.#lastIn);
    this.#lastIn = message.buffer;
    this.#queue.push(message);
    if (this.#cost > this.#highWaterBytes) this.#transport.hold(Hold.queue);
  }

  /** No more will come. What has come is still read, then `failure` is thrown. */
  end(failure: Failure | undefined): void {
    this.#failure ??= failure;
    this.#detach();
    this.#queue.end(); // without the error: it-pushable would drop what has come before it
  }

  /** No more will come, and what has come is of no interest. */
  drop(failure: Failure | undefined): void {
    this.end(failure);
    void this.#queue.return();
  }

  /** The messages, for the one consumer. */
  messages(): AsyncGenerator<Buffer, void, void> {
    if (this.#consumed) throw new PoolTypeError("a stream is iterated once: its messages go to one consumer");
    this.#consumed = true;
    return this.#drain();
  }

  async *#drain(): AsyncGenerator<Buffer, void, void> {
    try {
      for await (const message of this.#queue) {
        this.#cost -= costOf(message, this.#lastOut);
        this.#lastOut = message.buffer;
        if (--this.#length === 0) this.#lastIn = this.#lastOut = undefined;
        if (this.#cost <= this.#highWaterBytes / 2) this.#transport?.allow(Hold.queue);
        yield message;
      }
      if (this.#failure !== undefined) throw this.#failure.error;
    } finally {
      this.#detach(); // the consumer may leave before the end
    }
  }

  #detach(): void {
    this.#transport?.allow(Hold.queue);
    this.#transport = undefined;
  }
}

/**
 * What a message counts. It is a view of the read that it came with and keeps all of that in memory, however short it
 * is; so the first message of a read counts with the whole of it.
 */
function costOf(message: Buffer, last: ArrayBufferLike | undefined): number {
  return MESSAGE_COST + (message.buffer === last ? message.length : message.buffer.byteLength);
}

/** @throws PoolTypeError when a message of the RPC serializes to anything but bytes. */
export function checkBytes(path: string, bytes: unknown): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes;
  throw new PoolTypeError(`expected messages of ${path} to serialize to bytes, got ${show(bytes)}`);
}
