import type { CallOptions, Conn, Rpc, Stream } from "../../src/contract.ts";

/** A method that no conn here encodes. */
export const rpc: Rpc<string, string> = {
  path: "/bench.Bench/Call",
  requestSerialize: (text) => Buffer.from(text),
  responseDeserialize: (bytes) => bytes.toString(),
};

/** A conn in memory that does nothing, so that what is measured is the pool. */
export class NoopConn implements Conn {
  readonly maxStreams: number;
  readonly closed: Promise<void>;
  #settle!: () => void;

  constructor(maxStreams = 1) {
    this.maxStreams = maxStreams;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async invoke<I, O>(_rpc: Rpc<I, O>, request: NoInfer<I>, _options?: CallOptions): Promise<O> {
    return request as unknown as O; // it echoes
  }

  async newStream<I, O>(_rpc: Rpc<I, O>, _options?: CallOptions): Promise<Stream<I, O>> {
    return new NoopStream<I, O>();
  }

  unblocked(): undefined {
    return undefined;
  }

  async close(): Promise<void> {
    this.#settle();
  }
}

/** A stream without messages. */
class NoopStream<I, O> implements Stream<I, O> {
  readonly closed: Promise<void>;
  #settle!: () => void;

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  async send(_message: I): Promise<void> {}

  async closeSend(_last?: I): Promise<void> {}

  async close(): Promise<void> {
    this.#settle();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    return { next: async () => ({ done: true, value: undefined }) };
  }
}
