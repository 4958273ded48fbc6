import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { checkBoolean, checkFunction, checkOptions, show } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { DialError, PoolTypeError } from "../errors.ts";
import { parseAddress, type TlsOptions, withContext } from "../net/address.ts";
import { connectedEvent, connectSocket, type DialRace, raceDial } from "../net/dial.ts";
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
    const limits = { key: textOf(key), signal, timeoutMs };
    const connect = async ({ own, wait }: DialRace<DrpcConn>): Promise<DrpcConn> => {
      const at = address === undefined ? key : await wait(address(key));
      if (typeof at !== "string") {
        throw new DialError(`cannot dial ${limits.key}: its address is no string but ${show(at)}`, { final: true });
      }
      const where = parseAddress(at);
      if (at !== key) limits.key = `${textOf(key)} (${at})`;
      const secure = contexts.get(typeof tls === "function" ? await wait(tls(key)) : (tls ?? false));
      if (checkPeer !== undefined && secure === undefined) {
        throw new PoolTypeError(`\`checkPeer\` needs TLS, and \`tls\` returned false for ${limits.key}`);
      }
      // Without TLS, Node would allocate 64 KiB for every read, however short.
      const read = (length: number): boolean => socket.push(Buffer.from(shared.subarray(0, length)));
      const onread = { buffer: shared, callback: read };
      const socket: Socket = own(connectSocket(where, { tls: secure, onread }));
      await wait(new Promise((resolve) => socket.once(connectedEvent(secure), resolve)));
      if (socket instanceof TLSSocket && (await wait(checkPeer?.(socket, key))) === false) {
        throw new DialError(`\`checkPeer\` refused ${limits.key}`);
      }
      return new DrpcConn(socket, connOptions);
    };
    return raceDial(undefined, limits, (race) => void connect(race).then(race.done, race.failed));
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

/** What sockets read into, one after the other: each copies what has come before the next one reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);
