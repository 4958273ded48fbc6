import { AsyncLocalStorage } from "node:async_hooks";
import {
  type ClientHttp2Stream,
  type ClientSessionRequestOptions,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import type { Http2Conn } from "../net/http2.ts";
import { parseOrigin } from "../net/http2-dial.ts";
import type { Http2Peer } from "../net/http2-peers.ts";
import type { Pool } from "../pool/pool.ts";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { systemWallNow } from "../runtime/clock.ts";
import { refusalOf } from "./error.ts";

/** The `NodeHttp2ClientSessionManager` of `@connectrpc/connect-node` 2.x, without importing it. */
export interface SessionManager {
  authority: string;
  request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream>;
  notifyResponseByteRead(stream: ClientHttp2Stream): void;
}

/** What `pooledSession` returns: a session manager, and an interceptor that tells it of aborts. */
export interface PooledSession extends SessionManager {
  /**
   * Put it into the transport's `interceptors`, and a request that is aborted while it waits for a slot leaves the pool's
   * queue at once. Without it, the request keeps its place, as Connect tells a session manager of no signal.
   */
  readonly interceptor: <R extends { readonly signal: AbortSignal }, A>(
    next: (request: R) => Promise<A>,
  ) => (request: R) => Promise<A>;
}

/** How Connect resets a stream: at an abort, and at a deadline. */
const givenUp: ReadonlySet<number | undefined> = new Set([constants.NGHTTP2_CANCEL, constants.NGHTTP2_INTERNAL_ERROR]);

/** After a request's own time, so that Connect's timer is the first to speak. */
const graceMs = 100;

const unitsMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/**
 * The time that a request has, as its headers tell it. gRPC, gRPC-web and Connect.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
 * @see https://connectrpc.com/docs/protocol#unary-request
 */
function timeoutOf(headers: OutgoingHttpHeaders): number | undefined {
  const [, digits, unit = ""] = /^(\d{1,8})([HMSmun])$/.exec(String(headers["grpc-timeout"])) ?? [];
  const timeoutMs = Number(digits ?? headers["connect-timeout-ms"]) * (unitsMs[unit] ?? 1);
  return timeoutMs >= 0 ? timeoutMs + graceMs : undefined;
}

/**
 * A session manager for Connect's transports over a pool:
 *
 * ```ts
 * const sessionManager = pooledSession(pool, baseUrl);
 * createGrpcTransport({ baseUrl, sessionManager, interceptors: [sessionManager.interceptor] });
 * ```
 *
 * `key` is the transport's `baseUrl`, for a pool that `dialHttp2()` dials for; or an `Http2Peer`, for one of `http2Peers()`.
 * The pool needs a `dial` of its own. Each request takes a slot on a conn of the key, and gives it back a turn of the event
 * loop after its stream has closed. One that waits for a slot leaves the queue when its timeout is over, and, with
 * `interceptor`, when it is aborted. What the pool refuses rejects with a `ConnectError` whose `cause` is the pool's error:
 * DeadlineExceeded when no slot was free in time, ResourceExhausted when the queue is full, Unavailable for what else can
 * happen while a program runs (a failed dial, a closed pool).
 *
 * @throws PoolTypeError for a `baseUrl` that is not `http:` or `https:`.
 */
export function pooledSession<K extends string | Http2Peer>(pool: Pool<K, Http2Conn>, key: K): PooledSession {
  const authority = parseOrigin(typeof key === "string" ? key : key.origin).origin;
  const poolKey = typeof key === "string" ? (authority as K) : key;
  const signals = new AsyncLocalStorage<AbortSignal>();

  async function open(headers: OutgoingHttpHeaders, options: ClientSessionRequestOptions): Promise<ClientHttp2Stream> {
    const signal = signals.getStore();
    let lease = pool.tryAcquire(poolKey);
    const timeoutMs = lease?.conn.draining === false ? undefined : timeoutOf(headers);
    const deadline = timeoutMs === undefined ? undefined : systemWallNow() + timeoutMs; // one for all that it waits
    // A conn may begin to leave in the tick in which the pool hands it out: nothing is sent on such a one.
    while (lease === undefined || lease.conn.draining) {
      lease?.release();
      lease = await pool.acquire(poolKey, { deadline, signal });
    }
    try {
      const slot = lease;
      let isAnswered = false;
      const stream = lease.conn.request(headers, options, () => {
        // Before anything has come of an answer.
        if (givenUp.has(stream.rstCode) && !isAnswered) slot.release({ unanswered: true });
        else slot.release();
      });
      stream.once("response", () => {
        isAnswered = true;
      });
      if (signal !== undefined) endAtAbort(stream, signal);
      return stream;
    } catch (error) {
      lease.release();
      throw error;
    }
  }

  return {
    authority,
    async request(method, path, headers, options) {
      try {
        return await open({ ...headers, ":method": method, ":path": path }, options);
      } catch (error) {
        throw refusalOf(error);
      }
    },
    // What Connect has read has come by the conn's socket, whose `bytesRead` counts it as a sign of life when it comes. A
    // slow reader's buffer is none: it may be read long after the peer has died.
    notifyResponseByteRead() {},
    interceptor: (next) => (request) => signals.run(request.signal, next, request),
  };
}

/**
 * Connect leaves a stream alone that the peer has ended, although a response that nobody will read any more keeps it from
 * closing, and its slot from being given back.
 */
function endAtAbort(stream: ClientHttp2Stream, signal: AbortSignal): void {
  const watcher = {
    onAbort: () => setImmediate(() => stream.closed && stream.destroy()),
  };
  watchAbort(signal, watcher);
  stream.once("close", () => unwatchAbort(signal, watcher));
}
