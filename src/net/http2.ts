import { errorMonitor } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { Socket } from "node:net";
import type { PoolConn } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { Lifecycle } from "./lifecycle.ts";
import { pingHttp2 } from "./ping.ts";
import { outliveStreams } from "./session-memory.ts";

/** What servers commonly allow: for peers that announce no limit, and until more is known. */
export const usualMaxStreams = 100;

/** After a close, the peer has this long to close its side. */
export const lingerMs = 1_000;

/** HTTP/2's word for no limit. */
const unlimited = 2 ** 32 - 1;

/** What a peer said when it asked for no more streams: https://www.rfc-editor.org/rfc/rfc9113#section-6.8 */
export interface Goaway {
  /** An HTTP/2 error code, 0 for a peer that merely leaves. A peer may say GOAWAY twice: the first code that is not 0. */
  readonly code: number;
  /** Streams with a higher id were certainly not processed. The last one that the peer named. */
  readonly lastStreamId: number;
  /** What the peer added, often a text. */
  readonly data: Buffer | undefined;
}

/** What the maker of an `Http2Conn` knows of it. */
export interface Http2ConnOptions {
  /** At most this many streams at once. Default: what the peer allows, 100 where it sets no limit. */
  readonly maxStreams?: number | undefined;
  /** Facts about the conn, for filters, stats and events. Default: none. */
  readonly tags?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * One HTTP/2 session of a client. It leaves at a GOAWAY: no new stream, and it closes when its last one has ended. While
 * no stream runs, it does not hold the process.
 */
export class Http2Conn implements PoolConn {
  /** The session. Streams that are begun on it directly are not counted: use `request`. */
  readonly session: ClientHttp2Session;
  /** The socket under the session: for addresses and certificates. Reading or writing it breaks the session. */
  readonly socket: Socket;
  readonly tags: Readonly<Record<string, unknown>> | undefined;

  readonly #life: Lifecycle = new Lifecycle(() => {
    this.socket.unref(); // nobody waits for it
    this.#end();
  });
  readonly #mostStreams: number;
  #peerMaxStreams = 0;
  #goaway: Goaway | undefined;
  #held = false;
  readonly #disconnected: Promise<void>;

  /** @internal Of a session whose settings have come. */
  constructor(session: ClientHttp2Session, socket: Socket, { maxStreams, tags }: Http2ConnOptions = {}) {
    this.session = session;
    this.socket = socket;
    this.tags = tags;
    this.#mostStreams = maxStreams ?? Number.POSITIVE_INFINITY;
    this.#disconnected = new Promise((resolve) => socket.once("close", () => resolve()));
    outliveStreams(session);
    this.#readLimit();
    // Before the session's own listeners, which fail the streams.
    socket.prependListener("error", this.#lost).prependListener("close", this.#lost);
    session.on("error", this.#lost).on("close", this.#lost);
    session.on("goaway", (code: number, lastStreamId: number, data?: Buffer) => this.#leave(code, lastStreamId, data));
    session.on("remoteSettings", () => {
      this.#readLimit();
      this.#life.changed();
    });
    session.unref();
  }

  /** Settles when the socket has closed, at the latest just before streams that die with the conn fail. */
  get closed(): Promise<void> {
    return this.#life.closed;
  }

  /**
   * How many streams may run at once, now: what the peer's last SETTINGS allow, 100 where they set no limit, at most what
   * was configured. 0 once the session is destroyed.
   */
  get maxStreams(): number {
    return this.session.destroyed ? 0 : Math.min(this.#mostStreams, this.#peerMaxStreams);
  }

  /** How many streams run. */
  get streams(): number {
    return this.#life.streams;
  }

  /** True once a GOAWAY has come, the connection is lost, or its end has begun, whoever began it. */
  get draining(): boolean {
    return this.#life.draining || this.session.closed || this.session.destroyed || this.socket.destroyed;
  }

  /** The peer's GOAWAY, if one has come. */
  get goaway(): Goaway | undefined {
    return this.#goaway;
  }

  /** How many bytes have come from the peer. */
  get bytesRead(): number {
    return this.socket.bytesRead;
  }

  /** Calls `listener` when `draining` or `maxStreams` may have changed. */
  onChange(listener: () => void): void {
    this.#life.onChange(listener);
  }

  /**
   * Asks the peer for a sign of life, and resolves when one has come: the answer to an HTTP/2 PING, or any other byte.
   * Where Node sends none (ten are on their way, or the conn drains), the byte is waited for. Resolves at once when the
   * conn is closed, which `closed` tells better. Rejects with the signal's reason, and with nothing else.
   */
  ping({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    return pingHttp2(this.session, () => this.bytesRead, signal);
  }

  /** From now on the conn holds the process, until `unref`. */
  ref(): void {
    this.#held = true;
    this.#holdProcess();
  }

  /** From now on the conn holds the process only while a stream runs. */
  unref(): void {
    this.#held = false;
    this.#holdProcess();
  }

  /**
   * Opens a stream. While one runs, the conn holds the process.
   *
   * Do not call it from a `close` event of another stream of this conn, or from what follows that event in the same turn
   * of the event loop: it runs inside Node's own HTTP/2 code, where streams that are opened and cancelled at once may never
   * close, and may corrupt Node's heap. `onEnd` is called a turn of the event loop after the stream has closed: the time
   * to give its slot to the next caller.
   *
   * @throws ConnClosedError with `sent: false` when the conn takes no new stream. What Node throws for wrong headers
   * comes unchanged.
   */
  request(headers: OutgoingHttpHeaders, options?: ClientSessionRequestOptions, onEnd?: () => void): ClientHttp2Stream {
    if (this.draining) throw new ConnClosedError(this.#life.draining ? this.#life.reason : "died", false);
    const stream = this.session.request(headers, options);
    this.#life.streamBegan();
    if (this.#life.streams === 1) this.#holdProcess();
    stream.close = closeAndDestroy;
    stream.on(errorMonitor, this.#streamFailed).on("close", this.#streamClosed);
    if (onEnd !== undefined) stream.on("close", () => setImmediate(onEnd));
    return stream;
  }

  /** No new stream; the conn closes when its last stream has ended. Idempotent. */
  drain(): void {
    this.#life.drain("pool");
  }

  /**
   * Closes the conn; streams that still run are cancelled. Resolves when the socket has closed, until when it holds the
   * process. A peer that does not close its side within a second is not waited for. Idempotent.
   */
  close(): Promise<void> {
    if (this.#life.beginEnd("pool")) this.#end();
    if (!this.socket.destroyed) this.socket.ref();
    return this.#disconnected;
  }

  /** The one way to end the connection from this side. */
  #end(): void {
    if (this.#life.streams > 0) {
      this.#life.markClosed("pool"); // before the streams fail
      this.session.destroy(undefined, constants.NGHTTP2_CANCEL);
    } else {
      this.session.close();
    }
    if (!this.socket.destroyed) setTimeout(() => this.socket.destroy(), lingerMs).unref();
  }

  #leave(code: number, lastStreamId: number, data: Buffer | undefined): void {
    this.#goaway = { code: this.#goaway?.code || code, lastStreamId, data };
    this.#life.drain("goaway");
    // Node destroys the session, and with it the streams, for any code but 0.
    if (code !== constants.NGHTTP2_NO_ERROR) this.#life.markClosed("goaway");
  }

  readonly #lost = (): void => this.#life.markClosed("died");

  /** A session that Node destroys fails its streams before it says so itself. */
  readonly #streamFailed = (): void => {
    if (this.session.destroyed) this.#lost();
  };

  readonly #streamClosed = (): void => {
    this.#streamFailed();
    this.#life.streamEnded();
    if (this.#life.streams === 0) this.#holdProcess();
  };

  #readLimit(): void {
    const limit = this.session.remoteSettings.maxConcurrentStreams ?? unlimited;
    const usual = this.#mostStreams === Number.POSITIVE_INFINITY ? usualMaxStreams : this.#mostStreams;
    this.#peerMaxStreams = limit === unlimited ? usual : limit;
  }

  #holdProcess(): void {
    const { state } = this.#life;
    if (this.socket.destroyed || state === "ending" || state === "closed") return;
    if (this.#held || this.#life.streams > 0) this.socket.ref();
    else this.socket.unref();
  }
}

/**
 * A stream's `close`, which destroys it a turn of the event loop after it was reset. A reset that happens inside Node's own HTTP/2 code is put
 * off there, and can be forgotten: the stream is closed then, and its `close` event never comes. Destroying it sends what
 * was put off.
 *
 * @see https://github.com/nodejs/node/blob/v20.20.0/src/node_http2.cc (`Http2Stream::SubmitRstStream`, `Destroy`)
 */
function closeAndDestroy(
  this: ClientHttp2Stream,
  code: number = constants.NGHTTP2_NO_ERROR,
  callback?: () => void,
): void {
  Object.getPrototypeOf(this).close.call(this, code, callback);
  if (code !== constants.NGHTTP2_NO_ERROR) setImmediate(() => this.destroy());
}
