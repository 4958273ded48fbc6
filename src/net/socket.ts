import type { Socket } from "node:net";
import { show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";

/** A socket as a pool holds it. */
export interface SocketConn<S extends Socket = Socket> extends PoolConn {
  readonly socket: S;
  readonly closed: Promise<void>;
  close(): Promise<void>;
  ref(): void;
  unref(): void;
}

/**
 * Makes a conn of an open net or TLS socket, for one stream at a time. While no stream runs, the socket does not hold
 * the process, the peer's end is noticed at once, and bytes that nobody asked for close it: they would be taken for
 * the answer to the next request. Errors of the socket close it and are not thrown; a lease sees them on the socket.
 * `close` destroys it. Throws (`ERR_POOL_ARGUMENT`) for what is no socket, or one that is closed already.
 */
export function socketConn<S extends Socket>(
  socket: S,
  options: { tags?: Readonly<Record<string, unknown>> | undefined } = {},
): SocketConn<S> {
  if (typeof socket !== "object" || socket === null || typeof socket.destroy !== "function") {
    throw new PoolTypeError(`expected a socket, got ${show(socket)}`);
  }
  if (socket.destroyed) throw new PoolTypeError("expected an open socket, got one that is destroyed");
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", () => {}); // Node emits "close" next
  const unasked = () => {
    if (socket.read() !== null) socket.destroy();
  };
  const conn = {
    socket,
    closed,
    close() {
      socket.destroy();
      return closed;
    },
    ref() {
      socket.off("readable", unasked);
      socket.ref();
    },
    unref() {
      socket.off("readable", unasked).on("readable", unasked);
      socket.unref();
    },
  };
  return options.tags === undefined ? conn : { ...conn, tags: options.tags };
}
