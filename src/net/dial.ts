import { connect as connectTcp, type LookupFunction, type OnReadOpts, type Socket } from "node:net";
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
  /** Where a socket without TLS reads into. Default: new memory for each read. */
  readonly onread?: OnReadOpts | undefined;
}

/** Starts to connect a socket: the addresses of a name are tried in turn, and an IP address is never sent as SNI. */
export function connectSocket(address: Address, { tls, lookup, onread }: ConnectOptions): Socket {
  const where = { autoSelectFamily: true, ...(lookup === undefined ? {} : { lookup }) };
  const socket: Socket =
    tls === undefined
      ? connectTcp({ ...address, ...where, ...(onread === undefined ? {} : { onread }) })
      : connectTls({ ...tls, ...withName(address, tls), ...where });
  return socket.once(connectedEvent(tls), () => tune(socket, address));
}

/** What a socket emits when it is connected, the TLS handshake included. */
export function connectedEvent(tls: TlsOptions | undefined): "connect" | "secureConnect" {
  return tls === undefined ? "connect" : "secureConnect";
}

/** What ends a dial, but for its success. */
export interface DialLimits {
  /** Whom it dials, for messages: read when there is one. */
  readonly key: string;
  readonly signal: AbortSignal;
  /** Milliseconds until it fails with a `DialTimeoutError`. Default and 0: none of its own. */
  readonly timeoutMs?: number | undefined;
}

/** A dial under way. It ends once: what comes later changes nothing. */
export interface DialRace<T> {
  readonly over: boolean;
  readonly done: (value: T) => void;
  readonly failed: (error: unknown) => void;
  /** Makes `socket` the dial's own: they end together, as `raceDial` says. One at most. */
  readonly own: <S extends Socket>(socket: S) => S;
  /** What `work` brings. Rejects where the dial is over by then: it goes no further. */
  readonly wait: <W>(work: W | PromiseLike<W>) => Promise<W>;
}

/**
 * Waits until `begin` calls `done`, no longer than the dial's socket lives, the signal agrees and the time allows. What
 * fails destroys the socket: an error of the socket or one given to `failed` comes unchanged, an abort as the signal's
 * reason. Errors of the socket that come after the dial are ignored: its conn learns of its end by its `close` event.
 *
 * @param socket the dial's, where it is there already; else `own` says it.
 */
export function raceDial<T>(
  socket: Socket | undefined,
  limits: DialLimits,
  begin: (race: DialRace<T>) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal, timeoutMs = 0 } = limits;
    let owned: Socket | undefined;
    let timer: NodeJS.Timeout | undefined;
    const settle = (how: () => void): void => {
      if (race.over) return;
      race.over = true;
      clearTimeout(timer);
      unwatchAbort(signal, watcher);
      owned?.off("close", onClose);
      how();
    };
    const failed = (error: unknown): void =>
      settle(() => {
        reject(error);
        owned?.destroy();
      });
    // A protocol on the socket may know better why: it speaks first.
    const onClose = (): void => {
      setImmediate(() => failed(new DialError(`${limits.key} closed the connection while it was dialed`)));
    };
    const watcher = { onAbort: failed };
    const race = {
      over: false,
      failed,
      done(value: T): void {
        // A socket destroyed in this very turn: the reason is on its way to `failed`.
        if (owned?.destroyed !== true) settle(() => resolve(value));
      },
      own<S extends Socket>(given: S): S {
        owned = given;
        given.on("error", failed); // stays: an error that comes after the dial is over must not be uncaught
        if (race.over) given.destroy();
        else given.once("close", onClose);
        return given;
      },
      async wait<W>(work: W | PromiseLike<W>): Promise<W> {
        const result = await work;
        if (race.over) throw new DialError(`the dial of ${limits.key} is over`);
        return result;
      },
    };
    if (socket !== undefined) race.own(socket);
    if (signal.aborted) return failed(signal.reason);
    watchAbort(signal, watcher);
    if (timeoutMs > 0) {
      const late = () => failed(new DialTimeoutError(`${limits.key} was not connected within ${timeoutMs} ms`));
      timer = setTimeout(late, Math.min(timeoutMs, longestDelayMs));
    }
    begin(race);
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
 * what `socketConn` makes.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
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
    return raceDial(socket, { key, signal }, ({ done }) => {
      socket.once(connectedEvent(secure), () => {
        if (!socket.destroyed) done(socketConn(socket, { tags }));
      });
    });
  };
  return Object.assign(dial, { maxStreams: 1 });
}
