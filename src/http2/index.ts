/**
 * HTTP/2 sessions as a pool holds them, without any RPC protocol: `new Pool({ dial: dialHttp2() })`.
 *
 * @module
 */
export type { TlsOptions } from "../net/address.ts";
export type { Goaway, Http2Conn, Http2ConnOptions } from "../net/http2.ts";
export { dialHttp2, type Http2DialOptions } from "../net/http2-dial.ts";
export { type Http2Peer, type Http2Peers, http2Peers } from "../net/http2-peers.ts";
