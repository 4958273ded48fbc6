import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  credentials,
  ServerCredentials,
  status,
} from "@grpc/grpc-js";
import { dialGrpcHttp2, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { behaviours } from "../support/behaviours.ts";
import { ca, localhost } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { type EchoServer, startEcho } from "../support/echo-service.ts";
import type { Behaviour, Bench } from "../support/logged.ts";

/** What differs on purpose; for each a test below says how. */
const different: Readonly<Record<string, readonly string[]>> = {
  "plain text": ["call credentials", "call credentials that fail"],
  TLS: [],
};

/** What only grpc-js' own channel does. */
const refused = ["retries by service config"];

const pair = { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) };
const root = Buffer.from(ca);
const servers: readonly [string, ServerCredentials, ChannelCredentials][] = [
  ["plain text", ServerCredentials.createInsecure(), credentials.createInsecure()],
  ["TLS", ServerCredentials.createSsl(null, [pair]), credentials.createSsl(root)],
  [
    "mTLS",
    ServerCredentials.createSsl(root, [pair], true),
    credentials.createSsl(root, pair.private_key, pair.cert_chain),
  ],
];
const compressions = ["as it is", "deflated", "gzipped"];

for (const [kind, server, client] of servers) {
  for (const [algorithm, how] of compressions.entries()) {
    if (algorithm === 1 && kind !== "plain text") continue;
    const channelOptions: ChannelOptions = {
      "grpc.default_compression_algorithm": algorithm,
      "grpc.use_local_subchannel_pool": 1,
    };
    describe(`a client over node:http2 behaves as over grpc-js' channel, ${kind}, ${how}`, () => {
      let echo: EchoServer;
      before(async () => {
        echo = await startEcho(server);
      });
      after(() => echo[Symbol.asyncDispose]());
      for (const [name, behaviour] of Object.entries(behaviours)) {
        if (refused.includes(name) || different[kind]?.includes(name)) continue;
        if (algorithm > 0 && name.endsWith("refused connection")) continue; // nothing is sent that could be compressed
        test(`in ${name}`, { timeout: 60_000 }, async () => {
          const plain = await plainly(behaviour, echo, client, channelOptions);
          assert.deepEqual(await throughPool(behaviour, echo, client, channelOptions), plain);
        });
      }
    });
  }
}

test("call credentials are not sent without TLS", async () => {
  await using echo = await startEcho();
  const behaviour = behaviours["call credentials"];
  assert.ok(behaviour);
  const log = await throughPool(behaviour, echo, credentials.createInsecure(), {});
  assert.deepEqual(log, [
    JSON.stringify(["error", status.UNAUTHENTICATED, "Call credentials are sent over TLS only"]),
    JSON.stringify(["status", status.UNAUTHENTICATED, "[]"]),
  ]);
  assert.equal(echo.handled, 0);
});

const nobody = "127.0.0.1:1";

async function logged(behaviour: Behaviour, bench: Omit<Bench, "log">): Promise<string[]> {
  const lines: string[] = [];
  await behaviour({ ...bench, log: (...event) => lines.push(JSON.stringify(event.map((part) => part ?? null))) });
  bench.client.close();
  bench.refused.close();
  // When a connection failed, and a note on how its name was found, are part of grpc-js' text.
  const same = lines.map((line) => line.replace(/ \(\d{4}-[^)]*\)/g, "").replace(/\. Resolution note: /, ""));
  // It depends on the moment whether a peer that refuses is being dialed once more.
  return same.map((line) => line.replace(/"(CONNECTING|TRANSIENT_FAILURE)"/, '"not READY"'));
}

function plainly(
  behaviour: Behaviour,
  echo: EchoServer,
  using: ChannelCredentials,
  options: ChannelOptions,
): Promise<string[]> {
  const address = `localhost:${echo.port}`;
  const client = new Client(address, using, options);
  return logged(behaviour, { client, echo, address, refused: new Client(nobody, using, options) });
}

/** Behaves, on a pool without conns, and leaves no slot taken. */
async function throughPool(
  behaviour: Behaviour,
  echo: EchoServer,
  using: ChannelCredentials,
  options: ChannelOptions,
): Promise<string[]> {
  await using pool = new Pool({ dial: dialGrpcHttp2(using, options) });
  const over = (key: string): Client =>
    new Client("not used", credentials.createInsecure(), { channelOverride: pooledChannel(pool, key) });
  const address = `localhost:${echo.port}`;
  const log = await logged(behaviour, { client: over(address), echo, address, refused: over(nobody) });
  await until(() => pool.stats().streams === 0 && pool.stats().waiting === 0, "all slots are free");
  return log;
}
