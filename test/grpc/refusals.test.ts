import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type CallOptions, Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { dialGrpc, type GrpcConn, pooledChannel, statusOfPoolError } from "../../src/grpc/index.ts";
import { isPoolError, type Lease } from "../../src/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { type Answer, type Ask, echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";

const insecure = credentials.createInsecure();
const { path, requestSerialize, responseDeserialize } = echoService.unary;

function clientOf(pool: Pool<string, GrpcConn>, key: string): Client {
  return new Client("not used", insecure, { channelOverride: pooledChannel(pool, key) });
}

function call(client: Client, ask: Ask, options: CallOptions = {}): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, options, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

async function refusal(client: Client, options: CallOptions = {}): Promise<ServiceError> {
  return Object(await rejection(call(client, { text: "x" }, options)));
}

describe("a stub's call that the pool refuses", () => {
  test("is RESOURCE_EXHAUSTED where the queue is full, and carries the pool's error", async () => {
    await using echo = await startEcho();
    const dial = dialGrpc(insecure, {}, { maxStreams: 1 });
    await using pool = new Pool({ dial, maxKeyConns: 1, maxWaiters: 1 });
    const client = clientOf(pool, echo.address);
    const lease = await pool.acquire(echo.address);
    const waiting = call(client, { text: "waits" });
    const error = await refusal(client);
    assert.equal(error.code, status.RESOURCE_EXHAUSTED);
    assert.ok(isPoolError(error.cause));
    assert.equal(error.cause.code, "ERR_POOL_QUEUE_FULL");
    lease.release();
    assert.deepEqual(await waiting, { text: "waits" });
  });

  test("is DEADLINE_EXCEEDED where no conn came in time, its own or the pool's", async () => {
    await using echo = await startEcho();
    const dial = dialGrpc(insecure, {}, { maxStreams: 1 });
    await using pool = new Pool({ dial, maxKeyConns: 1 });
    const client = clientOf(pool, echo.address);
    using _ = await pool.acquire(echo.address);
    const own = await refusal(client, { deadline: Date.now() + 30 });
    pool.configure({ waitTimeoutMs: 20 });
    const pools = await refusal(client);
    for (const error of [own, pools]) {
      assert.equal(error.code, status.DEADLINE_EXCEEDED);
      assert.ok(isPoolError(error.cause));
      assert.equal(error.cause.code, "ERR_POOL_WAIT_TIMEOUT");
    }
  });

  test("says how long a call waited for its connection whose deadline passes while it runs", async () => {
    await using echo = await startEcho();
    await using pool = new Pool<string, GrpcConn>({ dial: dialGrpc(insecure, {}, { maxStreams: 1 }), maxKeyConns: 1 });
    const lease = await pool.acquire(echo.address);
    const ask = { text: "never", delayMs: -1 };
    const deadline = Date.now() + 500;
    const stub = rejection(call(clientOf(pool, echo.address), ask, { deadline }));
    await until(() => pool.stats().waiting === 1, "the call waits");
    await new Promise((resolve) => setTimeout(resolve, 20));
    lease.release();
    const error: ServiceError = Object(await stub);
    assert.equal(error.code, status.DEADLINE_EXCEEDED);
    if (!isPoolError(error.cause)) assert.match(error.details, /,after 0\.\d+s of waiting for a connection$/); // or it was late
  });

  test("has the status of the dial that failed, and the pool's error about it", async () => {
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const error = await refusal(clientOf(pool, "127.0.0.1:1"));
    assert.equal(error.code, status.UNAVAILABLE);
    assert.match(error.details, /ECONNREFUSED/);
    assert.ok(isPoolError(error.cause));
    assert.equal(error.cause.code, "ERR_POOL_DIAL");
  });

  test("is UNAVAILABLE where the pool is closed, or has nothing to dial with", async () => {
    await using bare = new Pool<string, GrpcConn>();
    const without = await refusal(clientOf(bare, "127.0.0.1:1"));
    const pool = new Pool({ dial: dialGrpc(insecure) });
    await pool.close();
    const closed = await refusal(clientOf(pool, "127.0.0.1:1"));
    assert.deepEqual([without.code, closed.code], [status.UNAVAILABLE, status.UNAVAILABLE]);
    assert.ok(isPoolError(without.cause) && isPoolError(closed.cause));
    assert.deepEqual([without.cause.code, closed.cause.code], ["ERR_POOL_NO_CONN", "ERR_POOL_CLOSED"]);
  });

  test("has one of gRPC's statuses, whatever the pool's error", () => {
    for (const code of Object.values(statusOfPoolError)) assert.equal(typeof status[code], "string");
  });
});

describe("what a pool counts of a stub's calls", () => {
  test("is one miss for a call that waits, and one hit for one that does not", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const client = clientOf(pool, echo.address);
    await call(client, { text: "dials" });
    const counted = ({ hits, misses }: { hits: number; misses: number }) => ({ hits, misses });
    assert.deepEqual(counted(pool.stats()), { hits: 0, misses: 1 });
    await call(client, { text: "hits" });
    assert.deepEqual(counted(pool.stats()), { hits: 1, misses: 1 });
  });

  test("is a slot given back unanswered, where a call was given up before anything came", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const released: unknown[] = [];
    const acquire = pool.acquire.bind(pool);
    pool.acquire = async (...args) => {
      const lease: Lease<GrpcConn> = await acquire(...args);
      const release = (how?: unknown): void => {
        released.push(how);
        lease.release();
      };
      return Object.assign(Object.create(lease), { conn: lease.conn, release });
    };
    const client = clientOf(pool, echo.address);
    const silent = { text: "x", delayMs: -1 };
    await call(client, { text: "answered" });
    await rejection(call(client, { text: "answered, too", fail: status.DEADLINE_EXCEEDED }));
    await rejection(call(client, { text: "answered, too", fail: status.CANCELLED }));
    assert.deepEqual(released, [undefined, undefined, undefined]);
    // On a machine that stands still, the time may be over before the call is sent.
    for (const { handled } = echo; echo.handled === handled; ) {
      released.length = 0;
      await rejection(call(client, silent, { deadline: Date.now() + 50 }));
    }
    const cancelled = new Promise<void>((resolve) => {
      const { handled } = echo;
      const ran = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, silent, () => resolve());
      void until(() => echo.handled > handled, "it arrives").then(() => ran.cancel());
    });
    await cancelled;
    assert.deepEqual(released, [{ unanswered: true }, { unanswered: true }]);
  });
});
