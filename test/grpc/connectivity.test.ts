import assert from "node:assert/strict";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { describe, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  type Channel,
  Client,
  connectivityState,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
} from "@grpc/grpc-js";
import { dialGrpc, type GrpcConn, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, until } from "../support/clock.ts";
import { startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { startRaw } from "../support/raw-grpc.ts";

const insecure = credentials.createInsecure();
const { IDLE, CONNECTING, READY, TRANSIENT_FAILURE, SHUTDOWN } = connectivityState;
const never = Number.POSITIVE_INFINITY;

function ready(channel: Channel, timeoutMs = 5_000): Promise<void> {
  const client = new Client("not used", insecure, { channelOverride: channel });
  return new Promise((resolve, reject) =>
    client.waitForReady(Date.now() + timeoutMs, (error) => (error ? reject(error) : resolve())),
  );
}

/** Resolves with the state that `channel` has when it leaves `current`. */
function left(channel: Channel, current: connectivityState): Promise<connectivityState> {
  return new Promise((resolve, reject) =>
    channel.watchConnectivityState(current, never, (error) =>
      error ? reject(error) : resolve(channel.getConnectivityState(false)),
    ),
  );
}

/** Every state of a channel from now on, for as long as it is watched. */
function record(channel: Channel): string[] {
  const states: string[] = [];
  const look = (): void => {
    const state = channel.getConnectivityState(false);
    states.push(connectivityState[state]);
    if (state !== SHUTDOWN) channel.watchConnectivityState(state, never, look);
  };
  look();
  return states;
}

/** A port that refuses connections, until a server comes to it. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Resolves when `pool` has a conn of `key` that runs a call without an end. */
async function busy(pool: Pool<string, GrpcConn>, key: string): Promise<() => void> {
  const lease = await pool.acquire(key);
  return () => lease.release();
}

describe("the state of a pooled channel", () => {
  test("becomes READY for every client that waits for it", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const channels = Array.from({ length: 3 }, () => pooledChannel(pool, echo.address));
    await Promise.all(channels.map((channel) => ready(channel)));
    await ready(pooledChannel(pool, echo.address));
    assert.equal(pool.stats().dials, 1);
  });

  test("becomes READY soon after a server has come that was not there", { timeout: 60_000 }, async () => {
    const port = await freePort();
    await using pool = new Pool({ dial: dialGrpc(insecure), backoff: { baseMs: 20, maxMs: 100 } });
    const channel = pooledChannel(pool, `127.0.0.1:${port}`);
    const states = record(channel);
    const waiting = ready(channel);
    await until(() => pool.stats().dialErrors > 2, "it is dialed again and again");
    const server = new Server();
    await new Promise<void>((resolve, reject) =>
      server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      ),
    );
    await waiting;
    assert.deepEqual(states, ["IDLE", "CONNECTING", "TRANSIENT_FAILURE", "READY"]);
    server.forceShutdown();
  });

  test("stays TRANSIENT_FAILURE until a conn comes, and is dialed for only while somebody watches", async () => {
    const key = `127.0.0.1:${await freePort()}`;
    await using pool = new Pool({ dial: dialGrpc(insecure), backoff: { baseMs: 5, maxMs: 5 } });
    const channel = pooledChannel(pool, key);
    await assert.rejects(ready(channel, 1_000), { message: "Failed to connect before the deadline" });
    assert.equal(channel.getConnectivityState(false), TRANSIENT_FAILURE);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const { dials, dialing } = pool.stats();
    assert.equal(dialing, 0);
    assert.ok(dials > 2, `${dials} dials`);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(pool.stats().dials, dials);
  });

  test("is worked for at gRPC's pace, where the pool has no backoff, unless others keep it to its own", async () => {
    const clock = new FakeClock();
    const counts = { call: 0, watch: 0 };
    const dial = (key: string): Promise<GrpcConn> => {
      counts[key === "call" ? key : "watch"]++;
      return Promise.reject(new Error("refused"));
    };
    await using pool = new Pool({ dial, clock });
    const channels = ["call", "watch"].map((key) => pooledChannel(pool, key));
    const [calls, watched] = channels;
    assert.ok(calls !== undefined && watched !== undefined);
    const metadata = new Metadata({ waitForReady: true });
    calls.createCall("/test.Echo/Unary", never, undefined, null, undefined).start(metadata, {
      onReceiveMetadata: () => {},
      onReceiveMessage: () => {},
      onReceiveStatus: () => {},
    });
    watched.watchConnectivityState(IDLE, never, () => watched.watchConnectivityState(CONNECTING, never, again));
    const again = (): void => watched.watchConnectivityState(TRANSIENT_FAILURE, never, () => {});
    watched.getConnectivityState(true);
    const dials = () => Object.values(counts);
    const pass = async (ms: number) => {
      for (let left = ms; left > 0; left -= 50) await clock.advance(Math.min(left, 50));
    };
    await pass(799);
    assert.deepEqual(dials(), [1, 1]);
    await pass(401);
    assert.deepEqual(dials(), [2, 2]);
    await pass(800); // the pauses began after 800 to 1,200 ms, and are 1,280 to 1,920 ms long
    assert.deepEqual(dials(), [2, 2]);
    await pass(1_120);
    assert.deepEqual(dials(), [3, 3]);
    const abort = new AbortController();
    const others = rejection(pool.acquire("call", { waitForReady: true, signal: abort.signal }));
    await pass(10_000);
    assert.ok(counts.call > 10);
    abort.abort();
    await others;
    for (const channel of channels) channel.close();
    await clock.advance(500_000);
    assert.deepEqual([...pool.keys()], []);
  });

  test("leaves READY when the last conn closes, whichever was used last, and says so once", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 1 }), selection: "newest" });
    const channel = pooledChannel(pool, echo.address);
    const leases = [await pool.acquire(echo.address), await pool.acquire(echo.address)];
    let told = 0;
    channel.watchConnectivityState(READY, never, () => told++);
    const [first, last] = leases.map((lease) => lease.conn);
    for (const lease of leases) lease.release();
    await last?.close();
    await until(() => pool.stats().open === 1, "the last used conn has closed");
    assert.equal(told, 0);
    await first?.close();
    await until(() => told > 0, "the watcher is told");
    assert.equal(channel.getConnectivityState(false), IDLE);
    await pool.close();
    assert.equal(told, 1);
  });

  test("leaves READY at a GOAWAY, though calls run on", async () => {
    await using raw = await startRaw(() => {});
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const channel = pooledChannel(pool, raw.address);
    const release = await busy(pool, raw.address);
    const watched = left(channel, READY);
    for (const session of raw.sessions) session.goaway(0);
    assert.equal(await watched, IDLE);
    release();
  });

  test("is told once to a watcher when the pool closes", async () => {
    await using echo = await startEcho();
    const pool = new Pool({ dial: dialGrpc(insecure) });
    const channel = pooledChannel(pool, echo.address);
    await ready(channel);
    const states = record(channel);
    await pool.close();
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(states, ["READY", "IDLE"]);
  });

  test("is seen to change by a view that makes no calls", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const states = record(pooledChannel(pool, echo.address));
    (await busy(pool, echo.address))();
    await until(() => states.includes("READY"), "it is ready");
    pool.clear();
    await until(() => states.length === 4, "it has gone");
    assert.deepEqual(states, ["IDLE", "CONNECTING", "READY", "IDLE"]);
  });

  test("that is past already is told at once, but not before watchConnectivityState returns", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const channel = pooledChannel(pool, echo.address);
    await ready(channel);
    for (const past of [IDLE, CONNECTING, TRANSIENT_FAILURE]) {
      let told = false;
      const watched = left(channel, past).then(() => {
        told = true;
      });
      assert.equal(told, false);
      await watched;
    }
    await assert.rejects(
      new Promise<void>((resolve, reject) =>
        channel.watchConnectivityState(IDLE, Date.now() - 1, (error) => (error ? reject(error) : resolve())),
      ),
      { message: "Deadline passed without connectivity state change" },
    );
  });

  test("is watched in vain no longer than its deadline", async () => {
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const channel = pooledChannel(pool, "127.0.0.1:1");
    await assert.rejects(
      new Promise<void>((resolve, reject) =>
        channel.watchConnectivityState(IDLE, Date.now() + 20, (error) => (error ? reject(error) : resolve())),
      ),
      { message: "Deadline passed without connectivity state change" },
    );
  });
});

describe("closing a view of a pool", () => {
  test("ends its own attempt to connect, and tells its watchers", async () => {
    const sockets = new Set<Socket>();
    const silent = createServer((socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket)).on("error", () => {});
      socket.resume();
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => silent.once("listening", resolve));
    const key = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const channel = pooledChannel(pool, key);
    assert.equal(channel.getConnectivityState(true), IDLE);
    await until(() => sockets.size === 1, "it is dialed");
    const watched = left(channel, CONNECTING);
    channel.close();
    assert.equal(await watched, SHUTDOWN);
    await until(() => pool.stats().dialing === 0 && pool.stats().waiting === 0, "the dial is abandoned");
    await until(() => sockets.size === 0, "its socket is gone");
    silent.close();
  });

  test("leaves nothing of the view with the pool or its conns", { timeout: 60_000 }, async () => {
    setFlagsFromString("--expose-gc");
    const collect: () => void = runInNewContext("gc");
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const release = await busy(pool, echo.address);
    const view = async (): Promise<WeakRef<Channel>> => {
      const channel = pooledChannel(pool, echo.address);
      await ready(channel);
      const watched = left(channel, READY);
      channel.close();
      await watched;
      return new WeakRef(channel);
    };
    const views = await Promise.all([view(), view(), view()]);
    const gone = async (): Promise<boolean> => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      collect();
      return views.every((each) => each.deref() === undefined);
    };
    for (let tries = 0; !(await gone()); tries++) assert.ok(tries < 100, "a closed view is kept");
    release();
  });

  test("is told to a call that waits for ready, and to no other view", async () => {
    const key = `127.0.0.1:${await freePort()}`;
    await using pool = new Pool({ dial: dialGrpc(insecure), backoff: { baseMs: 5, maxMs: 5 } });
    const [one, other] = [pooledChannel(pool, key), pooledChannel(pool, key)];
    const waiting = rejection(ready(one));
    const others = rejection(ready(other, 100));
    await until(() => pool.stats().dialErrors > 0, "it fails");
    one.close();
    assert.equal(Object(await waiting).message, "The channel has been closed");
    assert.equal(Object(await others).message, "Failed to connect before the deadline");
  });
});
