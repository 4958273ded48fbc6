import { connect, type Socket } from "node:net";
import { connect as connectTls, TLSSocket } from "node:tls";
import { checkBoolean, checkFunction, checkOptions } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { DialError, DialTimeoutError, PoolTypeError } from "../errors.ts";
import { type Address, parseAddress, type TlsOptions, tune, withContext, withName } from "../net/address.ts";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { checkConnOptions, connOptionNames, DrpcConn, type DrpcConnOptions } from "./client.ts";
import { delayOf } from "./limits.ts";

/** Options of Node's `tls.connect` that say whom to trust and who to be. Where to connect, the key says. */
export type DrpcTlsOptions = TlsOptions;

/** Options of `dialDrpc`. All are optional; unknown names are refused. */
export interface DialDrpcOptions extends DrpcConnOptions {
  /**
   * TLS, with these options of Node's `tls.connect` (`ca`, `cert`, `key`…). `true`: with none. Default: no TLS. The
   * server name is taken from the key's host, unless `servername` says otherwise (or the host is an IP address).
   */
  tls?: boolean | DrpcTlsOptions | undefined;
  /**
   * Checks who the peer is, after the TLS handshake and before anything is sent. Throwing, rejecting or returning
   * `false` refuses it: the socket is closed, and that error is the dial's. Peers with certificates of their own making
   * need `rejectUnauthorized: false` in `tls` beside it. Needs `tls`. Default: none.
   */
  checkPeer?: ((peer: TLSSocket, key: string) => unknown) | undefined;
  /**
   * Milliseconds for all of DNS, TCP, TLS and `checkPeer`; then the dial fails with a `DialTimeoutError`. Default
   * 20,000. 0: no limit but the pool's own. Negative: refused.
   */
  connectTimeoutMs?: number | undefined;
}

/**
 * Makes a dial function for keys of the form `host:port`, `[v6]:port` and `unix:path`. Other keys fail at once, with a
 * `DialError` that is `final`; Node's own errors of DNS, TCP and TLS come unchanged.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function dialDrpc(options: DialDrpcOptions = {}): Dial<string, DrpcConn> {
  checkOptions("dialDrpc's options", options, [...connOptionNames, "tls", "checkPeer", "connectTimeoutMs"]);
  const { tls, checkPeer, connectTimeoutMs, ...connOptions } = options;
  const timeoutMs = delayOf("connectTimeoutMs", connectTimeoutMs, 20_000);
  checkFunction("checkPeer", checkPeer);
  if (typeof tls !== "object" || tls === null) checkBoolean("tls", tls);
  if (checkPeer !== undefined && !tls)
    throw new PoolTypeError("`checkPeer` needs `tls`: without it peers have no identity");
  checkConnOptions(connOptions);

  const secure = tls ? withContext(tls === true ? {} : tls) : undefined;

  const dial = async (key: string, { signal }: { signal: AbortSignal }): Promise<DrpcConn> => {
    const address = parseAddress(key);
    signal.throwIfAborted();
    const socket =
      secure === undefined ? connectPlain(address) : connectTls({ ...secure, ...withName(address, secure) });
    const ready = async (): Promise<void> => {
      await new Promise<void>((resolve) => socket.once(secure === undefined ? "connect" : "secureConnect", resolve));
      if (socket instanceof TLSSocket && (await checkPeer?.(socket, key)) === false) {
        throw new DialError(`\`checkPeer\` refused ${key}`);
      }
    };
    try {
      await within(socket, ready(), key, timeoutMs, signal);
      tune(socket, address);
      return new DrpcConn(socket, connOptions);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  };
  return Object.assign(dial, { maxStreams: 1 });
}

/** Waits for `work` on a socket, but not longer than the socket lives, the time allows and the signal agrees to. */
function within(
  socket: Socket,
  work: Promise<void>,
  key: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  let stop!: (error: unknown) => void;
  const stopped = new Promise<never>((_, reject) => {
    stop = reject;
  });
  const watcher = { onAbort: stop };
  watchAbort(signal, watcher);
  if (timeoutMs > 0) {
    timer = setTimeout(() => stop(new DialTimeoutError(`${key} was not connected within ${timeoutMs} ms`)), timeoutMs);
  }
  // Both stay on the socket: an error that comes after the dial is over must not be uncaught.
  socket.on("error", stop);
  socket.on("close", () => stop(new DialError(`${key} closed the connection while it was dialed`)));
  return Promise.race([work, stopped]).finally(() => {
    clearTimeout(timer);
    unwatchAbort(signal, watcher);
  });
}

/** What sockets read into, one after the other: each copies what has come before the next one reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

/** A TCP or Unix socket that allocates what it has read. Node would allocate 64 KiB for every read, however short. */
function connectPlain(address: Address): Socket {
  const socket: Socket = connect({
    ...address,
    onread: { buffer: shared, callback: (length) => socket.push(Buffer.from(shared.subarray(0, length))) },
  });
  return socket;
}
