import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import type { Http2Session, ServerHttp2Stream } from "node:http2";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  credentials,
  Metadata,
  ServerCredentials,
  status,
} from "@grpc/grpc-js";
import { grpcTimeout } from "../../src/grpc/http2/request.ts";
import { parseTarget } from "../../src/grpc/http2/target.ts";
import { dialGrpcHttp2, type GrpcHttp2Conn, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, localhost, other } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { HostileHttp2 } from "../support/hostile-http2.ts";
import { rejection } from "../support/outcome.ts";
import { answer, frame, startRaw } from "../support/raw-grpc.ts";

const insecure = credentials.createInsecure();
const never = { signal: new AbortController().signal };
const { unary, chat } = echoService;

async function open(
  key: string,
  using: ChannelCredentials = insecure,
  options: ChannelOptions = {},
): Promise<GrpcHttp2Conn> {
  return dialGrpcHttp2(using, options)(key, never);
}

describe("targets", () => {
  for (const [key, addresses, authority] of [
    ["host:1", [{ host: "host", port: 1 }], "host:1"],
    ["host", [{ host: "host", port: 443 }], "host"],
    ["dns:host:1", [{ host: "host", port: 1 }], "host:1"],
    ["dns:///host:1", [{ host: "host", port: 1 }], "host:1"],
    ["[::1]:2", [{ host: "::1", port: 2 }], "[::1]:2"],
    ["::1", [{ host: "::1", port: 443 }], "::1"],
    [
      "ipv4:1.2.3.4:5,6.7.8.9",
      [
        { host: "1.2.3.4", port: 5 },
        { host: "6.7.8.9", port: 443 },
      ],
      "1.2.3.4:5",
    ],
    [
      "ipv6:[::1]:2,[::2]:3",
      [
        { host: "::1", port: 2 },
        { host: "::2", port: 3 },
      ],
      "[::1]:2",
    ],
    ["unix:/a/b", [{ path: "/a/b" }], "localhost"],
    ["unix:///a/b", [{ path: "/a/b" }], "localhost"],
    ["unix:a", [{ path: "a" }], "localhost"],
  ] as const) {
    test(`${key} is understood`, () => {
      const target = parseTarget(key);
      assert.deepEqual(target.addresses, addresses);
      assert.equal(target.authority, authority);
    });
  }
  for (const key of [
    "",
    "host:0",
    "host:70000",
    "a b:1",
    "ipv4:host:1",
    "ipv6:1.2.3.4:1",
    "unix:",
    "dns://8.8.8.8/h:1",
  ])
    test(`${JSON.stringify(key)} is refused for good`, async () => {
      const error = Object(await rejection(open(key)));
      assert.equal(error.code, "ERR_POOL_ARGUMENT");
      assert.equal(error.final, true);
    });
  test("xds: is refused with advice", async () => {
    await assert.rejects(open("xds:///a"), { code: "ERR_POOL_ARGUMENT", message: /dialGrpc/ });
  });
  test("the second address answers where the first does not", async () => {
    await using echo = await startEcho();
    const conn = await open(`ipv4:127.0.0.1:1,${echo.address}`);
    assert.equal((await conn.invoke(unary, { text: "x" })).text, "x");
    assert.equal(conn.settings.peer, echo.address);
    await conn.close();
  });
  test("a Unix socket", async () => {
    await using echo = await startEcho();
    const folder = mkdtempSync(join(tmpdir(), "grpc-"));
    const path = join(folder, "s");
    const relay = createServer((from) => {
      const to = connect(echo.port, "127.0.0.1").on("error", () => {});
      from
        .on("error", () => {})
        .pipe(to)
        .pipe(from);
    }).listen(path);
    const conn = await open(`unix:${path}`);
    assert.equal((await conn.invoke(unary, { text: "x" })).text, "x");
    await conn.close();
    relay.close();
    rmSync(folder, { recursive: true });
  });
});

describe("options", () => {
  const wrong: Record<string, ChannelOptions> = {
    "retries by service config": { "grpc.service_config": '{"methodConfig":[]}' },
    "load balancing": { "grpc.service_config": '{"loadBalancingConfig":[]}' },
    channelz: { "grpc.enable_channelz": 1 },
    "an option of servers": { "grpc.max_connection_age_ms": 1 },
    "an option that nobody knows": { "grpc.nonsense": 1 },
  };
  for (const [name, options] of Object.entries(wrong)) {
    test(`${name}: refused, with the advice to take dialGrpc`, () => {
      assert.throws(() => dialGrpcHttp2(insecure, options), { code: "ERR_POOL_ARGUMENT", message: /take dialGrpc\b/ });
    });
  }
  test("wrong values are refused at once", () => {
    for (const options of [
      { "grpc.keepalive_time_ms": "1" },
      { "grpc.max_receive_message_length": Number.NaN },
      { "grpc.default_compression_algorithm": 3 },
      { "grpc-node.flow_control_window": 10 },
      { "grpc.service_config": "{" },
    ] as ChannelOptions[]) {
      assert.throws(() => dialGrpcHttp2(insecure, options), { code: "ERR_POOL_ARGUMENT" }, JSON.stringify(options));
    }
    assert.throws(() => dialGrpcHttp2({} as ChannelCredentials), { code: "ERR_POOL_ARGUMENT" });
    assert.throws(() => dialGrpcHttp2(insecure, {}, { maxStreams: 0 }), { code: "ERR_POOL_ARGUMENT" });
  });
  test("what means nothing here is let pass", () => {
    dialGrpcHttp2(insecure, {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_retries": 0,
      "grpc.enable_channelz": 0,
      "grpc.service_config": '{"connectionScaling":{"maxConnectionsPerSubchannel":2}}',
    });
  });
  test("names, and what every request says", async () => {
    let seen: Record<string, unknown> = {};
    await using raw = await startRaw((stream, headers) => {
      seen = headers;
      answer(stream, ['{"text":"x"}']);
    });
    const conn = await open(raw.address, insecure, {
      "grpc.primary_user_agent": "mine/1",
      "grpc.secondary_user_agent": "(other)",
      "grpc.default_authority": "somebody.example",
    });
    const metadata = { "x-a": ["1", "2"], "x-b-bin": Buffer.of(1, 255), te: "gzip", "user-agent": "me" };
    await conn.invoke(unary, { text: "x" }, { metadata, timeoutMs: 5_000 });
    assert.equal(seen[":authority"], "somebody.example");
    assert.match(String(seen["user-agent"]), /^mine\/1 grpc-node-rpc-conn-pool\/\d+\.\d+\.\d+ \(other\)$/);
    assert.equal(seen["te"], "trailers");
    assert.equal(seen["x-a"], "1, 2");
    assert.equal(seen["x-b-bin"], "Af8=");
    assert.match(String(seen["grpc-timeout"]), /^\d{1,4}m$/);
    // What HTTP/2 cannot carry fails its own call only.
    for (const name of ["connection", "a:b", "transfer-encoding"]) {
      await assert.rejects(conn.invoke(unary, { text: "x" }, { metadata: { [name]: "x" } }), { code: status.INTERNAL });
    }
    await conn.invoke(unary, { text: "x" });
    await conn.close();
  });
  test("timeouts have eight digits at most, and are never too short", () => {
    const cases: [number, string][] = [
      [0, "0m"],
      [0.2, "1m"],
      [99_999_999, "99999999m"],
      [100_000_000, "100000S"],
      [1e12, "16666667M"],
      [1e15, "99999999H"],
    ];
    for (const [ms, text] of cases) assert.equal(grpcTimeout(ms), text);
  });
});

describe("TLS", () => {
  const server = (pair: { key: string; cert: string }): ServerCredentials =>
    ServerCredentials.createSsl(null, [{ private_key: Buffer.from(pair.key), cert_chain: Buffer.from(pair.cert) }]);
  test("a certificate for another name is refused, unless that name is asked for", async () => {
    await using echo = await startEcho(server(other));
    const ssl = credentials.createSsl(Buffer.from(ca));
    await assert.rejects(open(`localhost:${echo.port}`, ssl), { code: status.UNAVAILABLE });
    const conn = await open(`localhost:${echo.port}`, ssl, { "grpc.ssl_target_name_override": "other.test" });
    assert.equal((await conn.invoke(unary, { text: "x" })).text, "x");
    const context = conn.authContext;
    assert.equal(context.transportSecurityType, "ssl");
    assert.equal(context.sslPeerCertificate?.subject.CN, "other");
    assert.ok(conn.bytesRead > 0);
    await conn.ping(never);
    await conn.close();
  });
  test("a server without a certificate that we trust is refused", async () => {
    await using echo = await startEcho(server(localhost));
    await assert.rejects(open(`localhost:${echo.port}`, credentials.createSsl()), { code: status.UNAVAILABLE });
  });
  test("call credentials of the channel and of the call are sent together", async () => {
    await using echo = await startEcho(server(localhost));
    const urls: string[] = [];
    const token = (name: string) =>
      credentials.createFromMetadataGenerator(({ service_url }, done) => {
        urls.push(service_url);
        const metadata = new Metadata();
        metadata.set(name, "t");
        setTimeout(() => done(null, metadata), 2);
      });
    const ssl = credentials.combineChannelCredentials(credentials.createSsl(Buffer.from(ca)), token("x-channel"));
    await using pool = new Pool({ dial: dialGrpcHttp2(ssl) });
    const channelOverride = pooledChannel(pool, `localhost:${echo.port}`);
    const client = new Client("not used", insecure, { channelOverride });
    const header = await new Promise<Metadata>((resolve, reject) => {
      const { path, requestSerialize, responseDeserialize } = unary;
      client
        .makeUnaryRequest(
          path,
          requestSerialize,
          responseDeserialize,
          { text: "x" },
          { credentials: token("x-call") },
          (error) => error && reject(error),
        )
        .on("metadata", resolve);
    });
    assert.deepEqual([header.get("x-channel"), header.get("x-call")], [["t"], ["t"]]);
    assert.deepEqual([...new Set(urls)], ["https://localhost/test.Echo"]);
  });
});

describe("a conn", () => {
  test("is closed by its keep-alive when the peer has gone silent, and not before", { timeout: 60_000 }, async () => {
    const options = {
      "grpc.keepalive_time_ms": 20,
      "grpc.keepalive_timeout_ms": 100,
      "grpc.keepalive_permit_without_calls": 1,
    };
    await using well = await HostileHttp2.start(() => {});
    await using silent = await HostileHttp2.start(() => {}, { answersPings: false });
    const lives = await open(well.address, insecure, options);
    const dies = await open(silent.address, insecure, options);
    const call = rejection(dies.invoke(unary, { text: "x" }));
    await dies.closed;
    assert.equal(Object(await call).code, status.UNAVAILABLE);
    assert.equal(lives.draining, false);
    await lives.close();
  });

  test("calls that a peer leaves out later, in a second GOAWAY, run on one more connection", async () => {
    const sessions = new Set<Http2Session | undefined>();
    const streams: ServerHttp2Stream[] = [];
    const reply = (at: number) => answer(streams[at] ?? assert.fail("it has not come"), [`{"text":"${at}"}`]);
    await using raw = await startRaw((stream) => {
      sessions.add(stream.session);
      if (streams.push(stream) === 3) stream.session?.goaway(0, 3);
    });
    const conn = await open(raw.address);
    const calls = [1, 2, 3].map(() => conn.invoke(unary, { text: "x" }));
    await until(() => streams.length === 4, "the third call comes again");
    streams[0]?.session?.goaway(0, 1);
    await until(() => streams.length === 5, "the second call comes again");
    for (const at of [0, 4, 3]) reply(at);
    assert.deepEqual(await Promise.all(calls), [{ text: "0" }, { text: "4" }, { text: "3" }]);
    assert.equal(sessions.size, 3);
    await conn.closed;
  });

  test("reads no faster than its reader", { timeout: 30_000 }, async () => {
    await using raw = await startRaw((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      const message = frame(JSON.stringify({ text: "m".repeat(10_000) }));
      const more = (): void => {
        while (stream.writable && stream.write(message));
      };
      stream.on("drain", more);
      more();
    });
    const conn = await open(raw.address, insecure, { "grpc-node.flow_control_window": 1 << 17 });
    const stream = await conn.newStream(chat);
    for await (const { text } of stream) {
      assert.equal(text.length, 10_000);
      break;
    }
    const second = await conn.newStream(chat);
    let last = -1;
    await until(() => {
      const still = conn.bytesRead === last && last > 0;
      last = conn.bytesRead;
      return still;
    }, "the peer has to wait");
    const before = conn.bytesRead;
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.ok(conn.bytesRead - before < 1 << 20, "it waits on");
    assert.ok(before < 3 << 20);
    await second.close();
    await conn.close();
  });

  test("sends no faster than its peer reads", { timeout: 30_000 }, async () => {
    await using raw = await startRaw((stream) => stream.respond({ ":status": 200 }));
    const conn = await open(raw.address);
    const stream = await conn.newStream(chat);
    let sent = 0;
    const sending = (async () => {
      for (;;) {
        await stream.send({ text: "m".repeat(100_000) });
        sent++;
      }
    })().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.ok(sent < 50, `${sent} messages`);
    await stream.close();
    await sending;
    await conn.close();
  });
});
