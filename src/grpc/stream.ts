import { status } from "@grpc/grpc-js";
import type { CallOptions, Rpc, Stream } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import type { Failure } from "../runtime/guard.ts";
import { type CallHost, type CallReceiver, type GrpcCall, RunningCall, serialize } from "./call.ts";
import { GrpcError, messageOf } from "./status.ts";

interface Reader<O> {
  resolve(result: IteratorResult<O, undefined>): void;
  reject(error: unknown): void;
}

/**
 * One RPC of any kind. One message is read ahead of the consumer: grpc-js reads without a bound until the first
 * read, and keeps the status back behind messages that nobody reads.
 */
export class RpcStream<I, O> implements Stream<I, O>, AsyncIterator<O, undefined>, CallReceiver {
  readonly closed: Promise<void>;
  readonly #call: RunningCall;
  readonly #rpc: Rpc<I, O>;
  readonly #writes: WriteQueue;
  readonly #readers: Reader<O>[] = [];
  #ahead: IteratorYieldResult<O> | undefined;
  #iterated = false;
  #finished = false;
  #ended = false;
  #failure: Failure | undefined;
  #markClosed!: () => void;

  /** Throws what is wrong with the options. */
  constructor(host: CallHost, rpc: Rpc<I, O>, options: CallOptions) {
    this.#rpc = rpc;
    this.#call = new RunningCall(host, rpc.path, options, this);
    this.#writes = new WriteQueue(this.#call.grpc);
    this.closed = new Promise((resolve) => {
      this.#markClosed = resolve;
    });
    this.#call.start();
    this.#call.grpc.startRead();
  }

  send(message: I): Promise<void> {
    return this.#write(message, false);
  }

  closeSend(last?: I): Promise<void> {
    if (last !== undefined) return this.#write(last, true);
    return this.#writes.halfClose();
  }

  close(): Promise<void> {
    this.#call.cancel(status.CANCELLED, "Cancelled on client");
    return this.closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    if (this.#iterated) throw new PoolTypeError("this stream is being read already: a stream has one consumer");
    this.#iterated = true;
    return this;
  }

  next(): Promise<IteratorResult<O, undefined>> {
    if (this.#ahead !== undefined) {
      const result = this.#ahead;
      this.#ahead = undefined;
      if (!this.#ended) this.#call.grpc.startRead();
      return Promise.resolve(result);
    }
    return new Promise((resolve, reject) => {
      this.#readers.push({ resolve, reject });
      if (this.#ended) this.#finish();
    });
  }

  /** `for await` comes here when it is left early. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#finished = true;
    this.#ahead = undefined;
    await this.close();
    return { done: true, value: undefined };
  }

  message(bytes: Buffer): void {
    let value: O;
    try {
      value = this.#rpc.responseDeserialize(bytes);
    } catch (error) {
      this.#call.cancel(status.INTERNAL, `Response message parsing error: ${messageOf(error)}`);
      return;
    }
    const reader = this.#readers.shift();
    if (reader === undefined) {
      this.#ahead = { done: false, value };
      return;
    }
    reader.resolve({ done: false, value });
    this.#call.grpc.startRead();
  }

  // `closed` first: what a pool does with the slot comes before what the caller does next.
  ended(failure: Failure | undefined): void {
    this.#ended = true;
    this.#failure = failure;
    this.#markClosed();
    this.#writes.end(failure?.error ?? new GrpcError(status.FAILED_PRECONDITION, "the RPC has ended"));
    this.#finish();
  }

  /** Tells every reader of the end: the first gets the error, if there is one. */
  #finish(): void {
    for (const reader of this.#readers.splice(0)) {
      if (this.#failure === undefined || this.#finished) reader.resolve({ done: true, value: undefined });
      else reader.reject(this.#failure.error);
      this.#finished = true;
    }
  }

  #write(message: I, last: boolean): Promise<void> {
    try {
      return this.#writes.write(serialize(this.#rpc, message), last);
    } catch (error) {
      // As grpc-js has it: a message that cannot be encoded ends the call.
      this.#call.cancel(status.INTERNAL, messageOf(error));
      return Promise.reject(error);
    }
  }
}

interface Write {
  /** `undefined`: nothing but the half-close. */
  readonly bytes: Buffer | undefined;
  readonly last: boolean;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * What waits to be sent on one call. grpc-js takes one message at a time: it would lose all but the newest of those
 * that come before the call has its stream, so each goes when the one before has been flushed.
 */
class WriteQueue {
  readonly #call: GrpcCall;
  readonly #waiting: Write[] = [];
  #flushing: Write | undefined;
  #halfClosed: Promise<void> | undefined;
  #ended: Failure | undefined;

  constructor(call: GrpcCall) {
    this.#call = call;
  }

  /** Resolves when there is room for the next. */
  write(bytes: Buffer, last: boolean): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended.error);
    if (this.#halfClosed !== undefined) {
      return Promise.reject(new GrpcError(status.FAILED_PRECONDITION, "send after closeSend"));
    }
    const written = this.#enter(bytes, last);
    if (last) this.#halfClosed = written;
    return written;
  }

  halfClose(): Promise<void> {
    if (this.#ended !== undefined) return Promise.resolve();
    this.#halfClosed ??= this.#enter(undefined, true);
    return this.#halfClosed;
  }

  /** The call has ended: what was not flushed rejects with `error`; that no more would follow needs no saying. */
  end(error: unknown): void {
    this.#ended = { error };
    const unsent = this.#flushing === undefined ? this.#waiting : [this.#flushing, ...this.#waiting];
    for (const write of unsent) {
      if (write.bytes === undefined) write.resolve();
      else write.reject(error);
    }
    this.#flushing = undefined;
    this.#waiting.length = 0;
  }

  #enter(bytes: Buffer | undefined, last: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ bytes, last, resolve, reject });
      if (this.#flushing === undefined) this.#next();
    });
  }

  #next(): void {
    const write = this.#waiting.shift();
    this.#flushing = write;
    if (write === undefined) return;
    if (write.bytes !== undefined) this.#call.sendMessageWithContext({ callback: this.#flushed }, write.bytes);
    if (write.last) this.#call.halfClose();
    if (write.bytes === undefined) this.#flushed();
  }

  readonly #flushed = (): void => {
    if (this.#ended !== undefined) return;
    this.#flushing?.resolve();
    this.#next();
  };
}
