import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type CallOptions, Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { dialGrpc, type GrpcConn, pooledChannel, pooledChannels } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { type Answer, type Ask, echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { answer, startRaw } from "../support/raw-grpc.ts";

const insecure = credentials.createInsecure();
const { unary } = echoService;

function clientOf(pool: Pool<string, GrpcConn>, key: string, retryUnsent = false): Client {
  return new Client("not used", insecure, { channelOverride: pooledChannel(pool, key, { retryUnsent }) });
}

function call(client: Client, ask: Ask, options: CallOptions = {}): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    const { path, requestSerialize, responseDeserialize } = unary;
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, options, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

function refusedTwice(error: unknown): undefined {
  if (Object(error).details !== "Stream refused by server") throw error;
}

describe("a pooled channel", () => {
  test("100 calls on a server limited to 10 streams run in one round, on 10 connections", async () => {
    await using echo = await startEcho(undefined, { "grpc.max_concurrent_streams": 10 });
    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 10 }), maxKeyConns: 10 });
    const client = clientOf(pool, echo.address);
    const calls = Array.from({ length: 100 }, () => rejection(call(client, { text: "x", delayMs: -1 })));
    await until(() => echo.running === 100, "all run at once");
    assert.equal(echo.sockets.size, 10);
    await pool.close({ graceMs: 0 });
    await Promise.all(calls);
  });

  test("1,000 calls at once at 100 slots dial 10 connections", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const client = clientOf(pool, echo.address);
    const calls = Array.from({ length: 1_000 }, () => rejection(call(client, { text: "x", delayMs: -1 })));
    await until(() => echo.running === 1_000, "all run at once");
    assert.equal(pool.stats().dials, 10);
    assert.equal(echo.sockets.size, 10);
    await pool.close({ graceMs: 0 });
    for (const error of await Promise.all(calls)) assert.equal(Object(error).code, status.CANCELLED);
    assert.equal(pool.stats().streams, 0);
  });

  test("calls that wait keep to their deadline, and can be cancelled", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 1 }), maxKeyConns: 1 });
    const client = clientOf(pool, echo.address);
    const { path, requestSerialize, responseDeserialize } = unary;
    const ask = { text: "first", delayMs: -1 };
    const first = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, () => {});
    await until(() => echo.running === 1, "the first runs");
    await assert.rejects(call(client, { text: "late" }, { deadline: Date.now() + 30 }), {
      code: status.DEADLINE_EXCEEDED,
      details: /^Deadline exceeded after \d+\.\d{3}s,/,
    });
    const cancelled = new Promise<ServiceError | null>((resolve) => {
      const ran = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { text: "c" }, resolve);
      setTimeout(() => ran.cancel(), 10);
    });
    assert.equal((await cancelled)?.code, status.CANCELLED);
    assert.equal(pool.stats().waiting, 0);
    assert.equal(echo.handled, 1);
    first.cancel();
    assert.deepEqual(await call(client, { text: "next" }), { text: "next" });
    client.close();
  });

  test("close ends one view only: what waits in it fails, what runs goes on, and others do not notice", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 1 }), maxKeyConns: 1 });
    const one = clientOf(pool, echo.address);
    const other = clientOf(pool, echo.address);
    const running = call(one, { text: "running", delayMs: 30 });
    await until(() => echo.running === 1, "it runs");
    const waiting = rejection(call(one, { text: "waiting" }));
    const others = call(other, { text: "other" });
    one.close();
    one.close();
    assert.equal(Object(await waiting).code, status.UNAVAILABLE);
    assert.equal(Object(await waiting).details, "Channel closed before call started");
    assert.deepEqual(await running, { text: "running" });
    assert.deepEqual(await others, { text: "other" });
    assert.equal(pool.stats().open, 1);
  });

  test("a status frees the slot before the caller gets it", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 1 }), maxKeyConns: 1 });
    const client = clientOf(pool, echo.address);
    for (let i = 0; i < 20; i++) {
      await call(client, { text: "x", ...(i % 2 && { fail: status.NOT_FOUND }) }).catch(() => {});
      assert.equal(pool.stats().streams, 0);
    }
    assert.equal(pool.stats().dials, 1);
  });

  test("a pool that is closed makes calls UNAVAILABLE", async () => {
    const pool = new Pool({ dial: dialGrpc(insecure) });
    const client = clientOf(pool, "127.0.0.1:1");
    await pool.close();
    await assert.rejects(call(client, { text: "x" }), { code: status.UNAVAILABLE, details: /the pool is closed/ });
  });

  test("with retryUnsent, a call whose connection went before it was sent is sent again, once", async () => {
    await using echo = await startEcho();
    for (const retryUnsent of [true, false]) {
      await using pool = new Pool({ dial: dialGrpc(insecure) });
      const client = clientOf(pool, echo.address, retryUnsent);
      await call(client, { text: "warm" });
      const handled = echo.handled;
      using lease = pool.tryAcquire(echo.address);
      assert.ok(lease !== undefined);
      const { channel } = lease.conn;
      const createCall = channel.createCall.bind(channel);
      // The call has its connection; its stream is made some microtasks later.
      channel.createCall = (...args) => {
        queueMicrotask(() => channel.close());
        return createCall(...args);
      };
      const result = call(client, { text: "again" });
      if (retryUnsent) assert.deepEqual(await result, { text: "again" });
      else await assert.rejects(result, { code: status.UNAVAILABLE });
      assert.equal(echo.handled - handled, retryUnsent ? 1 : 0);
    }
  });

  test("what may have reached the peer is never sent again", async () => {
    let seen = 0;
    await using raw = await startRaw((stream) => {
      seen++;
      stream.session?.destroy();
    });
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const client = clientOf(pool, raw.address, true);
    await assert.rejects(call(client, { text: "x" }), { code: status.UNAVAILABLE });
    assert.equal(seen, 1);
  });

  test("a GOAWAY moves new calls to a new connection, and none is lost", async () => {
    let streams = 0;
    await using raw = await startRaw((stream) => {
      const { session } = stream;
      if (++streams % 10 === 0) session?.goaway(0, stream.id);
      setTimeout(() => {
        if (!stream.destroyed) answer(stream, ['{"text":"ok"}']);
      }, 2);
    });
    await using pool = new Pool({ dial: dialGrpc(insecure), maxKeyConns: 2 });
    const client = clientOf(pool, raw.address, true);
    let answered = 0;
    const caller = async (): Promise<void> => {
      for (let i = 0; i < 50; i++) if ((await call(client, { text: "x" }))?.text === "ok") answered++;
    };
    await Promise.all([caller(), caller(), caller(), caller()]);
    assert.equal(answered, 200);
    await until(() => pool.stats().streams === 0, "all slots are free");
  });

  test("under load, connections that the server retires by age lose no call and run none twice", async () => {
    const ages = { "grpc.max_connection_age_ms": 150, "grpc.max_connection_age_grace_ms": 1_000 };
    await using echo = await startEcho(undefined, ages);
    const dial = dialGrpc(insecure, {}, { maxStreams: 10 });
    await using pool = new Pool({ dial });
    const client = clientOf(pool, echo.address, true);
    await using other = new Pool();
    const handle = other.get(echo.address, dial, { retryUnsent: true });
    const end = Date.now() + 1_000;
    let calls = 0;
    const caller = async (number: number): Promise<void> => {
      while (Date.now() < end) {
        const text = String(calls++);
        const ask = () => (number % 2 ? call(client, { text }) : handle.invoke(unary, { text }));
        // Where the machine stands still, the connection of the second attempt is too old, too, when the call arrives.
        // There is no third attempt, and the caller hears of it: whoever asks again is answered, and has run once.
        let answered = await ask().catch(refusedTwice);
        while (answered === undefined) answered = await ask().catch(refusedTwice);
        assert.equal(answered.text, text);
      }
    };
    await Promise.all(Array.from({ length: 30 }, (_, number) => caller(number)));
    assert.equal(echo.handled, calls);
    assert.ok(pool.stats().closed.goaway > 0);
  });

  test("wrong options are refused at once", async () => {
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const wrong = { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT" };
    assert.throws(() => pooledChannel(pool, "a:1", { retry: true } as object), wrong);
    assert.throws(() => pooledChannel(pool, "a:1", { retryUnsent: 1 } as object), wrong);
    assert.throws(() => pooledChannel(pool, "a:1", null as unknown as object), wrong);
    assert.throws(() => pooledChannel(pool, ""), wrong);
    assert.throws(() => pooledChannel(pool, undefined as unknown as string), wrong);
    for (const none of [undefined, null, 5, {}] as never[]) {
      assert.throws(() => pooledChannel(none, "a:1"), wrong);
      assert.throws(() => pooledChannels(none), wrong);
    }
    const channel = pooledChannel(pool, "a:1");
    for (const deadline of [Number.NaN, new Date(Number.NaN)]) {
      assert.throws(() => channel.createCall("/a/b", deadline, null, null, null), wrong);
    }
  });
});
