import { status } from "@grpc/grpc-js";
import type { GrpcCall } from "./call.ts";
import { GrpcError } from "./status.ts";

interface Entry {
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
export class Outbox {
  readonly #call: GrpcCall;
  readonly #waiting: Entry[] = [];
  #flushing: Entry | undefined;
  #halfClosed: Promise<void> | undefined;
  #ended: { readonly error: unknown } | undefined;

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
    for (const entry of unsent) {
      if (entry.bytes === undefined) entry.resolve();
      else entry.reject(error);
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
    const entry = this.#waiting.shift();
    this.#flushing = entry;
    if (entry === undefined) return;
    if (entry.bytes !== undefined) this.#call.sendMessageWithContext({ callback: this.#flushed }, entry.bytes);
    if (entry.last) this.#call.halfClose();
    if (entry.bytes === undefined) this.#flushed();
  }

  readonly #flushed = (): void => {
    if (this.#ended !== undefined) return;
    this.#flushing?.resolve();
    this.#next();
  };
}
