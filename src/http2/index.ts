/**
 * HTTP/2 sessions as a pool holds them, without any RPC protocol.
 *
 * @example
 * ```ts
 * import { Pool } from "rpc-conn-pool";
 * import { dialHttp2 } from "rpc-conn-pool/http2";
 *
 * await using pool = new Pool({ dial: dialHttp2(), maxKeyConns: 4 });
 * const status = await pool.use("http://localhost:50051", async (session) => {
 *   const request = session.request({ ":path": "/" });
 *   return new Promise((resolve) => request.once("response", (headers) => resolve(headers[":status"])));
 * });
 * console.log(status); // 415
 * ```
 *
 * @module
 */
export type { TlsOptions } from "../net/address.ts";
export type { Goaway, Http2Conn, Http2ConnOptions } from "../net/http2.ts";
export { dialHttp2, type Http2DialOptions } from "../net/http2-dial.ts";
export { type Http2Peer, type Http2Peers, http2Peers } from "../net/http2-peers.ts";
