import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  ClientSessionRequestOptions,
  OutgoingHttpHeaders,
} from "node:http2";
import { constants } from "node:http2";
import type { Socket } from "node:net";
import type { PoolConn } from "../contract.ts";
import { lingerMs, usualMaxStreams } from "../net/http2.ts";

/** HTTP/2's word for no limit. */
const unlimited = 2 ** 32 - 1;

/** One HTTP/2 session. It leaves at a GOAWAY: no new stream, and it closes when its last one has ended. */
export class Http2Conn implements PoolConn {
  readonly session: ClientHttp2Session;
  /** Settles when the conn has closed, before the streams that die with it fail. */
  readonly closed: Promise<void>;

  readonly #socket: Socket;
  readonly #maxStreams: number;
  readonly #listeners: (() => void)[] = [];
  #state: "ready" | "leaving" | "closed" = "ready";
  #running = 0;
  #markClosed!: () => void;

  /** @internal Of a session whose settings have come. */
  constructor(session: ClientHttp2Session, socket: Socket, maxStreams: number | undefined) {
    this.session = session;
    this.#socket = socket;
    this.#maxStreams = maxStreams ?? Number.POSITIVE_INFINITY;
    this.closed = new Promise((resolve) => {
      this.#markClosed = resolve;
    });
    // Before the session's own listeners, which fail the streams.
    socket.prependListener("error", this.#gone).prependListener("close", this.#gone);
    session.on("error", this.#gone).on("close", this.#gone);
    session.on("goaway", () => this.#leave());
    session.on("remoteSettings", () => this.#tellListeners());
    session.unref();
  }

  /** How many streams may run at once: what the peer allows, 100 where it sets no limit, at most what was configured. */
  get maxStreams(): number {
    const limit = this.session.destroyed ? 0 : (this.session.remoteSettings.maxConcurrentStreams ?? unlimited);
    return Math.min(this.#maxStreams, limit === unlimited ? usualMaxStreams : limit);
  }

  /** True once a GOAWAY has come or the connection is lost. */
  get draining(): boolean {
    return this.#state !== "ready";
  }

  /** Calls `listener` when `draining` or `maxStreams` has changed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Opens a stream. While one runs, the conn holds the process. Throws when the session takes none any more. */
  request(headers: OutgoingHttpHeaders, options?: ClientSessionRequestOptions): ClientHttp2Stream {
    const stream = this.session.request(headers, options);
    if (++this.#running === 1) this.session.ref();
    stream.once("close", () => this.#ended());
    return stream;
  }

  /** Closes the conn; streams that still run are cancelled. Idempotent. */
  close(): Promise<void> {
    if (this.#state !== "closed") {
      this.#gone();
      if (this.#running > 0) this.session.destroy(undefined, constants.NGHTTP2_CANCEL);
      else this.session.close();
      setTimeout(() => this.#socket.destroy(), lingerMs).unref();
    }
    return this.closed;
  }

  #ended(): void {
    if (--this.#running > 0) return;
    if (!this.session.destroyed) this.session.unref();
    if (this.#state === "leaving") void this.close();
  }

  #leave(): void {
    if (this.#state !== "ready") return;
    this.#state = "leaving";
    this.#tellListeners();
    if (this.#running === 0) void this.close();
  }

  readonly #gone = (): void => {
    this.#state = "closed";
    this.#markClosed();
  };

  #tellListeners(): void {
    for (const listener of this.#listeners) listener();
  }
}
