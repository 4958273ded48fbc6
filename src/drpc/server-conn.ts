import type { Duplex } from "node:stream";
import { ConnClosedError } from "../errors.ts";
import { isThenable } from "../runtime/guard.ts";
import { DrpcCode, DrpcError, DrpcProtocolError } from "./errors.ts";
import { checkBytes, type Failure, ReceiveQueue, type Receiver, RpcStream } from "./rpc-stream.ts";
import { Hold, Transport, type TransportEvents, type TransportOptions } from "./transport.ts";
import { decodeMetadata, Kind, type ReceivedPacket, type Uint64 } from "./wire.ts";

/**
 * One RPC as its server needs it. A grpc-js `MethodDefinition` is one, so the definitions that people already generate
 * serve DRPC too.
 */
export interface DrpcMethod<I, O> {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  requestDeserialize(bytes: Buffer): I;
  responseSerialize(message: O): Uint8Array;
}

/** What a handler knows of its RPC beside the messages. */
export interface DrpcContext {
  readonly path: string;
  /** What the client sent with the invoke. It has no prototype: any key is the client's. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Aborts when nobody waits for the RPC any more: the client has cancelled it, begun another one or gone, or the
   * server is closed. Its reason is an Error.
   */
  readonly signal: AbortSignal;
  /** The connection: for the client's address or certificate. Reading or writing it breaks the connection. */
  readonly duplex: Duplex;
}

/** One message, or an iterable of them; either one where the definition does not tell which. */
export type DrpcRequest<Streams extends boolean, I> = Streams extends true ? AsyncIterable<I> : I;
/** What a handler returns: the response or its promise, or an async iterable (a generator, say) of responses. */
export type DrpcResponse<Streams extends boolean, O> = Streams extends true ? AsyncIterable<O> : O | PromiseLike<O>;

/**
 * Handles an RPC. What it throws, the client gets: with the error's `code`, when that is a whole number. A handler that
 * streams its responses is asked for the next one when the socket has room for it.
 */
export type DrpcHandler<M> =
  M extends DrpcMethod<infer I, infer O>
    ? (request: DrpcRequest<M["requestStream"], I>, context: DrpcContext) => DrpcResponse<M["responseStream"], O>
    : never;

/** The methods of a service by name: a grpc-js `ServiceDefinition` is one. */
export type DrpcService<S> = { readonly [N in keyof S]: DrpcMethod<unknown, unknown> };

/** A handler for each method of a service. */
export type DrpcHandlers<S> = { readonly [N in keyof S]: DrpcHandler<S[N]> };

/** A method and its handler, whatever their types. */
export interface ServedMethod {
  readonly method: DrpcMethod<unknown, unknown>;
  handle(request: unknown, context: DrpcContext): unknown;
}

export interface ServerConnSettings extends TransportOptions {
  readonly highWaterBytes: number;
  readonly inactivityTimeoutMs: number;
  readonly requestTimeoutMs: number;
}

/**
 * One client's connection at the server. One handler runs at a time, as in Go: a client that begins an RPC while
 * another one runs cancels that, and the new one waits until the old handler has settled, so that no client can pile
 * up handlers.
 */
export class ServerConn implements TransportEvents, CallEvents {
  readonly #transport: Transport;
  readonly #settings: ServerConnSettings;
  readonly #methods: ReadonlyMap<string, ServedMethod>;
  readonly #onError: (error: unknown) => void;
  /** The newest RPC. It may have ended. */
  #call: ServerCall | undefined;
  /** The newest stream that an invoke or its metadata came for. */
  #stream: Uint64 = 0;
  #metadata: DrpcContext["metadata"] | undefined;
  #handling = false;
  #draining = false;
  #inactivity: NodeJS.Timeout | undefined;
  /** Armed while a request has begun to come and its handler cannot run yet. */
  #requestTimer: NodeJS.Timeout | undefined;

  /** @param onError hears why the connection died, where there was an error. */
  constructor(
    duplex: Duplex,
    settings: ServerConnSettings,
    methods: ReadonlyMap<string, ServedMethod>,
    onError: (error: unknown) => void,
  ) {
    this.#settings = settings;
    this.#methods = methods;
    this.#onError = onError;
    this.#transport = new Transport(duplex, this, settings);
    this.#expectInvoke();
  }

  /** Closes the connection as soon as no RPC runs on it. */
  drain(): void {
    this.#draining = true;
    if (!this.#handling && !this.#call?.pending) this.#end();
  }

  /** Closes the connection at once. */
  destroy(error: Error): void {
    this.#clearTimers();
    this.#transport.destroy();
    this.#cancel(error);
  }

  onPacket(packet: ReceivedPacket): void {
    const { stream, kind } = packet;
    if (stream === this.#call?.stream.id) {
      // Go's clients close an RPC that they do not read to its end: no handler must take that for the last message.
      if (kind === Kind.close) this.#cancel(cancelled());
      else this.#call.stream.receive(packet);
    } else if (kind === Kind.invoke || kind === Kind.invokeMetadata) {
      // The reader lets no stream come back, so this is a new one; metadata ends the old one too, as in Go.
      if (this.#call?.stream.ended === false) this.#cancel(cancelled());
      if (stream !== this.#stream) this.#metadata = undefined;
      this.#stream = stream;
      if (kind === Kind.invokeMetadata) this.#metadata = decodeMetadata(packet.data);
      else this.#invoke(stream, packet.data.toString());
    } else if (!packet.control) {
      throw new DrpcProtocolError(`a packet of stream ${stream}, which was not invoked`);
    }
  }

  onRead(): void {
    this.#watchRequest();
  }

  onRoom(): void {
    this.#transport.allow(Hold.replies);
    this.#call?.stream.onRoom();
  }

  onDeath(cause: unknown): void {
    this.#clearTimers();
    const message = cause instanceof Error ? cause.message : "the client closed the connection";
    this.#cancel(new ConnClosedError("died", true, message, { cause }));
    if (cause !== undefined && cause !== null) this.#onError(cause);
  }

  onReady(): void {
    if (!this.#handling) void this.#run();
  }

  onCallEnd(): void {
    if (this.#draining && !this.#handling) this.#end();
  }

  #invoke(stream: Uint64, path: string): void {
    const served = this.#methods.get(path) ?? unimplemented(path);
    const metadata = this.#metadata ?? Object.freeze(Object.create(null));
    this.#call = new ServerCall(stream, served, metadata, this.#transport, this.#settings.highWaterBytes, this);
    this.#expectInvoke(); // its request is still to come
    if (this.#call.ready) this.onReady();
  }

  /** Runs the newest RPC, and the one that has become the newest meanwhile. */
  async #run(): Promise<void> {
    this.#handling = true;
    this.#clearTimers();
    while (this.#call?.ready) await this.#call.run();
    this.#handling = false;
    if (this.#transport.dead) return;
    if (this.#draining && !this.#call?.pending) {
      this.#end();
      return;
    }
    // Who does not read its replies gets no further RPC, so that they cannot pile up here.
    if (this.#transport.full) this.#transport.hold(Hold.replies);
    this.#expectInvoke();
    this.#watchRequest();
  }

  #cancel(error: Error): void {
    this.#call?.stream.abandon({ error, local: true });
  }

  #expectInvoke(): void {
    const { inactivityTimeoutMs } = this.#settings;
    if (inactivityTimeoutMs === 0 || this.#handling) return;
    clearTimeout(this.#inactivity);
    this.#inactivity = setTimeout(() => {
      this.destroy(new DrpcError(`the client was inactive for ${inactivityTimeoutMs} ms`));
    }, inactivityTimeoutMs).unref();
  }

  /** Whether the client has begun a request whose handler cannot run yet. */
  get #requestBegun(): boolean {
    if (this.#handling) return false;
    const invokeMissing = this.#metadata !== undefined && this.#call?.stream.id !== this.#stream;
    return this.#transport.partial || invokeMissing || (this.#call?.pending ?? false);
  }

  /** A client may say nothing for long, but not begin and never end: what has come of the request is kept in memory. */
  #watchRequest(): void {
    const { requestTimeoutMs } = this.#settings;
    if (requestTimeoutMs === 0 || this.#requestBegun === (this.#requestTimer !== undefined)) return;
    if (this.#requestTimer !== undefined) {
      clearTimeout(this.#requestTimer);
      this.#requestTimer = undefined;
      return;
    }
    this.#requestTimer = setTimeout(() => {
      this.destroy(new DrpcError(`the client did not finish a request within ${requestTimeoutMs} ms`));
    }, requestTimeoutMs).unref();
  }

  #clearTimers(): void {
    clearTimeout(this.#inactivity);
    clearTimeout(this.#requestTimer);
    this.#requestTimer = undefined;
  }

  #end(): void {
    this.#clearTimers();
    this.#transport.end();
  }
}

function cancelled(): DrpcError {
  return new DrpcError("the client cancelled the RPC", DrpcCode.cancelled);
}

function unimplemented(path: string): ServedMethod {
  return {
    method: {
      path,
      requestStream: true,
      responseStream: false,
      requestDeserialize: (bytes) => bytes,
      responseSerialize: () => Buffer.alloc(0),
    },
    handle: () => {
      throw new DrpcError(`unknown RPC ${JSON.stringify(path.slice(0, 200))}`, DrpcCode.unimplemented);
    },
  };
}

/** What a call tells its conn. */
interface CallEvents {
  /** The handler can run: its request, or the first of them, may be read. */
  onReady(): void;
  /** The RPC has ended. */
  onCallEnd(): void;
}

const NO_REQUEST = Buffer.alloc(0);

/** One RPC at the server, with its handler. */
class ServerCall implements Receiver {
  readonly stream: RpcStream;
  readonly #conn: CallEvents;
  readonly #served: ServedMethod;
  readonly #context: DrpcContext;
  readonly #queue: ReceiveQueue;
  /** The one request of an RPC that takes one; it is there from "ready" on. */
  #request: Buffer = NO_REQUEST;
  #state: "waiting" | "ready" | "started" = "waiting";
  #failure: Failure | undefined;
  #abort: AbortController | undefined;

  constructor(
    id: Uint64,
    served: ServedMethod,
    metadata: DrpcContext["metadata"],
    transport: Transport,
    highWaterBytes: number,
    conn: CallEvents,
  ) {
    this.stream = new RpcStream(id, transport, this, () => conn.onCallEnd());
    this.#conn = conn;
    this.#served = served;
    this.#queue = new ReceiveQueue(transport, highWaterBytes);
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
    return this.#state === "ready" && !this.stream.ended;
  }

  /** Whether the handler is still to be run. */
  get pending(): boolean {
    return this.#state !== "started" && !this.stream.ended;
  }

  /** Runs the handler; settles when it has. Never rejects: what the handler throws, the client gets. */
  async run(): Promise<void> {
    this.#state = "started";
    const { method } = this.#served;
    try {
      const request = method.requestStream ? this.#requests(method) : method.requestDeserialize(this.#request);
      const response = this.#served.handle(request, this.#context);
      if (!method.responseStream) {
        // A response that is there already is serialized at once, before its handler can change it for another client.
        this.stream.finish(this.#serialize(isThenable(response) ? await response : response));
      } else {
        if (!isAsyncIterable(response)) throw new TypeError("a handler of a response stream returns an async iterable");
        // `send` rejects when the RPC has ended; leaving the loop so ends a generator with its `finally` blocks.
        for await (const message of response) await this.stream.send(this.#serialize(message));
        this.stream.finish();
      }
    } catch (error) {
      this.stream.fail(error);
    } finally {
      // Nobody reads any more: what still comes must not stop the socket.
      this.#queue.drop(undefined);
      this.#request = NO_REQUEST;
    }
  }

  onMessage(message: Buffer): void {
    if (this.#served.method.requestStream) {
      this.#queue.push(message);
    } else if (this.#state === "waiting") {
      this.#request = message;
      this.#state = "ready";
      this.#conn.onReady();
    }
  }

  onLastMessage(): void {
    if (this.#state === "waiting") this.stream.fail(new DrpcError("the client sent no request"));
    this.#queue.end(undefined);
  }

  onEnd(failure: Failure | undefined): void {
    this.#failure = failure;
    if (failure !== undefined) this.#abort?.abort(failure.error);
    this.#queue.drop(failure);
  }

  async *#requests(method: DrpcMethod<unknown, unknown>): AsyncGenerator<unknown, void, void> {
    for await (const message of this.#queue.messages()) yield method.requestDeserialize(message);
  }

  #serialize(message: unknown): Uint8Array {
    const { method } = this.#served;
    return checkBytes(method.path, method.responseSerialize(message));
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
