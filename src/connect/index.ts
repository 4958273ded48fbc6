/**
 * A session manager for Connect's transports over a pool of HTTP/2 sessions.
 *
 * @example
 * ```ts
 * import { createClient } from "@connectrpc/connect";
 * import { createGrpcTransport } from "@connectrpc/connect-node";
 * import { Pool } from "rpc-conn-pool";
 * import { dialHttp2, pooledSession } from "rpc-conn-pool/connect";
 * import { Greeter } from "./gen/greeter_pb.js";
 *
 * const baseUrl = "http://localhost:50051";
 * const sessionManager = pooledSession(new Pool({ dial: dialHttp2(), maxKeyConns: 10 }), baseUrl);
 * const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors: [sessionManager.interceptor] });
 * const { message } = await createClient(Greeter, transport).sayHello({ name: "Ada" });
 * console.log(message); // hello, Ada
 * ```
 *
 * @module
 */
export type { Goaway, Http2Conn } from "../net/http2.ts";
export { dialHttp2, type Http2DialOptions } from "../net/http2-dial.ts";
export { type Http2Peer, type Http2Peers, http2Peers } from "../net/http2-peers.ts";
export { type PooledSession, pooledSession, type SessionManager } from "./session.ts";
