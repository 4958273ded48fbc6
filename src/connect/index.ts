export type { Http2Conn } from "./conn.ts";
export { dialHttp2, type Http2DialOptions } from "./dial.ts";
export { pooledSession, type SessionManager } from "./session.ts";
