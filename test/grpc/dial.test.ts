import assert from "node:assert/strict";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, test } from "node:test";
import { Channel, type ChannelCredentials, credentials, ServerCredentials, status } from "@grpc/grpc-js";
import { dialGrpc } from "../../src/grpc/index.ts";
import { DialError, Pool } from "../../src/index.ts";
import { ca, type Identity, localhost, other, stranger } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { startRaw } from "../support/raw-grpc.ts";

const insecure = credentials.createInsecure();
const dial = dialGrpc(insecure);
const never = new AbortController().signal;

/** Accepts connections, and says nothing. */
async function startSilent() {
  const sockets = new Set<Socket>();
  const counts = { accepted: 0 };
  const server = createServer((socket) => {
    counts.accepted++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    sockets,
    counts,
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose](): Promise<void> {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function serverTls({ key, cert }: Identity): ServerCredentials {
  return ServerCredentials.createSsl(null, [{ private_key: Buffer.from(key), cert_chain: Buffer.from(cert) }]);
}

const tls = serverTls(localhost);

describe("dialing a gRPC peer", () => {
  test("gives a conn that is ready, with the real channel", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    assert.ok(conn.channel instanceof Channel);
    assert.equal(conn.channel.getTarget(), `dns:${echo.address}`);
    assert.equal(conn.maxStreams, 100);
    assert.equal(conn.draining, false);
    assert.equal(conn.unblocked(), undefined);
    await conn.close();
  });

  test("each conn has a TCP connection of its own, whatever the options say", async () => {
    await using echo = await startEcho();
    const shared = dialGrpc(insecure, { "grpc.use_local_subchannel_pool": 0 });
    const conns = await Promise.all([1, 2, 3].map(async () => shared(echo.address, { signal: never })));
    assert.equal(echo.sockets.size, 3);
    for (const conn of conns) await conn.close();
    await until(() => echo.sockets.size === 0, "the connections close");
  });

  test("maxStreams is as configured, and announced by the dial function", async () => {
    await using echo = await startEcho();
    const seven = dialGrpc(insecure, undefined, { maxStreams: 7 });
    assert.equal(seven.maxStreams, 7);
    assert.equal(dial.maxStreams, undefined, "nobody knows the peer's limit before it is dialed");
    const conn = await seven(echo.address, { signal: never });
    assert.equal(conn.maxStreams, 7);
    await conn.close();
  });

  test("lets the peer send 1 MiB of a stream ahead, unless the channel options say otherwise", async () => {
    await using raw = await startRaw(() => {});
    for (const [options, expected] of [
      [{}, 1 << 20],
      [{ "grpc-node.flow_control_window": 1 << 17 }, 1 << 17],
    ] as const) {
      const conn = await dialGrpc(insecure, options)(raw.address, { signal: never });
      const sessions = (): boolean =>
        [...raw.sessions].some((each) => each.remoteSettings.initialWindowSize === expected);
      await until(sessions, `${expected} bytes`);
      await conn.close();
    }
  });

  test("speaks TLS, and resolves names", async () => {
    await using echo = await startEcho(tls);
    const secure = dialGrpc(credentials.createSsl(Buffer.from(ca)));
    const conn = await secure(`localhost:${echo.port}`, { signal: never });
    assert.deepEqual(await conn.invoke(echoService.unary, { text: "tls" }), { text: "tls" });
    await conn.close();
  });

  test("a TLS name that does not match is a clear error", async () => {
    await using echo = await startEcho(serverTls(other));
    const secure = dialGrpc(credentials.createSsl(Buffer.from(ca)));
    await assert.rejects(async () => secure(`localhost:${echo.port}`, { signal: never }), {
      name: "GrpcError",
      code: status.UNAVAILABLE,
      message: /does not match certificate's altnames: Host: localhost/,
    });
  });

  test("a certificate that nobody vouches for is a clear error", async () => {
    await using echo = await startEcho(serverTls(stranger));
    const secure = dialGrpc(credentials.createSsl());
    await assert.rejects(async () => secure(`localhost:${echo.port}`, { signal: never }), {
      message: /self-signed certificate/,
    });
  });

  test("no TLS where TLS is wanted, and the other way round, fails", async () => {
    await using plain = await startEcho();
    const secure = dialGrpc(credentials.createSsl());
    await assert.rejects(async () => secure(`localhost:${plain.port}`, { signal: never }), {
      code: status.UNAVAILABLE,
    });
    await using encrypted = await startEcho(tls);
    await assert.rejects(async () => dial(encrypted.address, { signal: never }), { code: status.UNAVAILABLE });
  });

  test("a refused port is a clear error, at the first try", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(async () => dial(`127.0.0.1:${port}`, { signal: never }), {
      name: "GrpcError",
      code: status.UNAVAILABLE,
      message: new RegExp(`ECONNREFUSED 127.0.0.1:${port}`),
    });
  });

  test("a name that does not resolve is a clear error", async () => {
    await assert.rejects(async () => dial("nowhere.invalid:1", { signal: never }), {
      code: status.UNAVAILABLE,
      message: /Name resolution failed for target dns:nowhere.invalid:1/,
    });
  });

  test("a peer that accepts and says nothing is left when the signal aborts, with no socket", async () => {
    await using silent = await startSilent();
    for (const each of [dial, dialGrpc(credentials.createSsl())]) {
      const controller = new AbortController();
      const dialing = each(silent.address.replace("127.0.0.1", "localhost"), { signal: controller.signal });
      await until(() => silent.sockets.size === 1, "the dial arrives");
      const reason = new Error("time is up");
      controller.abort(reason);
      assert.equal(await rejection(Promise.resolve(dialing)), reason);
      await until(() => silent.sockets.size === 0, "the socket closes");
    }
  });

  test("a dial that is given up as soon as it has begun never connects, not even later", async () => {
    await using silent = await startSilent();
    const hasty = dialGrpc(insecure, { "grpc.initial_reconnect_backoff_ms": 10, "grpc.max_reconnect_backoff_ms": 20 });
    for (const key of [silent.address, silent.address.replace("127.0.0.1", "localhost")]) {
      const caller = new AbortController();
      const dialed = rejection(Promise.resolve(hasty(key, { signal: caller.signal })));
      caller.abort();
      await dialed;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(silent.counts.accepted, 0);
  });

  test("a signal that is aborted already dials nothing", async () => {
    await using silent = await startSilent();
    const reason = new Error("no");
    assert.equal(await rejection(Promise.resolve(dial(silent.address, { signal: AbortSignal.abort(reason) }))), reason);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(silent.sockets.size, 0);
  });

  test("a peer that hangs up while it is dialed is a clear error", async () => {
    const server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    await assert.rejects(async () => dial(`127.0.0.1:${port}`, { signal: never }), { code: status.UNAVAILABLE });
    server.close();
  });

  test("wrong arguments are refused at once", () => {
    const wrong = { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT" };
    assert.throws(() => dialGrpc(undefined as unknown as ChannelCredentials), wrong);
    assert.throws(() => dialGrpc({} as ChannelCredentials), wrong);
    assert.throws(() => dialGrpc(insecure, 5 as unknown as object), wrong);
    assert.throws(() => dialGrpc(insecure, { "grpc.service_config": "{" }), wrong);
    assert.throws(() => dialGrpc(insecure, {}, { maxStreams: "1" as unknown as number }), wrong);
    assert.throws(() => dialGrpc(insecure, {}, { streams: 1 } as object), wrong);
    assert.throws(() => dialGrpc(insecure, {}, null as unknown as object), wrong);
    assert.throws(() => dialGrpc(insecure, {}, 5 as unknown as object), wrong);
    for (const maxStreams of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.throws(() => dialGrpc(insecure, {}, { maxStreams }), {
        name: "PoolRangeError",
        code: "ERR_POOL_ARGUMENT",
      });
    }
  });

  test("an unusable key is refused at once", async () => {
    for (const key of ["", "host:port", "ho st:1", "[::1:5", ":5", 5 as unknown as string, {} as unknown as string]) {
      await assert.rejects(
        async () => dial(key, { signal: never }),
        { name: "PoolTypeError", final: true },
        String(key),
      );
    }
    for (const key of ["127.0.0.1:0", "localhost:65536", "[::1]:70000", "ipv4:127.0.0.1:1,127.0.0.1:70000"]) {
      await assert.rejects(async () => dial(key, { signal: never }), { name: "PoolRangeError", final: true }, key);
    }
  });

  test("an address may stand behind ipv4: and ipv6:, with slashes and without", async (t) => {
    await using echo = await startEcho();
    const six = createServer((socket) => {
      const to = connect(echo.port, "127.0.0.1");
      socket.pipe(to).pipe(socket);
      socket.on("error", () => to.destroy()).on("close", () => to.destroy());
      to.on("error", () => {});
    });
    const bound = await new Promise<boolean>((resolve) => {
      six.once("error", () => resolve(false)).listen(0, "::1", () => resolve(true));
    });
    const keys = [`ipv4:${echo.address}`, `ipv4:///${echo.address}`];
    if (bound) {
      const { port } = six.address() as AddressInfo;
      keys.push(`ipv6:[::1]:${port}`, `ipv6:///[::1]:${port}`);
    } else t.diagnostic("there is no IPv6 here: its addresses are not tested");
    for (const key of keys) {
      const conn = await dial(key, { signal: never });
      assert.deepEqual(await conn.invoke(echoService.unary, { text: key }), { text: key });
      await conn.close();
    }
    six.close();
  });

  test("an unusable key is dialed once, by who waits for ready, too", async () => {
    await using pool = new Pool();
    for (const key of ["", "host:99999", 42 as unknown as string]) {
      const call = pool
        .get(key, dial)
        .invoke(echoService.unary, { text: "a" }, { waitForReady: true, timeoutMs: 2_000 });
      const error = await rejection(call);
      assert.ok(error instanceof DialError && error.final, String(error));
    }
    assert.equal(pool.stats().dials, 3);
  });
});
