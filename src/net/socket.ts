import type { Socket } from "node:net";
import { checkObject, checkOptions, show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";

/** A socket as a pool holds it. */
export interface SocketConn<S extends Socket = Socket> extends PoolConn {
  readonly socket: S;
  /** Settles when the socket has closed. */
  readonly closed: Promise<void>;
  /**
   * True from the moment that the socket's end has begun, by whomever: it is destroyed, or one side has ended it. Also while
   * bytes wait that nobody has read: they would be taken for the answer to the next request.
   */
  readonly draining: boolean;
  /** How many bytes have come from the peer. */
  readonly bytesRead: number;
  /** Destroys the socket. Idempotent. */
  close(): Promise<void>;
  /** A stream begins: bytes are for whoever runs it, and the socket may hold the process. */
  ref(): void;
  /** No stream runs: bytes that nobody asked for close the socket, and it does not hold the process. */
  unref(): void;
}

/** Options of `socketConn`. */
export interface SocketConnOptions {
  /** Facts about the conn, for filters, stats and events. Default: none. */
  readonly tags?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * Makes a conn of an open net or TLS socket, for one stream at a time. While no stream runs, the socket does not hold
 * the process, the peer's end is noticed at once, and bytes that nobody asked for close it: they would be taken for
 * the answer to the next request. `validate` and `reset` may talk to the peer: what comes after they have written is theirs.
 * Errors of the socket close it and are not thrown; a lease sees them on the socket. `close` destroys it.
 *
 * @throws PoolTypeError for what is no socket, or one that is closed already, and for wrong options.
 */
export function socketConn<S extends Socket>(socket: S, options: SocketConnOptions = {}): SocketConn<S> {
  if (typeof socket !== "object" || socket === null || typeof socket.destroy !== "function") {
    throw new PoolTypeError(`expected a socket, got ${show(socket)}`);
  }
  if (socket.destroyed) throw new PoolTypeError("expected an open socket, got one that is destroyed");
  checkOptions("socketConn's options", options, ["tags"]);
  checkObject("tags", options.tags);
  return new GuardedSocket(socket, options.tags);
}

class GuardedSocket<S extends Socket> implements SocketConn<S> {
  readonly socket: S;
  readonly closed: Promise<void>;
  readonly tags: Readonly<Record<string, unknown>> | undefined;
  /** What had been written when the last stream ended: more means that somebody has asked since. */
  #writtenBefore = 0;

  constructor(socket: S, tags: Readonly<Record<string, unknown>> | undefined) {
    this.socket = socket;
    this.tags = tags;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("error", () => {}); // Node emits "close" next
  }

  get draining(): boolean {
    const { destroyed, readableEnded, writableEnded, readableLength } = this.socket;
    return destroyed || readableEnded || writableEnded || readableLength > 0;
  }

  get bytesRead(): number {
    return this.socket.bytesRead;
  }

  close(): Promise<void> {
    this.socket.destroy();
    return this.closed;
  }

  ref(): void {
    this.socket.off("readable", this.#onReadable);
    this.socket.ref();
  }

  unref(): void {
    const { socket } = this;
    socket.unref();
    // At once: the next lease may come in this very tick.
    if (socket.readableLength > 0) socket.destroy();
    this.#writtenBefore = socket.bytesWritten;
    socket.off("readable", this.#onReadable).on("readable", this.#onReadable);
  }

  /** While this listener is there, Node hands out no `data` by itself, and sees the peer's end only when asked to read. */
  readonly #onReadable = (): void => {
    const { socket } = this;
    if (socket.bytesWritten === this.#writtenBefore) {
      if (socket.read() !== null) socket.destroy();
    } else if (socket.listenerCount("data") > 0 || socket.readableLength === 0) {
      while (socket.read() !== null); // what it reads, it emits
    }
  };
}
