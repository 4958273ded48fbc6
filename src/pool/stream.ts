import type { Stream } from "../contract.ts";

/** Takes back the slot of a stream that has ended. */
export interface StreamOwner<M> {
  release(conn: M): void;
}

/** A stream on a pooled conn: the same stream, but that its slot is free before anybody learns of its end. */
export class PooledStream<I, O, M> implements Stream<I, O> {
  readonly closed: Promise<void>;
  readonly #inner: Stream<I, O>;
  /** Until its slot has been given back. */
  #conn: M | undefined;
  readonly #owner: StreamOwner<M>;

  constructor(inner: Stream<I, O>, conn: M, owner: StreamOwner<M>) {
    this.#inner = inner;
    this.#conn = conn;
    this.#owner = owner;
    const ended = () => this.#end();
    this.closed = inner.closed.then(ended, ended);
  }

  send(message: I): Promise<void> {
    return this.#inner.send(message);
  }

  closeSend(last?: I): Promise<void> {
    return last === undefined ? this.#inner.closeSend() : this.#inner.closeSend(last);
  }

  close(): Promise<void> {
    return this.#inner.close().then(() => this.#settled());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    const messages = this.#inner[Symbol.asyncIterator]();
    const pass = async (result: IteratorResult<O>): Promise<IteratorResult<O, undefined>> => {
      if (!result.done) return result;
      await this.#settled();
      return { done: true, value: undefined };
    };
    const fail = (error: unknown): never => {
      this.#end();
      throw error;
    };
    return {
      next: () => messages.next().then((result) => (result.done ? pass(result) : result), fail),
      return: async () => {
        await (messages.return?.() ?? this.#inner.close());
        await this.#settled();
        return { done: true, value: undefined };
      },
    };
  }

  #end(): void {
    const conn = this.#conn;
    this.#conn = undefined;
    if (conn !== undefined) this.#owner.release(conn);
  }

  /**
   * The last response is not the end where this side may still send, but where the RPC has ended, `closed` says so
   * within this turn of the event loop.
   */
  #settled(): Promise<void> | undefined {
    if (this.#conn === undefined) return undefined;
    return Promise.race([this.closed, new Promise<void>((resolve) => setImmediate(resolve))]);
  }
}
