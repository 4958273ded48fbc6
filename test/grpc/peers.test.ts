import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ChannelCredentials, type ChannelOptions, Client, credentials, ServerCredentials, status } from "@grpc/grpc-js";
import { dialGrpcHttp2, type GrpcPeer, grpcPeers, pooledChannels } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, localhost } from "../support/certs.ts";
import { type Answer, echoService, startEcho } from "../support/echo-service.ts";

const { path, requestSerialize, responseDeserialize } = echoService.unary;

function call(client: Client): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { text: "x" }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

const tls = ServerCredentials.createSsl(null, [
  { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) },
]);

describe("pooledChannels", () => {
  test("clients of one address and one identity share connections; address and credentials are given once", async () => {
    await using echo = await startEcho();
    await using pool = new Pool(grpcPeers());
    const channelFactoryOverride = pooledChannels(pool);
    for (let i = 0; i < 3; i++) {
      const client = new Client(echo.address, credentials.createInsecure(), { channelFactoryOverride });
      assert.deepEqual(await call(client), { text: "x" });
      assert.equal(client.getChannel().getTarget(), `dns:${echo.address}`);
      client.close();
    }
    assert.equal(pool.stats().dials, 1);
  });

  test("the conns are of the dial function that is given", async () => {
    await using echo = await startEcho();
    await using pool = new Pool(grpcPeers({ dial: dialGrpcHttp2, maxStreams: 7 }));
    const channelFactoryOverride = pooledChannels(pool);
    const client = new Client(echo.address, credentials.createInsecure(), { channelFactoryOverride });
    assert.deepEqual(await call(client), { text: "x" });
    const [key] = pool.keys();
    assert.ok(key !== undefined);
    const lease = await pool.acquire(key);
    assert.equal(lease.conn.maxStreams, 7);
    assert.equal(lease.conn.goaway, undefined, "typed as what dialGrpcHttp2 dials");
    lease.release();
    client.close();
  });

  test("wrong options are refused at once", () => {
    for (const options of [{ maxStreams: 0 }, { dial: 5 }, { maxStream: 1 }]) {
      assert.throws(() => grpcPeers(options as object), { code: "ERR_POOL_ARGUMENT" });
    }
  });

  test("other credentials or options never share a connection", async () => {
    await using echo = await startEcho(tls);
    await using pool = new Pool(grpcPeers());
    const channelFactoryOverride = pooledChannels(pool);
    const root = Buffer.from(ca);
    const clients: [ChannelCredentials, object][] = [
      [credentials.createSsl(root), {}],
      [credentials.createSsl(root), {}],
      [credentials.createSsl(root), { "grpc.primary_user_agent": "other" }],
    ];
    for (const [using, options] of clients) {
      await call(new Client(`localhost:${echo.port}`, using, { ...options, channelFactoryOverride }));
    }
    assert.equal(pool.stats().dials, 3);
    assert.equal([...pool.keys()].length, 3);
  });

  test("a pool whose keys leave the credentials out is a clear error, not a mix", async () => {
    await using echo = await startEcho(tls);
    const { dial } = grpcPeers();
    await using pool = new Pool({ dial, hashKey: (peer: GrpcPeer) => peer.address });
    const channelFactoryOverride = pooledChannels(pool);
    const address = `localhost:${echo.port}`;
    const root = Buffer.from(ca);
    await call(new Client(address, credentials.createSsl(root), { channelFactoryOverride }));
    await assert.rejects(call(new Client(address, credentials.createSsl(root), { channelFactoryOverride })), {
      code: status.FAILED_PRECONDITION,
      details: "the pool's hashKey does not take in the credentials: make it with grpcPeers()",
    });
    assert.equal(echo.handled, 1);
    assert.equal(pool.stats().streams, 0);
  });
});

describe("two gRPC peers", () => {
  const address = "a:1";
  const insecure = credentials.createInsecure();
  const { hashKey } = grpcPeers();
  const hashOf = (options: object): string =>
    hashKey({ address, credentials: insecure, options: options as ChannelOptions });

  test("are the same where everything about them is known to be", () => {
    const one = (): void => {};
    const map = new Map();
    const symbol = Symbol("s");
    for (const [options, same] of [
      [{}, {}],
      [
        { a: 1, b: "x" },
        { b: "x", a: 1 },
      ],
      [{ a: one }, { a: one }],
      [{ a: map }, { a: map }],
      [{ a: symbol }, { a: symbol }],
      [{ a: 5n }, { a: 5n }],
      [{ a: Number.NaN }, { a: Number.NaN }],
      [{ a: { b: [1, "2"] } }, { a: { b: [1, "2"] } }],
    ]) {
      assert.ok(options !== undefined && same !== undefined);
      assert.equal(hashOf(options), hashOf(same));
    }
    const other = credentials.createInsecure();
    assert.equal(hashKey({ address, credentials: insecure }), hashKey({ address, credentials: other, options: {} }));
  });

  test("are different where anything about them is, or may be", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    const different = [
      {},
      ...[1, "1", 1n, true, "true", null, "null", undefined, -0, 0, Number.NaN, Number.POSITIVE_INFINITY].map((a) => ({
        a,
      })),
      ...[() => {}, () => {}, new Map(), new Map(), new Set(), new Date(0), new Date(0), /x/, /x/].map((a) => ({ a })),
      ...[[], [[]], [1], ["1"], {}, { b: 1 }, Symbol("s"), Symbol("s"), Object.create({ b: 1 })].map((a) => ({ a })),
      { a: 1, b: 2 },
      { a: circle },
    ];
    const hashes = different.map(hashOf);
    assert.equal(new Set(hashes).size, different.length);
    assert.deepEqual(different.map(hashOf), hashes, "a peer stays the same as itself");
  });

  test("are different where their credentials are, unless both are grpc-js' own insecure ones", () => {
    class Wrapper extends ChannelCredentials {
      override _isSecure(): boolean {
        return false;
      }
      override _equals(other: ChannelCredentials): boolean {
        return other === this;
      }
      override _createSecureConnector(...args: Parameters<ChannelCredentials["_createSecureConnector"]>) {
        return insecure._createSecureConnector(...args);
      }
    }
    const patched = Object.assign(credentials.createInsecure(), { _createSecureConnector: () => {} });
    const all = [insecure, new Wrapper(), new Wrapper(), credentials.createSsl(), credentials.createSsl(), patched];
    const hashes = all.map((each) => hashKey({ address, credentials: each as ChannelCredentials }));
    assert.equal(new Set(hashes).size, all.length);
  });

  test("that are down are dialed at gRPC's pace, unless the pool is told another", () => {
    assert.deepEqual(grpcPeers().backoff, { baseMs: 1_000, maxMs: 120_000, factor: 1.6, jitter: 0.2 });
    assert.equal({ ...grpcPeers(), backoff: false }.backoff, false);
  });
});
