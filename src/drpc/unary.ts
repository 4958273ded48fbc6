import { DrpcError } from "./error.ts";
import type { Failure, Receiver } from "./exchange.ts";

/** The receive side of a unary RPC: exactly one response. */
export class UnaryCall<O> implements Receiver {
  readonly response: Promise<O>;
  readonly #decode: (bytes: Buffer) => O;
  readonly #cancel: (error: unknown) => void;
  #resolve!: (response: O) => void;
  #reject!: (error: unknown) => void;
  #bytes: Buffer | undefined;

  /** @param cancel ends the RPC. */
  constructor(decode: (bytes: Buffer) => O, cancel: (error: unknown) => void) {
    this.#decode = decode;
    this.#cancel = cancel;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  onMessage(bytes: Buffer): void {
    if (this.#bytes === undefined) this.#bytes = bytes;
    else this.#cancel(new DrpcError("the server sent more than one response to a unary RPC"));
  }

  onLastMessage(): void {}

  onEnd(failure: Failure | undefined): void {
    if (failure !== undefined) {
      this.#reject(failure.error);
    } else if (this.#bytes === undefined) {
      this.#reject(new DrpcError("the server ended a unary RPC without a response"));
    } else {
      try {
        this.#resolve(this.#decode(this.#bytes));
      } catch (error) {
        this.#reject(error);
      }
    }
  }
}
