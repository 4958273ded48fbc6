export type { Goaway, Http2Conn } from "../net/http2.ts";
export { dialHttp2, type Http2DialOptions } from "../net/http2-dial.ts";
export { pooledSession, type SessionManager } from "./session.ts";
