import type { ClientHttp2Stream, ClientSessionRequestOptions, OutgoingHttpHeaders } from "node:http2";
import type { Pool } from "../pool.ts";
import type { Http2Conn } from "./conn.ts";
import { originOf } from "./dial.ts";

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

/**
 * A session manager for Connect's transports over a pool:
 * `createGrpcTransport({ baseUrl, sessionManager: pooledSession(pool, baseUrl) })`.
 *
 * Each request takes a slot on a conn of `baseUrl`'s origin, and gives it back when its stream has closed. The pool
 * needs a `dial` of its own, such as `dialHttp2()`. Throws a `PoolTypeError` for a `baseUrl` that is not `http:` or
 * `https:`.
 */
export function pooledSession(pool: Pool<string, Http2Conn>, baseUrl: string): SessionManager {
  const authority = originOf(baseUrl).origin;
  return {
    authority,
    async request(method, path, headers, options) {
      let lease = pool.tryAcquire(authority) ?? (await pool.acquire(authority));
      // A conn may begin to leave in the tick in which the pool hands it out: nothing is sent on such a one.
      while (lease.conn.draining) {
        lease.release();
        lease = await pool.acquire(authority);
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
