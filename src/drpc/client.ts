import type { Duplex } from "node:stream";
import { checkCallOptions, checkOptions, checkSignal, timeLimit } from "../argument.ts";
import type { CallOptions, CloseReason, Conn, Rpc, Stream } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { reached, spentOf } from "../explanation.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { longestDelayMs, systemWallNow } from "../runtime/clock.ts";
import { DrpcBusyError, DrpcCode, DrpcError, DrpcProtocolError, DrpcTimeoutError } from "./errors.ts";
import { choiceOf, type DrpcLimits, delayOf, headerOf, limitNames, limitsOf } from "./limits.ts";
import { checkBytes, type Failure, type Invocation, ReceiveQueue, type Receiver, RpcStream } from "./rpc-stream.ts";
import { Transport, type TransportEvents, type TransportOptions } from "./transport.ts";
import { encodeMetadata, encodePath, type ReceivedPacket } from "./wire.ts";

/** Options of a `DrpcConn`. All are optional; unknown names are refused. */
export interface DrpcConnOptions extends DrpcLimits {
  /**
   * What cancelling an RPC does to the conn. `"soft"`, the default: the peer is told, and the conn takes the next RPC.
   * `"hard"`: the conn is closed, for peers that do not know the cancel packet.
   */
  cancel?: "soft" | "hard" | undefined;
  /**
   * Milliseconds that the conn may stay blocked, flushing what an ended RPC has written or waiting for the rest of a frame
   * that it was sent, before it is closed. Default 5,000. 0: no limit. Negative: refused.
   */
  maxBlockedMs?: number | undefined;
  /**
   * Sent in front of the first bytes, for ports that are shared with other protocols. `true`: `DRPC!!!1`, as Go's
   * drpcmigrate has it. Default: none.
   */
  header?: boolean | string | undefined;
}

/** The names of `DrpcConnOptions`. */
export const connOptionNames: readonly string[] = [...limitNames, "cancel", "maxBlockedMs", "header"];

/** @throws PoolTypeError or PoolRangeError for wrong options. */
export function checkConnOptions(options: DrpcConnOptions): ConnSettings {
  checkOptions("DRPC conn options", options, connOptionNames);
  return {
    ...limitsOf(options),
    soft: choiceOf("cancel", options.cancel, ["soft", "hard"], "soft") === "soft",
    maxBlockedMs: delayOf("maxBlockedMs", options.maxBlockedMs, 5000),
    header: headerOf(options.header),
  };
}

interface ConnSettings extends TransportOptions {
  readonly highWaterBytes: number;
  readonly soft: boolean;
  readonly maxBlockedMs: number;
}

interface Death {
  readonly reason: CloseReason | "handle";
  readonly why: string;
  readonly cause: unknown;
}

/**
 * A DRPC connection over a duplex that is open: a socket, a TLS socket or any other. It runs one RPC at a time, and
 * refuses a second with a `DrpcBusyError`: `Pool` opens more conns instead. It does not keep the process alive while no
 * RPC runs.
 *
 * DRPC has no metadata from server to client, so `onHeader` and `onTrailer` of the call options are never called;
 * `waitForReady` means nothing to a conn that is open.
 *
 * An RPC rejects with a `DrpcError` for what the server says, with the signal's reason, untouched, when that aborts,
 * with a `DrpcTimeoutError`, or, when the conn ends under it, with a `ConnClosedError` whose `cause` is the socket's
 * error or a `DrpcProtocolError`.
 */
export class DrpcConn implements Conn {
  readonly maxStreams = 1;
  readonly closed: Promise<void>;
  readonly #transport: Transport;
  readonly #settings: ConnSettings;
  #settleClosed!: () => void;
  #death: Death | undefined;
  /** Resolves when the duplex is destroyed. */
  readonly #destroyed: Promise<void>;

  /** The running RPC, and what watches over it. */
  #current: RpcStream | undefined;
  #lastStream = 0;
  #signal: AbortSignal | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #watcher: AbortWatcher = { onAbort: (reason) => this.#cancel(reason) };

  /** Whether an RPC has ended whose bytes have not all left, and the time that they have for it. */
  #flushing = false;
  #flushTimer: NodeJS.Timeout | undefined;
  /** The time that the rest of a frame has, from when somebody waits for it. */
  #frameTimer: NodeJS.Timeout | undefined;
  /** What `unblocked` has given out. */
  #free: { readonly promise: Promise<void>; resolve(): void } | undefined;

  /** @throws PoolTypeError or PoolRangeError for wrong options, or a duplex of anything but bytes. */
  constructor(duplex: Duplex, options: DrpcConnOptions = {}) {
    this.#settings = checkConnOptions(options);
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
    const events: TransportEvents = {
      onPacket: (packet) => this.#receive(packet),
      onRead: () => this.#settleFree(),
      onRoom: () => this.#current?.onRoom(),
      onDeath: (cause) => this.#die("died", whyDead(cause), cause),
    };
    this.#transport = new Transport(duplex, events, this.#settings);
    this.#destroyed = duplex.closed ? Promise.resolve() : new Promise((resolve) => duplex.once("close", resolve));
    this.#transport.keepAlive(false);
  }

  /** What the conn runs on: for the peer's address or certificate. Reading or writing it breaks the conn. */
  get duplex(): Duplex {
    return this.#transport.duplex;
  }

  /** Bytes that have come from the peer. */
  get bytesRead(): number {
    return this.#transport.bytesRead;
  }

  /** True from the moment that the conn's end has begun, whoever began it: no RPC can begin any more. */
  get draining(): boolean {
    return this.#death !== undefined || !this.#transport.writable;
  }

  async invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
    // All that can throw comes before `#begin`: the slot that it takes is given back by the RPC's end only.
    const bytes = serialize(rpc, request);
    const terms = termsOf(rpc, options);
    const call = new UnaryCall((response) => rpc.responseDeserialize(response), this.#cancel);
    this.#begin(call, terms).call(terms, bytes);
    return call.response;
  }

  async newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    const terms = termsOf(rpc, options);
    const queue = new ReceiveQueue(this.#transport, this.#settings.highWaterBytes);
    return new ClientStream(rpc, queue, this.#cancel, (receiver) => {
      const stream = this.#begin(receiver, terms);
      stream.open(terms);
      return stream;
    });
  }

  /**
   * Closes the conn. An RPC that runs rejects with a `ConnClosedError`. Idempotent; resolves when the duplex is
   * destroyed.
   */
  close(): Promise<void> {
    this.#die("handle", "the conn was closed with close()");
    return this.#destroyed;
  }

  /**
   * `undefined` when the conn can take an RPC. A promise, while one runs, or while the peer does not take what an ended
   * one has written, or has sent half a frame to it; it settles when the conn is free. After `maxBlockedMs` of either the
   * conn is closed. What TLS has been given within the last two turns of the event loop blocks nothing.
   */
  unblocked(): Promise<void> | undefined {
    if (!this.#blocked) return undefined;
    if (this.#free === undefined) {
      let resolve!: () => void;
      const promise = new Promise<void>((settle) => {
        resolve = settle;
      });
      this.#free = { promise, resolve };
      if (this.#current === undefined && this.#transport.midFrame) this.#awaitFrame();
    }
    return this.#free.promise;
  }

  get #blocked(): boolean {
    if (this.#death !== undefined) return false;
    return this.#current !== undefined || this.#transport.midFrame || (this.#flushing && this.#transport.stuck);
  }

  /** Takes the slot for an RPC, or throws why it cannot have it. */
  #begin(receiver: Receiver, { signal, delayMs, limit, waitedMs }: Terms): RpcStream {
    signal?.throwIfAborted();
    if (delayMs !== undefined && delayMs <= 0) throw new DrpcTimeoutError(limit);
    if (!this.#transport.writable) this.#die("died", whyDead(this.duplex.errored), this.duplex.errored);
    if (this.#death !== undefined) throw this.#closedError(this.#death, false);
    if (this.#current !== undefined) throw new DrpcBusyError();
    const stream = new RpcStream(++this.#lastStream, this.#transport, receiver, this.#onEnd);
    this.#current = stream;
    this.#transport.keepAlive(true);
    if (signal !== undefined) {
      this.#signal = signal;
      watchAbort(signal, this.#watcher);
    }
    if (delayMs !== undefined) {
      const timedOut = () => this.#cancel(new DrpcTimeoutError(limit, delayMs, waitedMs));
      this.#timer = setTimeout(timedOut, delayMs);
    }
    return stream;
  }

  /** The running RPC has ended: its slot is free before anyone hears of the end. */
  readonly #onEnd = (): void => {
    this.#current = undefined;
    if (this.#signal !== undefined) unwatchAbort(this.#signal, this.#watcher);
    this.#signal = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#death !== undefined) return;
    this.#transport.keepAlive(false);
    if (!this.#transport.flushed && !this.#flushing) this.#flush();
    this.#settleFree();
    if (this.#free !== undefined && this.#transport.midFrame) this.#awaitFrame();
  };

  /** What the RPC has written is still on its way: for a turn of the event loop, or for as long as the peer reads nothing. */
  #flush(): void {
    this.#flushing = true;
    const { maxBlockedMs } = this.#settings;
    if (maxBlockedMs > 0) {
      const why = `the conn was closed: it had not flushed an ended RPC within ${maxBlockedMs} ms`;
      this.#flushTimer = setTimeout(() => this.#die("blocked", why), maxBlockedMs).unref();
    }
    this.#transport.whenFlushed(() => {
      this.#flushing = false;
      clearTimeout(this.#flushTimer);
      this.#settleFree();
    });
  }

  /** What belongs to an ended RPC comes in front of the answer to the next. */
  #awaitFrame(): void {
    const { maxBlockedMs } = this.#settings;
    if (maxBlockedMs === 0) return;
    const why = `the conn was closed: the rest of a frame had not come within ${maxBlockedMs} ms`;
    this.#frameTimer = setTimeout(() => this.#transport.midFrame && this.#die("blocked", why), maxBlockedMs).unref();
  }

  #settleFree(): void {
    if (this.#free === undefined || this.#blocked) return;
    clearTimeout(this.#frameTimer);
    this.#free.resolve();
    this.#free = undefined;
  }

  readonly #cancel = (error: unknown): void => {
    if (this.#settings.soft) this.#current?.cancel(error);
    else this.#die("died", "the conn was closed to cancel an RPC", undefined, { error });
  };

  #receive(packet: ReceivedPacket): void {
    if (packet.stream > this.#lastStream) {
      if (packet.control) return;
      throw new DrpcProtocolError(`a packet of stream ${packet.stream}, but only ${this.#lastStream} have begun`);
    }
    // The rest belongs to RPCs that have ended: late answers to what was cancelled, say.
    if (packet.stream === this.#current?.id) this.#current.receive(packet);
  }

  /** @param cancelled what the running RPC fails with, where it is not the conn's death. */
  #die(reason: Death["reason"], why: string, cause?: unknown, cancelled?: { error: unknown }): void {
    if (this.#death !== undefined) return;
    this.#death = { reason, why, cause };
    clearTimeout(this.#flushTimer);
    clearTimeout(this.#frameTimer);
    this.#settleClosed();
    const { error } = cancelled ?? { error: this.#closedError(this.#death, true) };
    this.#current?.abandon({ error, local: cancelled !== undefined || reason === "handle" });
    this.#settleFree();
    this.#transport.destroy();
  }

  #closedError({ reason, why, cause }: Death, sent: boolean): ConnClosedError {
    return new ConnClosedError(
      reason,
      sent,
      `${why}; ${reached(sent)}`,
      cause === undefined || cause === null ? {} : { cause },
    );
  }
}

/** How an RPC begins and what may end it: its options, read once, before it takes the slot. */
interface Terms extends Invocation {
  readonly signal: AbortSignal | undefined;
  /** What is left of its time. 0 or less: nothing. */
  readonly delayMs: number | undefined;
  /** Which of the times that its caller gave is the earlier, for the error. */
  readonly limit: number | Date;
  /** How much of it is over: its caller waited for this conn. */
  readonly waitedMs: number;
}

function termsOf({ path }: Rpc<never, unknown>, options: CallOptions | undefined): Terms {
  const none = { metadata: undefined, signal: undefined, delayMs: undefined, limit: 0, waitedMs: 0 };
  const terms = { path: encodePath(path), ...none };
  if (options === undefined) return terms;
  checkCallOptions(options);
  const { signal, timeoutMs, deadline, metadata } = options;
  checkSignal("signal", signal);
  const delayMs = timeLimit(options, systemWallNow);
  const waitedMs = spentOf(options);
  return {
    ...terms,
    signal,
    metadata: metadata === undefined ? undefined : encodeMetadata(metadata),
    delayMs: delayMs === undefined ? undefined : Math.min(delayMs, longestDelayMs),
    limit: delayMs === timeoutMs || deadline === undefined ? (timeoutMs ?? 0) + waitedMs : new Date(deadline),
    waitedMs,
  };
}

function whyDead(cause: unknown): string {
  if (cause instanceof DrpcProtocolError) return `the conn was closed: the peer broke the protocol: ${cause.message}`;
  return cause instanceof Error ? `the conn died: ${cause.message}` : "the peer closed the conn";
}

/** The receive side of a unary RPC: exactly one response. */
class UnaryCall<O> implements Receiver {
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

/** @throws PoolTypeError when the RPC serializes to anything but bytes, or what it throws itself. */
function serialize<I>(rpc: Rpc<I, unknown>, message: I): Uint8Array {
  return checkBytes(rpc.path, rpc.requestSerialize(message));
}

/** A streaming RPC at its client. */
class ClientStream<I, O> implements Stream<I, O>, Receiver {
  readonly closed: Promise<void>;
  readonly #rpc: Rpc<I, O>;
  readonly #stream: RpcStream;
  readonly #queue: ReceiveQueue;
  readonly #cancel: (error: unknown) => void;
  #settle!: () => void;

  /**
   * @param cancel ends the RPC.
   * @param begin starts it, for this stream to receive.
   */
  constructor(
    rpc: Rpc<I, O>,
    queue: ReceiveQueue,
    cancel: (error: unknown) => void,
    begin: (to: Receiver) => RpcStream,
  ) {
    this.#rpc = rpc;
    this.#queue = queue;
    this.#cancel = cancel;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#stream = begin(this);
  }

  async send(message: I): Promise<void> {
    await this.#stream.send(serialize(this.#rpc, message));
  }

  async closeSend(last?: I): Promise<void> {
    await this.#stream.closeSend(last === undefined ? undefined : serialize(this.#rpc, last));
  }

  async close(): Promise<void> {
    if (!this.#stream.ended) this.#cancel(new DrpcError("close() cancelled the RPC", DrpcCode.cancelled));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<O, void, void> {
    const messages = this.#messages(this.#queue.messages());
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
    this.#queue.push(message);
  }

  onLastMessage(): void {
    this.#queue.end(undefined);
  }

  onEnd(failure: Failure | undefined): void {
    this.#settle();
    if (failure?.local) this.#queue.drop(failure);
    else this.#queue.end(failure);
  }

  async *#messages(queue: AsyncIterable<Buffer>): AsyncGenerator<O, void, void> {
    try {
      for await (const message of queue) yield this.#rpc.responseDeserialize(message);
      // The server has said its last word; saying ours ends the RPC before the caller hears of it.
      await this.#stream.closeSend();
    } finally {
      await this.close();
    }
  }
}
