import { connect as connectTcp, type LookupFunction, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { checkBoolean, checkFunction, checkObject, checkOptions } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { DialError, DialTimeoutError } from "../errors.ts";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { longestDelayMs } from "../runtime/clock.ts";
import { type Address, parseAddress, type TlsOptions, tune, withContext, withName } from "./address.ts";
import { type SocketConn, socketConn } from "./socket.ts";

/** How to connect a socket. */
export interface ConnectOptions {
  /** TLS, with these options. Default: none. */
  readonly tls?: TlsOptions | undefined;
  /** Finds the addresses of a name. Default: Node's `dns.lookup`. */
  readonly lookup?: LookupFunction | undefined;
}

/** Starts to connect a socket: the addresses of a name are tried in turn, and an IP address is never sent as SNI. */
export function connectSocket(address: Address, { tls, lookup }: ConnectOptions): Socket {
  const where = { autoSelectFamily: true, ...(lookup === undefined ? {} : { lookup }) };
  const socket: Socket =
    tls === undefined
      ? connectTcp({ ...address, ...where })
      : connectTls({ ...tls, ...withName(address, tls), ...where });
  return socket.once(connectedEvent(tls), () => tune(socket, address));
}

/** What a socket emits when it is connected, the TLS handshake included. */
export function connectedEvent(tls: TlsOptions | undefined): "connect" | "secureConnect" {
  return tls === undefined ? "connect" : "secureConnect";
}

/** What ends a dial, but for its success. */
export interface DialLimits {
  /** Whom it dials, for messages. */
  readonly key: string;
  readonly signal: AbortSignal;
  /** Milliseconds until it fails with a `DialTimeoutError`. Default and 0: none of its own. */
  readonly timeoutMs?: number | undefined;
}

/**
 * Waits until `begin` calls `done`, no longer than the socket lives, the signal agrees and the time allows. What fails
 * destroys the socket: an error of the socket or one given to `failed` comes unchanged, an abort as the signal's reason.
 * Errors of the socket that come after the dial are ignored: its conn learns of its end by its `close` event.
 */
export function raceDial<T>(
  socket: Socket,
  { key, signal, timeoutMs = 0 }: DialLimits,
  begin: (done: (value: T) => void, failed: (error: unknown) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    let over = false;
    const settle = (): boolean => {
      if (over) return false;
      over = true;
      clearTimeout(timer);
      unwatchAbort(signal, watcher);
      socket.off("close", onClose);
      return true;
    };
    const failed = (error: unknown): void => {
      if (!settle()) return;
      reject(error);
      socket.destroy();
    };
    const done = (value: T): void => {
      // Destroyed in this very turn: the reason is on its way to `failed`.
      if (!socket.destroyed && settle()) resolve(value);
    };
    const watcher = { onAbort: failed };
    // A protocol on the socket may know better why: it speaks first.
    const onClose = (): void => {
      setImmediate(() => failed(new DialError(`${key} closed the connection while it was dialed`)));
    };
    if (signal.aborted) return failed(signal.reason);
    watchAbort(signal, watcher);
    if (timeoutMs > 0) {
      const late = () => failed(new DialTimeoutError(`${key} was not connected within ${timeoutMs} ms`));
      timer = setTimeout(late, Math.min(timeoutMs, longestDelayMs));
    }
    socket.on("error", failed); // stays: an error that comes after the dial is over must not be uncaught
    socket.once("close", onClose);
    begin(done, failed);
  });
}

/** Options of Node's `tls.connect` that say whom to trust and who to be. Where to connect, the key says. */
export type SocketTlsOptions = TlsOptions;

/** Options of `dialSocket`; all are optional, unknown names are refused. */
export interface DialSocketOptions {
  /**
   * TLS, with these options of Node's `tls.connect` (`ca`, `cert`, `key`…). `true`: with none. Default: no TLS. The
   * server name is taken from the key's host, unless `servername` says otherwise (or the host is an IP address).
   */
  readonly tls?: boolean | SocketTlsOptions | undefined;
  /** Facts about the conns, for filters, stats and events. Default: none. */
  readonly tags?: Readonly<Record<string, unknown>> | undefined;
  /** Finds the addresses of a name. Default: Node's `dns.lookup`. */
  readonly lookup?: LookupFunction | undefined;
}

/**
 * Makes a dial function for plain or TLS sockets, with keys of the form `host:port`, `[v6]:port` and `unix:path`. The
 * addresses of a name are tried in turn, with a head start of 250 ms each. The pool's `dialTimeoutMs` is over all of
 * DNS, TCP and TLS. Other keys fail with a `DialError` that is `final`; errors of Node come unchanged. The conns are
 * what `socketConn` makes. Throws (`ERR_POOL_ARGUMENT`) for wrong options.
 */
export function dialSocket(options: DialSocketOptions = {}): Dial<string, SocketConn> {
  checkOptions("dialSocket's options", options, ["tls", "tags", "lookup"]);
  const { tls, tags, lookup } = options;
  checkFunction("lookup", lookup);
  if (typeof tls !== "object" || tls === null) checkBoolean("tls", tls);
  checkObject("tags", tags);
  const secure = tls ? withContext(tls === true ? {} : tls) : undefined;
  const dial = async (key: string, { signal }: { signal: AbortSignal }): Promise<SocketConn> => {
    const address = parseAddress(key);
    signal.throwIfAborted();
    const socket = connectSocket(address, { tls: secure, lookup });
    return raceDial(socket, { key, signal }, (done) => {
      socket.once(connectedEvent(secure), () => {
        if (!socket.destroyed) done(socketConn(socket, { tags }));
      });
    });
  };
  return Object.assign(dial, { maxStreams: 1 });
}
