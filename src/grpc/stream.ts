import { status } from "@grpc/grpc-js";
import type { CallOptions, Rpc, Stream } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import { type CallHost, RunningCall } from "./call.ts";
import { Outbox } from "./outbox.ts";
import { GrpcError, messageOf } from "./status.ts";
import { serialize } from "./unary.ts";

interface Reader<O> {
  resolve(result: IteratorResult<O, undefined>): void;
  reject(error: unknown): void;
}

/**
 * One RPC of any kind. One message is read ahead of the consumer: grpc-js reads without a bound until the first
 * read, and keeps the status back behind messages that nobody reads.
 */
export class GrpcStream<I, O> extends RunningCall implements Stream<I, O>, AsyncIterator<O, undefined> {
  readonly closed: Promise<void>;
  readonly #rpc: Rpc<I, O>;
  readonly #outbox: Outbox;
  readonly #readers: Reader<O>[] = [];
  #ahead: IteratorYieldResult<O> | undefined;
  #iterated = false;
  #finished = false;
  #ended = false;
  #markClosed!: () => void;

  constructor(host: CallHost, rpc: Rpc<I, O>, options: CallOptions) {
    super(host, rpc, options);
    this.#rpc = rpc;
    this.#outbox = new Outbox(this.call);
    this.closed = new Promise((resolve) => {
      this.#markClosed = resolve;
    });
    this.start();
    this.call.startRead();
  }

  send(message: I): Promise<void> {
    return this.#write(message, false);
  }

  closeSend(last?: I): Promise<void> {
    if (last !== undefined) return this.#write(last, true);
    return this.#outbox.halfClose();
  }

  close(): Promise<void> {
    this.cancel(status.CANCELLED, "Cancelled on client");
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
      if (!this.#ended) this.call.startRead();
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

  override onReceiveMessage(bytes: Buffer): void {
    let value: O;
    try {
      value = this.#rpc.responseDeserialize(bytes);
    } catch (error) {
      this.cancel(status.INTERNAL, `Response message parsing error: ${messageOf(error)}`);
      return;
    }
    const reader = this.#readers.shift();
    if (reader === undefined) {
      this.#ahead = { done: false, value };
      return;
    }
    reader.resolve({ done: false, value });
    this.call.startRead();
  }

  // `closed` first: what a pool does with the slot comes before what the caller does next.
  override settle(): void {
    this.#ended = true;
    this.#markClosed();
    const ended = this.failure?.error ?? new GrpcError(status.FAILED_PRECONDITION, "the RPC has ended");
    this.#outbox.end(ended);
    this.#finish();
  }

  /** Tells every reader of the end: the first gets the error, if there is one. */
  #finish(): void {
    for (const reader of this.#readers.splice(0)) {
      if (this.failure === undefined || this.#finished) reader.resolve({ done: true, value: undefined });
      else reader.reject(this.failure.error);
      this.#finished = true;
    }
  }

  #write(message: I, last: boolean): Promise<void> {
    try {
      return this.#outbox.write(serialize(this.#rpc, message), last);
    } catch (error) {
      // As grpc-js has it: a message that cannot be encoded ends the call.
      this.cancel(status.INTERNAL, messageOf(error));
      return Promise.reject(error);
    }
  }
}
