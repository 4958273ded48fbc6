import type { Duplex } from "node:stream";
import type { CallOptions, CloseReason, Conn, Rpc, Stream } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { DrpcBusyError, DrpcProtocolError, DrpcTimeoutError } from "./error.ts";
import { Exchange, type Prelude, type Receiver } from "./exchange.ts";
import { Inbox } from "./inbox.ts";
import { checkHeader, checkLimits, type DrpcLimits, limitNames } from "./limits.ts";
import { encodeMetadata } from "./metadata.ts";
import { checkChoice, checkMs, checkNames, checkTimeoutMs } from "./option.ts";
import type { ReceivedPacket } from "./packet.ts";
import { ClientStream, serialize } from "./stream.ts";
import { Transport, type TransportOptions, type TransportOwner } from "./transport.ts";
import { UnaryCall } from "./unary.ts";

/** Options of a `DrpcConn`. All are optional; unknown names are refused. */
export interface DrpcConnOptions extends DrpcLimits {
  /**
   * What cancelling an RPC does to the conn. `"soft"`, the default: the peer is told, and the conn takes the next RPC.
   * `"hard"`: the conn is closed, for peers that do not know the cancel packet.
   */
  cancel?: "soft" | "hard" | undefined;
  /**
   * Milliseconds that the conn may stay blocked, flushing what an ended RPC has written, before it is closed. Default
   * 5,000. 0: no limit. Negative: refused.
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
  checkNames(options, connOptionNames);
  return {
    ...checkLimits(options),
    soft: checkChoice("cancel", options.cancel, ["soft", "hard"], "soft") === "soft",
    maxBlockedMs: checkMs("maxBlockedMs", options.maxBlockedMs, 5000),
    header: checkHeader(options.header),
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
  #current: Exchange | undefined;
  #lastStream = 0;
  #signal: AbortSignal | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #watcher: AbortWatcher = { onAbort: (reason) => this.#cancel(reason) };

  /** Armed while the conn is blocked. */
  #flushTimer: NodeJS.Timeout | undefined;
  #flushing = false;
  #free: { readonly promise: Promise<void>; resolve(): void } | undefined;

  /** @throws PoolTypeError or PoolRangeError for wrong options, or a duplex of anything but bytes. */
  constructor(duplex: Duplex, options: DrpcConnOptions = {}) {
    this.#settings = checkConnOptions(options);
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
    const owner: TransportOwner = {
      onPacket: (packet) => this.#receive(packet),
      onRoom: () => this.#current?.onRoom(),
      onDeath: (cause) => this.#die("died", whyDead(cause), cause),
    };
    this.#transport = new Transport(duplex, owner, this.#settings);
    this.#destroyed = duplex.closed ? Promise.resolve() : new Promise((resolve) => duplex.once("close", resolve));
    this.#transport.keepAlive(false);
  }

  /** What the conn runs on: for the peer's address or certificate. Reading or writing it breaks the conn. */
  get duplex(): Duplex {
    return this.#transport.duplex;
  }

  async invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options: CallOptions = {}): Promise<O> {
    // All that can throw comes before `#begin`: the slot that it takes is given back by the RPC's end only.
    const bytes = serialize(rpc, request);
    const prelude = encodePrelude(rpc, options);
    const call = new UnaryCall((response) => rpc.responseDeserialize(response), this.#cancel);
    this.#begin(call, options).call(prelude, bytes);
    return call.response;
  }

  async newStream<I, O>(rpc: Rpc<I, O>, options: CallOptions = {}): Promise<Stream<I, O>> {
    const prelude = encodePrelude(rpc, options);
    const inbox = new Inbox(this.#transport, this.#settings.highWaterBytes);
    return new ClientStream(rpc, inbox, this.#cancel, (receiver) => {
      const exchange = this.#begin(receiver, options);
      exchange.open(prelude);
      return exchange;
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
   * `undefined` when the conn can take an RPC. A promise, while one runs or while what an ended one has written is still
   * being flushed; it settles when the conn is free, at most `maxBlockedMs` after the RPC's end: then it is closed.
   */
  unblocked(): Promise<void> | undefined {
    if (this.#death !== undefined || (this.#current === undefined && !this.#flushing)) return undefined;
    if (this.#free === undefined) {
      let resolve!: () => void;
      const promise = new Promise<void>((settle) => {
        resolve = settle;
      });
      this.#free = { promise, resolve };
    }
    return this.#free.promise;
  }

  /** Takes the slot for an RPC, or throws why it cannot have it. */
  #begin(receiver: Receiver, { signal, timeoutMs }: CallOptions): Exchange {
    const delay = checkTimeoutMs(timeoutMs);
    signal?.throwIfAborted();
    if (!this.#transport.writable) this.#die("died", whyDead(this.duplex.errored), this.duplex.errored);
    if (this.#death !== undefined) throw this.#closedError(this.#death, false);
    if (this.#current !== undefined) throw new DrpcBusyError();
    const exchange = new Exchange(++this.#lastStream, this.#transport, receiver, this.#onEnd);
    this.#current = exchange;
    this.#transport.keepAlive(true);
    if (signal !== undefined) {
      this.#signal = signal;
      watchAbort(signal, this.#watcher);
    }
    if (delay !== undefined) this.#timer = setTimeout(() => this.#cancel(new DrpcTimeoutError(delay)), delay);
    return exchange;
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
  };

  /** What the RPC has written is still on its way, behind a peer that reads slowly or not at all. */
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

  #settleFree(): void {
    if (this.#death === undefined && (this.#current !== undefined || this.#flushing)) return;
    this.#free?.resolve();
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
    if (packet.stream === this.#current?.stream) this.#current.receive(packet);
  }

  /** @param cancelled what the running RPC fails with, where it is not the conn's death. */
  #die(reason: Death["reason"], why: string, cause?: unknown, cancelled?: { error: unknown }): void {
    if (this.#death !== undefined) return;
    this.#death = { reason, why, cause };
    clearTimeout(this.#flushTimer);
    this.#settleClosed();
    const { error } = cancelled ?? { error: this.#closedError(this.#death, true) };
    this.#current?.abandon({ error, local: cancelled !== undefined || reason === "handle" });
    this.#settleFree();
    this.#transport.destroy();
  }

  #closedError({ reason, why, cause }: Death, sent: boolean): ConnClosedError {
    const message = `${why}; the request ${sent ? "may have reached the peer" : "was not sent"}`;
    return new ConnClosedError(reason, sent, message, cause === undefined || cause === null ? {} : { cause });
  }
}

function encodePrelude({ path }: Rpc<never, unknown>, { metadata }: CallOptions): Prelude {
  return { path: Buffer.from(path), metadata: metadata === undefined ? undefined : encodeMetadata(metadata) };
}

function whyDead(cause: unknown): string {
  if (cause instanceof DrpcProtocolError) return `the conn was closed: the peer broke the protocol: ${cause.message}`;
  return cause instanceof Error ? `the conn died: ${cause.message}` : "the peer closed the conn";
}
