import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type CallOptions, Client, credentials } from "@grpc/grpc-js";
import { connectionScaling, dialGrpc, grpcPeers, pooledChannel, pooledChannels } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { type EchoServer, echoService, startEcho } from "../support/echo-service.ts";

const insecure = credentials.createInsecure();

/** The channel options of a client that wants so many connections. */
function wanting(maxConnectionsPerSubchannel: unknown): { "grpc.service_config": string } {
  return { "grpc.service_config": JSON.stringify({ connectionScaling: { maxConnectionsPerSubchannel } }) };
}

/** Begins a call that the server never answers. Returns what ends it. */
function begin(client: Client): () => void {
  const { path, requestSerialize, responseDeserialize } = echoService.unary;
  const ask = { text: "x", delayMs: -1 };
  const running = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, () => {});
  return () => running.cancel();
}

function call(client: Client, options: CallOptions = {}): Promise<void> {
  const { path, requestSerialize, responseDeserialize } = echoService.unary;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { text: "x" }, options, (error) =>
      error ? reject(error) : resolve(),
    );
  });
}

/** A little traffic, one call at a time, until the server has so few connections. */
async function trickle(client: Client, echo: EchoServer, connections: number): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (echo.sockets.size !== connections) {
    assert.ok(Date.now() < deadline, `${echo.sockets.size} connections are left`);
    await call(client);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe("connections grow and shrink with the calls, as A105 and more", () => {
  test("under load up to the service config's maximum; when it falls, back to one", { timeout: 60_000 }, async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ ...grpcPeers({ maxStreams: 2 }), selection: "newest", expirationMs: 100 });
    const channelFactoryOverride = pooledChannels(pool);
    const client = new Client(echo.address, insecure, { channelFactoryOverride, ...wanting(4) });
    const ends = Array.from({ length: 9 }, () => begin(client));
    let dialing = 0;
    await until(() => {
      dialing = Math.max(dialing, pool.stats().dialing);
      return echo.running === 8;
    }, "all but one run");
    assert.equal(dialing, 1, "one dial at a time");
    assert.equal(echo.sockets.size, 4);
    assert.equal(pool.stats().waiting, 1);
    for (const end of ends) end();
    await trickle(client, echo, 1);
    assert.equal(pool.stats().closed.expired, 3);
    assert.equal(pool.stats().dials, 4);
  });

  test("with minIdle, a conn is dialed before the limit is reached", { timeout: 60_000 }, async () => {
    await using echo = await startEcho();
    const dial = dialGrpc(insecure, {}, { maxStreams: 2 });
    await using pool = new Pool({ dial, minIdle: 1, maxKeyConns: 4 });
    const client = new Client("not used", insecure, { channelOverride: pooledChannel(pool, echo.address) });
    const ends: (() => void)[] = [];
    for (let open = 2; open <= 4; open++) {
      // A conn is full at two calls; a spare is there for the third.
      for (let i = 0; i < 2; i++) ends.push(begin(client));
      await until(() => {
        const stats = pool.stats();
        return echo.running === ends.length && stats.open === open && stats.idle === 1;
      }, `${ends.length} run, and a spare is ready`);
    }
    assert.equal(pool.stats().dials, 4);
    for (const end of ends) end();
  });

  test("when traffic falls, the minimum stays, and nothing more", { timeout: 60_000 }, async () => {
    await using echo = await startEcho();
    const dial = dialGrpc(insecure, {}, { maxStreams: 2 });
    await using pool = new Pool({ dial, selection: "newest", expirationMs: 200, minIdle: 2 });
    const client = new Client("not used", insecure, { channelOverride: pooledChannel(pool, echo.address) });
    const ends = Array.from({ length: 10 }, () => begin(client));
    await until(() => echo.running === 10, "all run");
    assert.ok(echo.sockets.size >= 5);
    for (const end of ends) end();
    // One conn runs the call, two more are ready.
    await trickle(client, echo, 3);
  });

  test("connectionScaling reads a service config, in A105's words", () => {
    assert.deepEqual(connectionScaling(wanting(3)), { maxKeyConns: 3, maxKeyDials: 1 });
    assert.deepEqual(connectionScaling(wanting(500)), { maxKeyConns: 10, maxKeyDials: 1 });
    assert.deepEqual(connectionScaling({}), {});
    assert.deepEqual(connectionScaling({ "grpc.service_config": "{}" }), {});
    for (const wrong of [0, -1, 1.5, "2", null]) {
      assert.throws(() => connectionScaling(wanting(wrong)), { name: "PoolRangeError", code: "ERR_POOL_ARGUMENT" });
    }
    const broken = { "grpc.service_config": "{" };
    assert.throws(() => connectionScaling(broken), { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT" });
  });

  test("a client with a service config that is wrong cannot be made", async () => {
    await using pool = new Pool(grpcPeers());
    const channelFactoryOverride = pooledChannels(pool);
    assert.throws(() => new Client("a:1", insecure, { channelFactoryOverride, ...wanting(0) }), {
      name: "PoolRangeError",
    });
  });
});
