/** Provokes each error that a call can end with, once. `npm run errors` prints all of them as a page. */

import { Client, credentials } from "@grpc/grpc-js";
import { dialHttp2, pooledSession } from "../src/connect/index.ts";
import type { CallOptions, Conn } from "../src/contract.ts";
import type { DrpcConn } from "../src/drpc/index.ts";
import { dialGrpc, type GrpcConn, pooledChannel } from "../src/grpc/index.ts";
import type { AcquireOptions, PoolOptions } from "../src/options.ts";
import { Pool } from "../src/pool/pool.ts";
import { FakeClock, settle } from "../src/testing/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../src/testing/conn.ts";
import { outcome, reasonOf } from "./support/outcome.ts";
import { peer } from "./support/peer.ts";
import { connect, packet } from "./support/wire.ts";

/** One error on the page. */
export interface Told {
  readonly when: string;
  readonly error: Error & { readonly code?: string | number };
}

interface Closing {
  close(options: { graceMs: number }): Promise<unknown>;
}

/** What is to be closed when the page is complete: whoever still waits would keep the process. */
const opened: Closing[] = [];

function open<T extends Closing>(one: T): T {
  opened.push(one);
  return one;
}

type Options = PoolOptions<string, ScriptedConn>;

/** A pool on a clock of its own, with dials that the script settles. */
function world(options: Options = {}) {
  const clock = new FakeClock();
  const dial = scriptedDial({}, { manual: true, maxStreams: 1 });
  const pool = open(new Pool<string, ScriptedConn>({ clock, dial, name: "nodes", ...options }));
  const ask = (key: string, request?: AcquireOptions<string, ScriptedConn>) => {
    const asked = pool.acquire(key, request);
    asked.catch(() => {});
    return asked;
  };
  return {
    clock,
    dial,
    pool,
    ask,
    lease: async (key: string) => {
      const asked = ask(key);
      await clock.advance(0);
      dial.pending.at(-1)?.arrive();
      return asked;
    },
  };
}

const key = "10.0.0.7:7777";
const other = "10.0.0.8:7777";
const refused = () => Object.assign(new Error("connect ECONNREFUSED 10.0.0.7:7777"), { code: "ECONNREFUSED" });
const hello = Buffer.from("hello");
const insecure = credentials.createInsecure();

async function waitTimeout(options: Options, busy: readonly string[], request: AcquireOptions<string, ScriptedConn>) {
  const { clock, ask, lease } = world(options);
  for (const one of busy) await lease(one);
  const asked = ask(key, { timeoutMs: 1500, ...request });
  await clock.advance(1500);
  return reasonOf(asked);
}

/** A call through a pool of one DRPC conn, which another call holds until `first` lets it go. */
async function drpc(
  run: (conn: DrpcConn, far: ReturnType<typeof connect>["far"]) => Promise<unknown>,
): Promise<unknown> {
  const { conn, far } = connect();
  open(conn);
  return reasonOf(run(conn, far));
}

function grpcCall(pool: Pool<string, GrpcConn>, address: string): Promise<unknown> {
  const client = new Client("unused", insecure, { channelOverride: pooledChannel(pool, address) });
  const same = (bytes: Buffer): Buffer => bytes;
  const ended = new Promise((resolve, reject) => {
    client.makeUnaryRequest("/test.Echo/Unary", same, same, hello, (error: unknown, answer: unknown) =>
      error === null ? resolve(answer) : reject(error),
    );
  });
  return reasonOf(ended);
}

const provoked: Readonly<Record<string, () => Promise<unknown>>> = {
  "WaitTimeoutError: the key is at maxKeyConns": () => waitTimeout({ maxKeyConns: 1 }, [key], {}),
  "WaitTimeoutError: other keys hold maxConns": () => waitTimeout({ maxConns: 1 }, [other], {}),
  "WaitTimeoutError: by waitTimeoutMs, the dial hangs": () =>
    waitTimeout({ waitTimeoutMs: 1500 }, [], { timeoutMs: undefined }),
  "WaitTimeoutError: the key fails, and the caller waits until it is ready": async () => {
    const { clock, dial, ask } = world({ backoff: { baseMs: 1e6, maxMs: 1e6 } });
    const asked = ask(key, { timeoutMs: 1500, waitForReady: true });
    await clock.advance(300);
    dial.pending[0]?.fail(refused());
    await clock.advance(1200);
    return reasonOf(asked);
  },
  "WaitTimeoutError: the key is an object, with a secret": async () => {
    const clock = new FakeClock();
    const peerOf = { address: key, token: "s3cret" };
    const dial = () => new Promise<ScriptedConn>(() => {});
    const pool = open(new Pool({ clock, dial, hashKey: ({ address }: typeof peerOf) => address }));
    const asked = pool.acquire(peerOf, { timeoutMs: 1500 });
    asked.catch(() => {});
    await clock.advance(1500);
    return reasonOf(asked);
  },
  "WaitTimeoutError: the conn is blocked": async () => {
    const { clock, ask, lease } = world({ maxKeyConns: 1 });
    const held = await lease(key);
    held.conn.blockedUntil = new Promise(() => {});
    const asked = ask(key, { timeoutMs: 1500 });
    await clock.advance(500);
    held.release();
    await clock.advance(1000);
    return reasonOf(asked);
  },
  "WaitTimeoutError: the time was over before": () => reasonOf(world().pool.acquire(key, { timeoutMs: -20 })),
  "WaitTimeoutError: of warm": async () => {
    const { clock, pool } = world({ maxKeyConns: 2 });
    const warm = outcome(pool.warm(key, 2, { timeoutMs: 1500 }));
    await clock.advance(1500);
    return warm.error;
  },
  QueueFullError: async () => {
    const { pool, lease, ask } = world({ maxKeyConns: 1, maxWaiters: 1 });
    await lease(key);
    void ask(key);
    return reasonOf(pool.acquire(key));
  },
  DialError: async () => {
    const { clock, dial, ask } = world();
    const asked = ask(key);
    await clock.advance(40);
    dial.pending[0]?.fail(refused());
    return reasonOf(asked);
  },
  "DialError: final": async () => {
    const { dial, ask } = world();
    const asked = ask(key);
    await settle();
    dial.pending[0]?.fail(Object.assign(new Error("certificate has expired"), { final: true }));
    return reasonOf(asked);
  },
  "DialError: a backoff runs": async () => {
    const { pool, dial, ask } = world({ backoff: { baseMs: 1e6, maxMs: 1e6 } });
    const first = ask(key);
    await settle();
    dial.pending[0]?.fail(refused());
    await reasonOf(first);
    return reasonOf(pool.acquire(key));
  },
  DialTimeoutError: async () => {
    const { clock, ask } = world({ dialTimeoutMs: 1000 });
    const asked = ask(key);
    await clock.advance(1000);
    return reasonOf(asked);
  },
  NoConnError: () => reasonOf(world({ dial: undefined }).pool.acquire(key)),
  NoMatchError: async () => {
    const { pool } = world({ dial: undefined });
    pool.put(key, new ScriptedConn({ tags: { zone: "a" } }));
    return reasonOf(pool.acquire(key, { filter: (conn) => conn.tags?.["zone"] === "b" }));
  },
  "NoMatchError: the filter throws": async () => {
    const { pool } = world({ dial: undefined });
    pool.put(key, new ScriptedConn());
    const filter = (): boolean => {
      throw new Error("zone is not defined");
    };
    return reasonOf(pool.acquire(key, { filter }));
  },
  PoolClosedError: async () => {
    const { pool } = world();
    await pool.close();
    return reasonOf(pool.acquire(key));
  },
  "PoolClosedError: while it waited": async () => {
    const { clock, pool, ask, lease } = world({ maxKeyConns: 1 });
    await lease(key);
    const asked = ask(key);
    await clock.advance(700);
    void pool.close();
    return reasonOf(asked);
  },
  "ConnClosedError: the handle was closed": async () => {
    const pool = open(new Pool<string, Conn>({ dial: scriptedDial() }));
    const handle = pool.get(key);
    await handle.close();
    return reasonOf(handle.invoke(echo, "hello"));
  },
  "PoolTypeError: an unknown option": async () => {
    try {
      return new Pool(Object.assign({ name: "nodes" }, { maxConnections: 5 }));
    } catch (error) {
      return error;
    }
  },
  "PoolRangeError: a wrong value": async () => {
    try {
      return new Pool({ dialTimeoutMs: -1 });
    } catch (error) {
      return error;
    }
  },
  "gRPC: the queue is full": () =>
    grpcCall(open(new Pool({ dial: dialGrpc(insecure), maxConns: -1, maxWaiters: -1 })), key),
  "gRPC: no connection in time": () =>
    grpcCall(open(new Pool({ dial: dialGrpc(insecure), maxConns: -1, waitTimeoutMs: 20 })), key),
  "gRPC: the dial failed": () => grpcCall(open(new Pool({ dial: dialGrpc(insecure) })), "127.0.0.1:1"),
  "Connect: the queue is full": () => {
    const pool = open(new Pool({ dial: dialHttp2(), maxConns: -1, maxWaiters: -1 }));
    return reasonOf(pooledSession(pool, "http://10.0.0.7:8080").request("POST", "/test.Echo/Unary", {}, {}));
  },
  "Connect: no connection in time": () => {
    const pool = open(new Pool({ dial: dialHttp2(), maxConns: -1 }));
    const headers = { "connect-timeout-ms": "20" };
    return reasonOf(pooledSession(pool, "http://10.0.0.7:8080").request("POST", "/test.Echo/Unary", headers, {}));
  },
  "DRPC: the server's error": () =>
    drpc(async (conn, far) => {
      const answer = conn.invoke(peer.echo, hello);
      await far.got(2);
      far.send(packet("error", 1, 1, Buffer.from("\0\0\0\0\0\0\0\x05no such piece", "latin1")));
      return answer;
    }),
  "DRPC: not over in time": () => drpc((conn) => conn.invoke(peer.echo, hello, { timeoutMs: 5 })),
  "DRPC: not over in time, after it waited": async () => {
    const { conn } = connect();
    const clock = new FakeClock();
    const pool = open(new Pool<string, Conn>({ clock, dial: () => conn, maxKeyConns: 1 }));
    const lease = await pool.acquire(key);
    const call: CallOptions = { timeoutMs: 500 };
    const called = pool.get(key).invoke(peer.echo, hello, call);
    await clock.advance(495);
    lease.release();
    return reasonOf(called);
  },
  "DRPC: a second RPC on a conn": () =>
    drpc(async (conn) => {
      outcome(conn.invoke(peer.echo, hello));
      return conn.invoke(peer.echo, hello);
    }),
  "DRPC: the conn was closed under the RPC": () =>
    drpc(async (conn) => {
      const answer = conn.invoke(peer.echo, hello);
      answer.catch(() => {});
      await conn.close();
      return answer;
    }),
  "DRPC: the peer broke the protocol": () =>
    drpc(async (conn, far) => {
      const answer = conn.invoke(peer.echo, hello);
      answer.catch(() => {});
      far.send(packet("message", 9, 1, "what?"));
      return answer;
    }),
};

/** All errors, in the order of the page. */
export async function provokeAll(): Promise<Told[]> {
  const page: Told[] = [];
  for (const [when, provoke] of Object.entries(provoked)) {
    const error = await provoke();
    if (!(error instanceof Error)) throw new Error(`${when}: it did not fail`);
    page.push({ when, error });
  }
  for (const one of opened.splice(0)) void one.close({ graceMs: 0 }).catch(() => {});
  return page;
}

export function textOf({ when, error }: Told): string {
  const { cause } = error;
  const because = cause instanceof Error ? `\n    cause: ${cause.name}: ${cause.message}` : "";
  const code = error.code === undefined ? "" : ` [${error.code}]`;
  return `${when}\n    ${error.name}${code}: ${error.message}${because}`;
}

if (process.argv[1] === import.meta.filename) console.log((await provokeAll()).map(textOf).join("\n\n"));
