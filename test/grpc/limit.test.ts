import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { credentials, ServerCredentials } from "@grpc/grpc-js";
import { dialGrpc } from "../../src/grpc/index.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { local } from "../support/grpc-certs.ts";

const insecure = credentials.createInsecure();
const { signal } = new AbortController();

// Node shows the peer's settings from a later release of Node 22 on.
const shown = Number.parseInt(process.versions.node, 10) >= 24;

describe("the peer's limit of streams", () => {
  for (const { allowed, told, expected } of [
    { allowed: 7, told: undefined, expected: 7 },
    { allowed: 7, told: 5, expected: 5 },
    { allowed: 7, told: 20, expected: 7 },
    { allowed: 500, told: undefined, expected: 500 },
    { allowed: undefined, told: undefined, expected: 100 },
    { allowed: undefined, told: 20, expected: 20 },
  ]) {
    test(`${allowed} allowed, ${told} configured: ${expected}, once the first call shows it`, async () => {
      const options = allowed === undefined ? {} : { "grpc.max_concurrent_streams": allowed };
      await using echo = await startEcho(undefined, options);
      const conn = await dialGrpc(insecure, {}, { maxStreams: told })(echo.address, { signal });
      assert.equal(conn.maxStreams, told ?? 100);
      let changes = 0;
      conn.onChange(() => changes++);
      for (let i = 0; i < 3; i++) await conn.invoke(echoService.unary, { text: "x" });
      const known = shown ? expected : (told ?? 100);
      assert.equal(conn.maxStreams, known);
      assert.equal(changes, known === (told ?? 100) ? 0 : 1);
      await conn.close();
    });
  }

  test("is shown over TLS, too", async () => {
    const pair = { private_key: Buffer.from(local.key), cert_chain: Buffer.from(local.certificate) };
    await using echo = await startEcho(ServerCredentials.createSsl(null, [pair]), { "grpc.max_concurrent_streams": 7 });
    const dial = dialGrpc(credentials.createSsl(Buffer.from(local.certificate)));
    const conn = await dial(`localhost:${echo.port}`, { signal });
    await conn.invoke(echoService.unary, { text: "x" });
    assert.equal(conn.maxStreams, shown ? 7 : 100);
    await conn.close();
  });

  test("is learned by the conn that it belongs to", async () => {
    await using narrow = await startEcho(undefined, { "grpc.max_concurrent_streams": 7 });
    await using wide = await startEcho(undefined, { "grpc.max_concurrent_streams": 70 });
    const dial = dialGrpc(insecure);
    const conns = [await dial(narrow.address, { signal }), await dial(wide.address, { signal })];
    for (const conn of conns.toReversed()) await conn.invoke(echoService.unary, { text: "x" });
    assert.deepEqual(
      conns.map((conn) => conn.maxStreams),
      shown ? [7, 70] : [100, 100],
    );
    for (const conn of conns) await conn.close();
  });
});
