import type { Rpc, Stream } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import { DrpcCode, DrpcError } from "./error.ts";
import type { Exchange, Failure, Receiver } from "./exchange.ts";
import type { Inbox } from "./inbox.ts";

/** @throws PoolTypeError when the RPC serializes to anything but bytes, or what it throws itself. */
export function serialize<I>(rpc: Rpc<I, unknown>, message: I): Uint8Array {
  const bytes: unknown = rpc.requestSerialize(message);
  if (!(bytes instanceof Uint8Array)) throw new PoolTypeError(`Expected ${rpc.path} to serialize to bytes`);
  return bytes;
}

/** A streaming RPC at its client. */
export class ClientStream<I, O> implements Stream<I, O>, Receiver {
  readonly closed: Promise<void>;
  readonly #rpc: Rpc<I, O>;
  readonly #exchange: Exchange;
  readonly #inbox: Inbox;
  readonly #cancel: (error: unknown) => void;
  #settle!: () => void;

  /**
   * @param cancel ends the RPC.
   * @param begin starts it, for this stream to receive.
   */
  constructor(rpc: Rpc<I, O>, inbox: Inbox, cancel: (error: unknown) => void, begin: (to: Receiver) => Exchange) {
    this.#rpc = rpc;
    this.#inbox = inbox;
    this.#cancel = cancel;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#exchange = begin(this);
  }

  async send(message: I): Promise<void> {
    await this.#exchange.send(serialize(this.#rpc, message));
  }

  async closeSend(last?: I): Promise<void> {
    await this.#exchange.closeSend(last === undefined ? undefined : serialize(this.#rpc, last));
  }

  async close(): Promise<void> {
    if (!this.#exchange.ended) this.#cancel(new DrpcError("close() cancelled the RPC", DrpcCode.cancelled));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<O, void, void> {
    const messages = this.#messages(this.#inbox.messages());
    return {
      next: () => messages.next(),
      // First the RPC: a generator takes no `return` while its `next` waits, and runs no `finally` before the first.
      return: async () => {
        await this.close();
        return messages.return();
      },
    };
  }

  onMessage(message: Buffer): void {
    this.#inbox.push(message);
  }

  onLastMessage(): void {
    this.#inbox.end(undefined);
  }

  onEnd(failure: Failure | undefined): void {
    this.#settle();
    if (failure?.local) this.#inbox.drop(failure);
    else this.#inbox.end(failure);
  }

  async *#messages(inbox: AsyncIterable<Buffer>): AsyncGenerator<O, void, void> {
    try {
      for await (const message of inbox) yield this.#rpc.responseDeserialize(message);
      // The server has said its last word; saying ours ends the RPC before the caller hears of it.
      await this.#exchange.closeSend();
    } finally {
      await this.close();
    }
  }
}
