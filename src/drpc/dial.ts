import { connect, type Socket } from "node:net";
import { connect as connectTls, TLSSocket } from "node:tls";
import { checkBoolean, checkFunction, checkOptions, show } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { DialError, DialTimeoutError, PoolTypeError } from "../errors.ts";
import { type Address, parseAddress, type TlsOptions, tune, withContext, withName } from "../net/address.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { checkConnOptions, connOptionNames, DrpcConn, type DrpcConnOptions } from "./client.ts";
import { delayOf } from "./limits.ts";

/** Options of Node's `tls.connect` that say whom to trust and who to be. Where to connect, the key says. */
export type DrpcTlsOptions = TlsOptions;

/** Options of `dialDrpc`. All are optional; unknown names are refused. */
export interface DialDrpcOptions<K = string> extends DrpcConnOptions {
  /**
   * Where the peer of a key is: `host:port`, `[v6]:port` or `unix:path`, or a promise of it. Asked for each dial, so that
   * a peer may move; what it throws is the dial's error. Default: the key is the address.
   */
  address?: ((key: K) => string | PromiseLike<string>) | undefined;
  /**
   * TLS, with these options of Node's `tls.connect` (`ca`, `cert`, `key`…). `true`: with none. Default: no TLS. The
   * server name is taken from the address's host, unless `servername` says otherwise (or the host is an IP address).
   *
   * A function says it for each key, or promises to; it is asked for each dial. `false` is no TLS. Anything else but
   * `true` and an object (`undefined`, say, for a key that it does not know) fails the dial, so that no forgotten key is
   * dialed in the clear. The certificates of an object are read when it is first returned: return the same one again.
   */
  tls?:
    | boolean
    | DrpcTlsOptions
    | ((key: K) => boolean | DrpcTlsOptions | PromiseLike<boolean | DrpcTlsOptions>)
    | undefined;
  /**
   * Checks who the peer is, after the TLS handshake and before anything is sent. Throwing, rejecting or returning
   * `false` refuses it: the socket is closed, and that error is the dial's. Peers with certificates of their own making
   * need `rejectUnauthorized: false` in `tls` beside it. Needs `tls`. Default: none.
   */
  checkPeer?: ((peer: TLSSocket, key: K) => unknown) | undefined;
  /**
   * Milliseconds for all of `address`, `tls`, DNS, TCP, TLS and `checkPeer`; then the dial fails with a
   * `DialTimeoutError`. Default 20,000. 0: no limit but the pool's own. Negative: refused.
   */
  connectTimeoutMs?: number | undefined;
}

/**
 * Makes a dial function for keys of the form `host:port`, `[v6]:port` and `unix:path`, or, with `address`, for keys of
 * any kind: node IDs, say, whose certificates `tls` and `checkPeer` pin. An address of another form fails at once, with
 * a `DialError` that is `final`; Node's own errors of DNS, TCP and TLS come unchanged.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function dialDrpc(options?: DialDrpcOptions): Dial<string, DrpcConn>;
export function dialDrpc<K>(
  options: DialDrpcOptions<K> & { address: (key: K) => string | PromiseLike<string> },
): Dial<K, DrpcConn>;
export function dialDrpc<K>(options: DialDrpcOptions<K> = {}): Dial<K, DrpcConn> {
  checkOptions("dialDrpc's options", options, [...connOptionNames, ...dialOptionNames]);
  const { address, tls, checkPeer, connectTimeoutMs, ...connOptions } = options;
  const timeoutMs = delayOf("connectTimeoutMs", connectTimeoutMs, 20_000);
  checkFunction("address", address);
  checkFunction("checkPeer", checkPeer);
  if (typeof tls !== "function" && (typeof tls !== "object" || tls === null)) checkBoolean("tls", tls);
  if (checkPeer !== undefined && !tls)
    throw new PoolTypeError("`checkPeer` needs `tls`: without it peers have no identity");
  checkConnOptions(connOptions);
  const contexts = new TlsContexts();
  if (typeof tls === "object") contexts.get(tls); // bad certificates show at once

  const dial = async (key: K, { signal }: { signal: AbortSignal }): Promise<DrpcConn> => {
    signal.throwIfAborted();
    const limit = new DialLimit(signal, timeoutMs, textOf(key));
    let socket: Socket | undefined;
    try {
      const at = address === undefined ? key : await limit.race(address(key));
      if (typeof at !== "string") {
        throw new DialError(`cannot dial ${limit.peer}: its address is no string but ${show(at)}`, { final: true });
      }
      const where = parseAddress(at);
      if (at !== key) limit.peer = `${textOf(key)} (${at})`;
      const secure = contexts.get(typeof tls === "function" ? await limit.race(tls(key)) : (tls ?? false));
      if (checkPeer !== undefined && secure === undefined) {
        throw new PoolTypeError(`\`checkPeer\` needs TLS, and \`tls\` returned false for ${limit.peer}`);
      }
      socket = secure === undefined ? connectPlain(where) : connectTls({ ...secure, ...withName(where, secure) });
      await limit.connected(socket, secure === undefined ? "connect" : "secureConnect");
      if (socket instanceof TLSSocket && (await limit.race(checkPeer?.(socket, key))) === false) {
        throw new DialError(`\`checkPeer\` refused ${limit.peer}`);
      }
      tune(socket, where);
      return new DrpcConn(socket, connOptions);
    } catch (error) {
      socket?.destroy();
      throw error;
    } finally {
      limit.end();
    }
  };
  return Object.assign(dial, { maxStreams: 1 });
}

const dialOptionNames = ["address", "tls", "checkPeer", "connectTimeoutMs"];

/** A key for a message: without the contents of objects, which may hold credentials. */
function textOf(key: unknown): string {
  return typeof key === "string" ? key : show(key);
}

/** TLS options with their certificates read, once for each object. */
class TlsContexts {
  readonly #known = new WeakMap<object, TlsOptions>();

  /** @returns undefined for no TLS. @throws PoolTypeError for what does not say; Node's error for bad certificates. */
  get(tls: boolean | DrpcTlsOptions): TlsOptions | undefined {
    if (tls === false) return undefined;
    const options = tls === true ? noOptions : tls;
    if (typeof options !== "object" || options === null) {
      throw new PoolTypeError(`expected \`tls\` to return true, false or an object of options, got ${show(tls)}`);
    }
    let known = this.#known.get(options);
    if (known === undefined) {
      known = withContext(options);
      this.#known.set(options, known);
    }
    return known;
  }
}

const noOptions: TlsOptions = {};

/** What may end a dial before it is done: its signal, its time, its socket. */
class DialLimit {
  /** The peer, for messages. */
  peer: string;
  readonly #signal: AbortSignal;
  readonly #watcher: AbortWatcher;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #stopped: Promise<never>;
  #stop!: (error: unknown) => void;

  constructor(signal: AbortSignal, timeoutMs: number, peer: string) {
    this.peer = peer;
    this.#stopped = new Promise((_, reject) => {
      this.#stop = reject;
    });
    this.#stopped.catch(() => {}); // a socket may die when nobody waits any more
    this.#signal = signal;
    this.#watcher = { onAbort: this.#stop };
    watchAbort(signal, this.#watcher);
    if (timeoutMs === 0) return;
    this.#timer = setTimeout(() => {
      this.#stop(new DialTimeoutError(`${this.peer} was not connected within ${timeoutMs} ms`));
    }, timeoutMs);
  }

  /** Waits for `work`, as long as nothing has ended the dial. */
  race<T>(work: T | PromiseLike<T>): Promise<T> {
    return Promise.race([work, this.#stopped]);
  }

  connected(socket: Socket, event: "connect" | "secureConnect"): Promise<void> {
    // Both stay on the socket: an error that comes after the dial is over must not be uncaught.
    socket.on("error", this.#stop);
    socket.on("close", () => this.#stop(new DialError(`${this.peer} closed the connection while it was dialed`)));
    return this.race(new Promise((resolve) => socket.once(event, resolve)));
  }

  end(): void {
    clearTimeout(this.#timer);
    unwatchAbort(this.#signal, this.#watcher);
  }
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
