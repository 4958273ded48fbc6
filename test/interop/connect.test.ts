import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { create, createFileRegistry, type DescService, type JsonObject, type Message } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type CallOptions, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { dialHttp2, type PooledSession, pooledSession } from "../../src/connect/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { echoDescriptor } from "../support/echo-descriptor.ts";
import { GoGrpcPeer, noGo } from "./grpcpeer.ts";

interface Text extends JsonObject {
  text: string;
}

interface GoClient {
  echo(ask: Text, options?: CallOptions): Promise<Message & Text>;
}

/** The Go peer's service, which sends back the bytes that it gets. */
function clientOf(baseUrl: string, sessionManager: PooledSession, abortable: boolean): GoClient {
  const { messageType, service } = echoDescriptor;
  const [unary] = service[0]?.method ?? [];
  assert.ok(unary);
  const file = create(FileDescriptorProtoSchema, {
    name: "interop.proto",
    package: "test",
    syntax: "proto3",
    messageType,
    service: [{ name: "Interop", method: [{ ...unary, name: "Echo" }] }],
  });
  const files = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }));
  const interop: DescService | undefined = files.getService("test.Interop");
  assert.ok(interop);
  const interceptors = abortable ? [sessionManager.interceptor] : [];
  return Object(createClient(interop, createGrpcTransport({ baseUrl, sessionManager, interceptors })));
}

describe("Connect against Go", { skip: noGo === false ? false : noGo.replace("gRPC", "Connect") }, () => {
  let go: GoGrpcPeer;
  let url: string;
  before(async () => {
    go = new GoGrpcPeer();
    url = `http://${(await go.serve()).plain}`;
  });
  after(() => go[Symbol.dispose]());

  for (const abortable of [false, true]) {
    const rounds = abortable ? 60 : 200;
    const how = abortable ? "that leave the queue" : "that stay in the queue";
    test(`calls that are aborted while they wait or run lose no slot: ${how}`, { timeout: 110_000 }, async () => {
      await using pool = new Pool({ dial: dialHttp2({ maxStreams: 2 }), maxKeyConns: 1 });
      const client = clientOf(url, pooledSession(pool, url), abortable);
      // A dial that all callers have left is given up, and would count below.
      await client.echo({ text: "first" });
      for (let round = 0; round < rounds; round++) {
        const calls = Array.from({ length: 10 }, async () => {
          const controller = new AbortController();
          const timer = setTimeout(() => controller.abort(), Math.random() * 4);
          try {
            assert.equal((await client.echo({ text: "x" }, { signal: controller.signal })).text, "x");
          } catch (error) {
            assert.ok(error instanceof ConnectError && error.code === Code.Canceled, String(error));
          }
          clearTimeout(timer);
        });
        await Promise.all(calls);
        await until(
          () => pool.stats().streams === 0 && pool.stats().waiting === 0,
          `round ${round}: all slots are free`,
        );
      }
      assert.equal((await client.echo({ text: "still here" })).text, "still here");
      assert.equal(pool.stats().dials, 1);
    });
  }
});
