import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type ChannelCredentials, Client, credentials, ServerCredentials, status } from "@grpc/grpc-js";
import { type GrpcPeer, grpcPeers, pooledChannels } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { type Answer, echoService, startEcho } from "../support/echo-service.ts";
import { local } from "../support/grpc-certs.ts";

const { path, requestSerialize, responseDeserialize } = echoService.unary;

function call(client: Client): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { text: "x" }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

const tls = ServerCredentials.createSsl(null, [
  { private_key: Buffer.from(local.key), cert_chain: Buffer.from(local.certificate) },
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

  test("other credentials or options never share a connection", async () => {
    await using echo = await startEcho(tls);
    await using pool = new Pool(grpcPeers());
    const channelFactoryOverride = pooledChannels(pool);
    const root = Buffer.from(local.certificate);
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
    const root = Buffer.from(local.certificate);
    await call(new Client(address, credentials.createSsl(root), { channelFactoryOverride }));
    await assert.rejects(call(new Client(address, credentials.createSsl(root), { channelFactoryOverride })), {
      code: status.FAILED_PRECONDITION,
      details: "the pool's hashKey does not take in the credentials: make it with grpcPeers()",
    });
    assert.equal(echo.handled, 1);
    assert.equal(pool.stats().streams, 0);
  });
});
