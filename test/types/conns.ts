/** Pools of other things than RPC conns, pools that are passed around, and the two kinds of `using`. */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Conn, Lease, PoolConn, PoolStats, Rpc } from "rpc-conn-pool";
import { isPoolError, Pool, PoolError, type SocketConn, socketConn } from "rpc-conn-pool";

/** Anything with `close` and `closed`. */
class Wire implements PoolConn {
  readonly socket: Socket;
  readonly closed: Promise<void>;

  constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  close(): void {
    this.socket.destroy();
  }
}

export async function wires(signal: AbortSignal | undefined): Promise<PoolStats> {
  await using pool = new Pool<number, Wire>({ dial: (port) => new Wire(connect(port)), maxStreams: 1 });
  using lease = await pool.acquire(80, { signal, filter: (conn, info) => conn.socket.writable && info.uses < 10 });
  lease.conn.socket.write("hello");
  const bytes: number = await pool.use(80, async (conn) => conn.socket.bytesRead);
  console.log(bytes);
  const tried: Lease<Wire> | undefined = pool.tryAcquire(80);
  tried?.release();
  // @ts-expect-error conns that carry no RPCs are acquired, not got
  pool.get(80);
  return pool.stats();
}

export async function sockets(): Promise<void> {
  await using pool = new Pool<string, SocketConn>({ dial: (host) => socketConn(connectTls({ host, port: 443 })) });
  using lease = await pool.acquire("example.org");
  lease.conn.socket.write("hello");
  // @ts-expect-error a socket is no conn
  pool.put("example.org", connect(80));
  // @ts-expect-error nor does a dial bring one
  await pool.acquire("example.org", { dial: () => connect(80) });
}

interface Tagged extends Conn {
  readonly tags: { readonly zone: string };
}
const ping: Rpc<string, string> = {
  path: "/Echo/Ping",
  requestSerialize: (text) => Buffer.from(text),
  responseDeserialize: (bytes) => bytes.toString(),
};

/** A wrapper that knows of a conn only that it carries RPCs. */
export async function wrapped<C extends Conn>(pool: Pool<string, C>, key: string): Promise<C> {
  using lease = await pool.acquire(key);
  await lease.conn.invoke(ping, "hello");
  await pool.use(key, (conn) => conn.invoke(ping, "hello"));
  await pool.get(key).invoke(ping, "hello");
  return lease.conn;
}

export async function special(): Promise<string> {
  const pool = new Pool<string, Tagged>();
  const conn = await wrapped(pool, "host:1");
  const near = pool.get("host:1", { filter: (one) => one.tags.zone === "near" });
  await near.invoke(ping, "hello");
  // @ts-expect-error a filter sees the pool's own kind of conn
  pool.get("host:1", { filter: (one) => one.tags.region === "near" });
  return conn.tags.zone;
}

/** Object keys, and a conn that is a class of the user's. */
export class Client implements AsyncDisposable {
  readonly #pool = new Pool<{ readonly host: string; readonly token: string }>({
    hashKey: ({ host, token }) => `${host} ${token}`,
  });

  call(host: string, dial: () => Promise<Conn>): Promise<string> {
    return this.#pool.get({ host, token: "secret" }, dial).invoke(ping, "hello");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#pool.close();
  }
}

export function codeOf(error: unknown): string {
  if (error instanceof PoolError) return error.code;
  return isPoolError(error) ? error.code : "unknown";
}
