import { connect as connectTcp, type LookupFunction } from "node:net";
import { connect as connectTls } from "node:tls";
import { checkBoolean, checkFunction, checkOptions } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { DialError, PoolTypeError } from "../errors.ts";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { parseAddress, type TlsOptions, tune, withContext, withName } from "./address.ts";
import { type SocketConn, socketConn } from "./socket.ts";

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
  if (tags !== undefined && (typeof tags !== "object" || tags === null))
    throw new PoolTypeError("expected `tags` to be an object");
  const secure = tls ? withContext(tls === true ? {} : tls) : undefined;
  const dial = (key: string, { signal }: { signal: AbortSignal }): Promise<SocketConn> => {
    const address = parseAddress(key);
    signal.throwIfAborted();
    const where = { autoSelectFamily: true, ...(lookup === undefined ? {} : { lookup }) };
    const socket =
      secure === undefined
        ? connectTcp({ ...address, ...where })
        : connectTls({ ...secure, ...withName(address, secure), ...where });
    return new Promise((resolve, reject) => {
      const watcher = { onAbort: (reason: unknown) => fail(reason) };
      const fail = (error: unknown) => {
        unwatchAbort(signal, watcher);
        reject(error);
        socket.destroy();
      };
      const closed = () => fail(new DialError(`${key} closed the connection while it was dialed`));
      watchAbort(signal, watcher);
      socket.on("error", fail); // stays: an error that comes after the dial is over must not be uncaught
      socket.once("close", closed);
      socket.once(secure === undefined ? "connect" : "secureConnect", () => {
        unwatchAbort(signal, watcher);
        socket.off("close", closed);
        tune(socket, address);
        // Destroyed in this very turn: the error is on its way to `fail`.
        if (!socket.destroyed) resolve(socketConn(socket, tags === undefined ? {} : { tags }));
      });
    });
  };
  return Object.assign(dial, { maxStreams: 1 });
}
