export type { Goaway, Http2Conn } from "../net/http2.ts";
export { dialHttp2, type Http2DialOptions } from "../net/http2-dial.ts";
export { type Http2Peer, type Http2Peers, http2Peers } from "../net/http2-peers.ts";
export { type PooledSession, pooledSession, type SessionManager } from "./session.ts";
