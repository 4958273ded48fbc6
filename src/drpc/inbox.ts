import { type Pushable, pushable } from "it-pushable";
import { PoolTypeError } from "../errors.ts";
import type { Failure } from "./exchange.ts";
import { Hold, type Transport } from "./transport.ts";

/** What a message costs beside its bytes, so that a flood of empty ones counts. */
const MESSAGE_COST = 64;

/**
 * The receive side of a stream: an it-pushable for one consumer. It never waits on its own, so past the high-water
 * mark it stops the socket, until the consumer has caught up.
 */
export class Inbox {
  readonly #queue: Pushable<Buffer> = pushable<Buffer>({ objectMode: true });
  readonly #highWaterBytes: number;
  /** None once nothing more is taken in: the transport may serve the next RPC then. */
  #transport: Transport | undefined;
  #cost = 0;
  #failure: Failure | undefined;
  #consumed = false;

  constructor(transport: Transport, highWaterBytes: number) {
    this.#transport = transport;
    this.#highWaterBytes = highWaterBytes;
  }

  push(message: Buffer): void {
    if (this.#transport === undefined) return;
    this.#cost += message.length + MESSAGE_COST;
    this.#queue.push(message);
    if (this.#cost > this.#highWaterBytes) this.#transport.hold(Hold.inbox);
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
        this.#cost -= message.length + MESSAGE_COST;
        if (this.#cost <= this.#highWaterBytes / 2) this.#transport?.allow(Hold.inbox);
        yield message;
      }
      if (this.#failure !== undefined) throw this.#failure.error;
    } finally {
      this.#detach(); // the consumer may leave before the end
    }
  }

  #detach(): void {
    this.#transport?.allow(Hold.inbox);
    this.#transport = undefined;
  }
}
