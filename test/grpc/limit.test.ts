import assert from "node:assert/strict";
import type { ServerHttp2Session } from "node:http2";
import { describe, test } from "node:test";
import { Client, credentials, ServerCredentials } from "@grpc/grpc-js";
import { dialGrpc, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/index.ts";
import { ca, localhost } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { answer, startRaw } from "../support/raw-grpc.ts";

const insecure = credentials.createInsecure();
const { signal } = new AbortController();

/** The one session of a server that has one client. */
function only(sessions: Set<ServerHttp2Session>): ServerHttp2Session {
  const [session] = sessions;
  assert.ok(session !== undefined && sessions.size === 1);
  return session;
}

describe("the peer's limit of streams", () => {
  for (const { allowed, told, expected } of [
    { allowed: 7, told: undefined, expected: 7 },
    { allowed: 7, told: 5, expected: 5 },
    { allowed: 7, told: 20, expected: 7 },
    { allowed: 500, told: undefined, expected: 500 },
    { allowed: undefined, told: undefined, expected: 100 },
    { allowed: undefined, told: 20, expected: 20 },
  ]) {
    test(`${allowed} allowed, ${told} configured: ${expected}, as soon as the conn is dialed`, async () => {
      const options = allowed === undefined ? {} : { "grpc.max_concurrent_streams": allowed };
      await using echo = await startEcho(undefined, options);
      const conn = await dialGrpc(insecure, {}, { maxStreams: told })(echo.address, { signal });
      assert.equal(conn.maxStreams, expected);
      let changes = 0;
      conn.onChange(() => changes++);
      for (let i = 0; i < 3; i++) await conn.invoke(echoService.unary, { text: "x" });
      assert.equal(conn.maxStreams, expected);
      assert.equal(changes, 0);
      await conn.close();
    });
  }

  test("is known over TLS, too", async () => {
    const pair = { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) };
    await using echo = await startEcho(ServerCredentials.createSsl(null, [pair]), { "grpc.max_concurrent_streams": 7 });
    const dial = dialGrpc(credentials.createSsl(Buffer.from(ca)));
    const conn = await dial(`localhost:${echo.port}`, { signal });
    assert.equal(conn.maxStreams, 7);
    await conn.close();
  });

  test("belongs to the conn that it was told to, and to no other", { timeout: 60_000 }, async () => {
    await using narrow = await startEcho(undefined, { "grpc.max_concurrent_streams": 2 });
    await using wide = await startEcho(undefined, { "grpc.max_concurrent_streams": 50 });
    const dial = dialGrpc(insecure);
    const limitOf = async (address: string): Promise<number> => {
      const conn = await dial(address, { signal });
      await conn.invoke(echoService.unary, { text: "x" });
      const { maxStreams } = conn;
      void conn.close();
      return maxStreams;
    };
    for (let i = 0; i < 3; i++) {
      const addresses = Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? narrow : wide).address);
      const limits = await Promise.all(addresses.map(limitOf));
      assert.deepEqual(
        limits,
        addresses.map((address) => (address === narrow.address ? 2 : 50)),
      );
    }
  });

  test("is followed while the conn lives, up and down, and to none", async () => {
    await using raw = await startRaw((stream) => answer(stream, ['{"text":"x"}']));
    const conn = await dialGrpc(insecure, {}, { maxStreams: 40 })(raw.address, { signal });
    const seen: number[] = [];
    conn.onChange(() => seen.push(conn.maxStreams));
    for (const [allowed, expected] of [
      [3, 3],
      [30, 30],
      [0, 0],
      [50, 40],
    ] as const) {
      only(raw.sessions).settings({ maxConcurrentStreams: allowed });
      await until(() => conn.maxStreams === expected, `${allowed} are allowed`);
    }
    assert.deepEqual(seen, [3, 30, 0, 40]);
    await conn.close();
  });

  test("that a live peer lowers or raises holds for the calls that follow", async () => {
    let running = 0;
    let most = 0;
    await using raw = await startRaw((stream) => {
      most = Math.max(most, ++running);
      setTimeout(() => {
        running--;
        answer(stream, ['{"text":"x"}']);
      }, 20);
    });
    await using pool = new Pool<string>({ dial: dialGrpc(insecure), maxKeyConns: 1 });
    const handle = pool.get(raw.address);
    await handle.invoke(echoService.unary, { text: "x" });
    for (const allowed of [2, 6, 3]) {
      only(raw.sessions).settings({ maxConcurrentStreams: allowed });
      await until(() => pool.stats(raw.address).conns?.[0]?.maxStreams === allowed, `${allowed} are allowed`);
      most = 0;
      await Promise.all(Array.from({ length: 20 }, () => handle.invoke(echoService.unary, { text: "x" })));
      assert.equal(most, allowed);
    }
  });

  test("of 10 that nobody configured: 100 calls run at once, on 10 connections", async () => {
    await using echo = await startEcho(undefined, { "grpc.max_concurrent_streams": 10 });
    await using pool = new Pool({ dial: dialGrpc(insecure) });
    const channelOverride = pooledChannel(pool, echo.address);
    const client = new Client("not used", insecure, { channelOverride });
    const { path, requestSerialize, responseDeserialize } = echoService.unary;
    const calls = Array.from({ length: 100 }, () => {
      const ask = { text: "x", delayMs: -1 };
      const answered = new Promise((resolve, reject) =>
        client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, (error) =>
          error ? reject(error) : resolve(undefined),
        ),
      );
      return rejection(answered);
    });
    await until(() => echo.running === 100, "all run at once");
    assert.equal(echo.sockets.size, 10);
    assert.equal(pool.stats().dials, 10);
    await pool.close({ graceMs: 0 });
    await Promise.all(calls);
  });
});
