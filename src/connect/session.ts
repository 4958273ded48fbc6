import type { ClientHttp2Stream, ClientSessionRequestOptions, OutgoingHttpHeaders } from "node:http2";
import type { Http2Conn } from "../net/http2.ts";
import { parseOrigin } from "../net/http2-dial.ts";
import type { Pool } from "../pool/pool.ts";

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

/** After a request's own time, so that Connect's timer is the first to speak. */
const graceMs = 100;

const unitsMs: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/**
 * The time that a request has, as its headers tell it: a session manager gets no signal. gRPC, gRPC-web and Connect.
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
 * `createGrpcTransport({ baseUrl, sessionManager: pooledSession(pool, baseUrl) })`.
 *
 * Each request takes a slot on a conn of `baseUrl`'s origin, and gives it back when its stream has closed. One that waits
 * for a slot leaves the queue when its timeout is over; one that is aborted rejects at once, but keeps its place in the
 * queue, as Connect tells a session manager of no abort: its stream is reset as soon as it is opened. The pool
 * needs a `dial` of its own, such as `dialHttp2()`. Throws a `PoolTypeError` for a `baseUrl` that is not `http:` or
 * `https:`.
 */
export function pooledSession(pool: Pool<string, Http2Conn>, baseUrl: string): SessionManager {
  const authority = parseOrigin(baseUrl).origin;
  return {
    authority,
    async request(method, path, headers, options) {
      const timeoutMs = timeoutOf(headers);
      let lease = pool.tryAcquire(authority) ?? (await pool.acquire(authority, { timeoutMs }));
      // A conn may begin to leave in the tick in which the pool hands it out: nothing is sent on such a one.
      while (lease.conn.draining) {
        lease.release();
        lease = await pool.acquire(authority, { timeoutMs });
      }
      try {
        const stream = lease.conn.request({ ...headers, ":method": method, ":path": path }, options);
        stream.once("close", () => lease.release());
        return stream;
      } catch (error) {
        lease.release();
        throw error;
      }
    },
    // Connect's own manager takes it for a sign of life.
    notifyResponseByteRead() {},
  };
}
