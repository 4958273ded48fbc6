import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientOptions,
  credentials,
  ServerCredentials,
} from "@grpc/grpc-js";
import { dialGrpc, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { behaviours } from "../support/behaviours.ts";
import { ca, localhost } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { type EchoServer, startEcho } from "../support/echo-service.ts";
import type { Behaviour, Bench } from "../support/logged.ts";

const retry = {
  methodConfig: [
    {
      name: [{ service: "test.Echo" }],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: "0.01s",
        maxBackoff: "0.01s",
        backoffMultiplier: 1,
        retryableStatusCodes: ["ABORTED"],
      },
    },
  ],
};
const channelOptions: ChannelOptions = {
  "grpc.service_config": JSON.stringify(retry),
  "grpc.default_compression_algorithm": 2,
  "grpc.use_local_subchannel_pool": 1,
};

for (const [kind, server, client] of [
  ["plain text", ServerCredentials.createInsecure(), credentials.createInsecure()],
  [
    "TLS",
    ServerCredentials.createSsl(null, [
      { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) },
    ]),
    credentials.createSsl(Buffer.from(ca)),
  ],
] as const) {
  describe(`a pooled channel behaves as a plain one over ${kind}`, () => {
    let echo: EchoServer;
    before(async () => {
      echo = await startEcho(server);
    });
    after(() => echo[Symbol.asyncDispose]());
    for (const [name, behaviour] of Object.entries(behaviours)) {
      test(`in ${name}`, { timeout: 60_000 }, async () => {
        assert.deepEqual(await throughPool(behaviour, echo, client), await plainly(behaviour, echo, client));
      });
    }
  });
}

const nobody = "127.0.0.1:1";

async function logged(behaviour: Behaviour, bench: Omit<Bench, "log">): Promise<string[]> {
  const lines: string[] = [];
  await behaviour({ ...bench, log: (...event) => lines.push(JSON.stringify(event.map((part) => part ?? null))) });
  bench.client.close();
  bench.refused.close();
  // When a connection failed is part of grpc-js' text.
  return lines.map((line) => line.replace(/\(\d{4}-[^)]*\)/g, "(then)"));
}

function plainly(behaviour: Behaviour, echo: EchoServer, using: ChannelCredentials): Promise<string[]> {
  const address = `localhost:${echo.port}`;
  const client = new Client(address, using, channelOptions);
  return logged(behaviour, { client, echo, address, refused: new Client(nobody, using, channelOptions) });
}

/** Behaves, on a pool without conns, and leaves no slot taken. */
async function throughPool(behaviour: Behaviour, echo: EchoServer, using: ChannelCredentials): Promise<string[]> {
  await using pool = new Pool({ dial: dialGrpc(using, channelOptions) });
  const over = (key: string): Client => {
    const options: ClientOptions = { channelOverride: pooledChannel(pool, key) };
    return new Client("not used", credentials.createInsecure(), options);
  };
  const address = `localhost:${echo.port}`;
  const log = await logged(behaviour, { client: over(address), echo, address, refused: over(nobody) });
  await until(() => pool.stats().streams === 0 && pool.stats().waiting === 0, "all slots are free");
  return log;
}
