import { type ClientSessionOptions, connect as connectHttp2 } from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import type { Dial } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { usualMaxStreams } from "../net/http2.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { Http2Conn } from "./conn.ts";

/** Options of `dialHttp2`. */
export interface Http2DialOptions {
  /** Options of `tls.connect`, for `https:` keys. */
  readonly tls?: ConnectionOptions | undefined;
  /** Options of `http2.connect`. */
  readonly session?: ClientSessionOptions | undefined;
  /** At most this many streams on one conn, at least 1. Default: what the peer allows, 100 where it sets no limit. */
  readonly maxStreams?: number | undefined;
}

/**
 * A dial function for HTTP/2 peers: the keys are origins, `http://host:port` or `https://host:port`. It resolves when
 * the peer's settings have come, and rejects with what the socket or the session failed with.
 *
 * Throws a `PoolTypeError` or `PoolRangeError` for wrong options; the dial rejects with a `PoolTypeError` for a key
 * that is no such origin.
 */
export function dialHttp2({ tls, session, maxStreams, ...unknown }: Http2DialOptions = {}): Dial<string, Http2Conn> {
  for (const name of Object.keys(unknown)) throw new PoolTypeError(`Unknown option of dialHttp2: ${name}`);
  if (maxStreams !== undefined && (!Number.isSafeInteger(maxStreams) || maxStreams < 1)) {
    throw new PoolRangeError(`Expected \`maxStreams\` to be an integer of at least 1, got ${maxStreams}`);
  }
  const dial: Dial<string, Http2Conn> = async (key, { signal }) => {
    const url = originOf(key);
    signal.throwIfAborted();
    const socket = connect(url, tls);
    const client = connectHttp2(url, { ...session, createConnection: () => socket });
    const dialing = new Dialing(socket, signal);
    client.once("remoteSettings", () => dialing.done()).once("error", (error) => dialing.failed(error));
    client.once("close", () => dialing.failed(new Error(`${key} hung up before it spoke HTTP/2`)));
    await dialing.ready;
    return new Http2Conn(client, socket, maxStreams);
  };
  return Object.assign(dial, { maxStreams: maxStreams ?? usualMaxStreams });
}

function connect(url: URL, tls: ConnectionOptions | undefined): Socket {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const secure = url.protocol === "https:";
  const port = Number(url.port || (secure ? 443 : 80));
  return secure
    ? connectTls({ servername: host, ...tls, host, port, ALPNProtocols: ["h2"] })
    : connectTcp({ host, port, noDelay: true });
}

/** The origin that a key names. */
export function originOf(key: string): URL {
  const url = URL.canParse(key) ? new URL(key) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  throw new PoolTypeError(`Expected an origin such as "https://host:port", got ${JSON.stringify(key)}`);
}

/** The wait for a session's settings, ended by a failure or by the signal, which close the socket. */
class Dialing implements AbortWatcher {
  readonly ready: Promise<void>;
  readonly #socket: Socket;
  readonly #signal: AbortSignal;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;

  constructor(socket: Socket, signal: AbortSignal) {
    this.#socket = socket;
    this.#signal = signal;
    this.ready = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    watchAbort(signal, this);
  }

  onAbort(reason: unknown): void {
    this.failed(reason);
  }

  done(): void {
    unwatchAbort(this.#signal, this);
    this.#resolve();
  }

  failed(error: unknown): void {
    unwatchAbort(this.#signal, this);
    this.#reject(error);
    this.#socket.destroy();
  }
}
