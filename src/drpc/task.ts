import { DrpcError } from "./error.ts";
import { Exchange, type Failure, type Receiver } from "./exchange.ts";
import { Inbox } from "./inbox.ts";
import type { DrpcContext, DrpcMethod, ServedMethod } from "./service.ts";
import type { Transport } from "./transport.ts";
import type { Uint64 } from "./uint64.ts";

/** Whom a task tells how it stands. */
export interface TaskOwner {
  /** The handler can run: its request, or the first of them, may be read. */
  onReady(): void;
  /** The RPC has ended. */
  onTaskEnd(): void;
}

const NO_REQUEST = Buffer.alloc(0);

/** One RPC at the server, with its handler. */
export class Task implements Receiver {
  readonly exchange: Exchange;
  readonly #owner: TaskOwner;
  readonly #served: ServedMethod;
  readonly #context: DrpcContext;
  readonly #inbox: Inbox;
  /** The one request of an RPC that takes one; it is there from "ready" on. */
  #request: Buffer = NO_REQUEST;
  #state: "waiting" | "ready" | "started" = "waiting";
  #failure: Failure | undefined;
  #abort: AbortController | undefined;

  constructor(
    stream: Uint64,
    served: ServedMethod,
    metadata: DrpcContext["metadata"],
    transport: Transport,
    highWaterBytes: number,
    owner: TaskOwner,
  ) {
    this.exchange = new Exchange(stream, transport, this, () => owner.onTaskEnd());
    this.#owner = owner;
    this.#served = served;
    this.#inbox = new Inbox(transport, highWaterBytes);
    const signal = (): AbortSignal => this.#signal();
    this.#context = {
      path: served.method.path,
      metadata,
      duplex: transport.duplex,
      get signal() {
        return signal();
      },
    };
    if (served.method.requestStream) this.#state = "ready";
  }

  /** Whether the handler can be run. */
  get ready(): boolean {
    return this.#state === "ready" && !this.exchange.ended;
  }

  /** Whether the handler is still to be run. */
  get pending(): boolean {
    return this.#state !== "started" && !this.exchange.ended;
  }

  /** Runs the handler; settles when it has. Never rejects: what the handler throws, the client gets. */
  async run(): Promise<void> {
    this.#state = "started";
    const { method } = this.#served;
    try {
      const request = method.requestStream ? this.#requests(method) : method.requestDeserialize(this.#request);
      const response = this.#served.handle(request, this.#context);
      if (!method.responseStream) {
        this.exchange.finish(method.responseSerialize(await response));
      } else {
        if (!isAsyncIterable(response)) throw new TypeError("a handler of a response stream returns an async iterable");
        // `send` rejects when the RPC has ended; leaving the loop so ends a generator with its `finally` blocks.
        for await (const message of response) await this.exchange.send(method.responseSerialize(message));
        this.exchange.finish();
      }
    } catch (error) {
      this.exchange.fail(error);
    } finally {
      // Nobody reads any more: what still comes must not stop the socket.
      this.#inbox.drop(undefined);
      this.#request = NO_REQUEST;
    }
  }

  onMessage(message: Buffer): void {
    if (this.#served.method.requestStream) {
      this.#inbox.push(message);
    } else if (this.#state === "waiting") {
      this.#request = message;
      this.#state = "ready";
      this.#owner.onReady();
    }
  }

  onLastMessage(): void {
    if (this.#state === "waiting") this.exchange.fail(new DrpcError("the client sent no request"));
    this.#inbox.end(undefined);
  }

  onEnd(failure: Failure | undefined): void {
    this.#failure = failure;
    if (failure !== undefined) this.#abort?.abort(failure.error);
    this.#inbox.drop(failure);
  }

  async *#requests(method: DrpcMethod<unknown, unknown>): AsyncGenerator<unknown, void, void> {
    for await (const message of this.#inbox.messages()) yield method.requestDeserialize(message);
  }

  /** Made when a handler asks: most never do. */
  #signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#failure !== undefined) this.#abort.abort(this.#failure.error);
    }
    return this.#abort.signal;
  }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}
