import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createSecureServer, createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { dialHttp2, type Http2Conn, type Http2DialOptions } from "../../src/http2/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { ca, localhost } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { ErrorCode, FrameType, type HostileConn, HostileHttp2, type Manners } from "../support/hostile-http2.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";

nothingUnheard();

const never = new AbortController().signal;

/** Answers with the path that was asked for. */
function echoPath(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
  stream.on("error", () => {}).respond({ ":status": 200 });
  stream.end(headers[":path"]);
}

async function listen(t: TestContext, server: Server, at: string | number = 0): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => void sockets.add(socket.on("error", () => {})));
  await new Promise<void>((resolve) =>
    typeof at === "string" ? server.listen(at, resolve) : server.listen(at, "localhost", resolve),
  );
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return typeof at === "string" ? 0 : (server.address() as AddressInfo).port;
}

async function ask(conn: Http2Conn, path: string): Promise<string> {
  const stream = conn.request({ ":path": path });
  let body = "";
  for await (const chunk of stream) body += String(chunk);
  return body;
}

async function dial(t: TestContext, key: string, options: Http2DialOptions = {}): Promise<Http2Conn> {
  const conn = await dialHttp2(options)(key, { signal: never });
  t.after(() => conn.close());
  return conn;
}

/** A conn of ours and the hostile server's end of it. */
async function pair(t: TestContext, manners?: Manners, options?: Http2DialOptions) {
  const server = await HostileHttp2.start(() => {}, manners);
  t.after(() => server[Symbol.asyncDispose]());
  const conn = await dial(t, server.url, options);
  const [peer] = server.conns;
  assert.ok(peer);
  return { conn, peer, server };
}

const streamClosed = (stream: NodeJS.EventEmitter) => new Promise((resolve) => stream.once("close", resolve));

describe("dialing HTTP/2", () => {
  test("a pool of sessions serves plain text, TLS and Unix sockets, with one connection each", async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "http2-"));
    t.after(() => rm(folder, { recursive: true }));
    const path = join(folder, "socket");
    const plain = await listen(t, createServer().on("stream", echoPath));
    const secure = await listen(t, createSecureServer(localhost).on("stream", echoPath));
    await listen(t, createServer().on("stream", echoPath), path);
    await using pool = new Pool({ dial: dialHttp2({ tls: { ca } }) });
    for (const key of [`http://localhost:${plain}`, `https://localhost:${secure}`, `unix:${path}`]) {
      assert.equal(await pool.use(key, (conn) => ask(conn, "/one")), "/one");
      assert.equal(await pool.use(key, (conn) => ask(conn, "/two")), "/two");
      assert.equal(pool.stats(key).dials, 1);
    }
  });

  test("a name is sent as the TLS server name, an IP address is not, and both are checked", async (t) => {
    const names: (string | false | null | undefined)[] = [];
    const server = createSecureServer(localhost).on("stream", echoPath);
    server.on("secureConnection", (socket) => names.push(socket.servername));
    const port = await listen(t, server);
    const { address } = server.address() as AddressInfo;
    const ip = address.includes(":") ? `[${address}]` : address;
    const warnings: Error[] = [];
    const warned = (warning: Error) => void warnings.push(warning);
    process.on("warning", warned);
    t.after(() => process.off("warning", warned));
    assert.equal(await ask(await dial(t, `https://localhost:${port}`, { tls: { ca } }), "/"), "/");
    assert.equal(await ask(await dial(t, `https://${ip}:${port}`, { tls: { ca } }), "/"), "/");
    assert.deepEqual(names, ["localhost", false]);
    const other = dial(t, `https://localhost:${port}`, { tls: { ca, servername: "other.test" } });
    assert.match((await rejection(other)).message, /other\.test/);
    assert.deepEqual(warnings, []);
  });

  test("it waits for the peer's settings: a peer that sends none is not dialed until the signal aborts", async (t) => {
    const server = await HostileHttp2.start(() => {}, { settings: undefined });
    t.after(() => server[Symbol.asyncDispose]());
    const controller = new AbortController();
    const dialing = Promise.resolve(dialHttp2()(server.url, { signal: controller.signal }));
    await until(() => server.conns.length === 1, "it has connected");
    const reason = new Error("enough");
    controller.abort(reason);
    assert.equal(await rejection(dialing), reason);
    await until(() => server.conns[0]?.socket.destroyed === true, "the socket is closed");
  });

  test("the first limit that a caller sees is the peer's, not a placeholder", async (t) => {
    const { conn } = await pair(t, { settings: { maxConcurrentStreams: 7 } });
    assert.equal(conn.maxStreams, 7);
    const { conn: silent } = await pair(t, {});
    assert.equal(silent.maxStreams, 100);
    const { conn: capped } = await pair(t, { settings: { maxConcurrentStreams: 7 } }, { maxStreams: 3 });
    assert.equal(capped.maxStreams, 3);
  });

  test("a GOAWAY that comes in one piece with the settings is not missed", async (t) => {
    const greet = (conn: HostileConn) => conn.together(() => conn.settings({}).goaway(0, ErrorCode.noError, "moved"));
    const server = await HostileHttp2.start(greet, { settings: undefined });
    t.after(() => server[Symbol.asyncDispose]());
    const conn = await dial(t, server.url);
    await until(() => conn.draining, "it drains");
    assert.deepEqual({ ...conn.goaway, data: String(conn.goaway?.data) }, { code: 0, lastStreamId: 0, data: "moved" });
    await conn.closed;
  });

  test("a peer that speaks something else, or hangs up, fails the dial and leaves no socket", async (t) => {
    const sockets: Socket[] = [];
    const web = createTcpServer((socket) => {
      sockets.push(socket.on("error", () => {}).resume());
      socket.write("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
    });
    const port = await listen(t, web);
    assert.match((await rejection(dial(t, `http://localhost:${port}`))).message, /protocol error/i);
    await until(() => sockets[0]?.closed === true, "the socket is closed");
    const mute = createTcpServer((socket) => void socket.on("error", () => {}).end());
    const mutePort = await listen(t, mute);
    const error = await rejection(dial(t, `http://localhost:${mutePort}`));
    assert.match(error.message, /hung up before it spoke HTTP\/2|closed the connection while it was dialed/);
  });

  test("keys that are no origins are refused for good, wrong options at once", async () => {
    for (const key of ["localhost:1", "ftp://localhost", "", "unix:"]) {
      const error = await rejection(Promise.resolve(dialHttp2()(key, { signal: never })));
      assert.equal(Object(error).final, true, key);
      assert.match(error.message, /expected an origin|no path/, key);
    }
    for (const options of [{ maxStreams: 0 }, { maxStreams: 1.5 }]) {
      assert.throws(() => dialHttp2(options), { name: "PoolRangeError", code: "ERR_POOL_ARGUMENT" });
    }
    for (const options of [{ streams: 1 }, { tls: true }, { session: 1 }, { lookup: 1 }, { tags: "no" }]) {
      assert.throws(() => dialHttp2(options as object), { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT" });
    }
  });
});

describe("an HTTP/2 conn", () => {
  test("its limit follows the peer's settings, down and up, and its listeners hear of it", async (t) => {
    const { conn, peer } = await pair(t, { settings: { maxConcurrentStreams: 10 } });
    const heard: number[] = [];
    conn.onChange(() => heard.push(conn.maxStreams));
    for (const limit of [3, 0, 50]) {
      peer.settings({ maxConcurrentStreams: limit });
      await until(() => conn.maxStreams === limit, `the limit is ${limit}`);
    }
    assert.deepEqual(heard, [3, 0, 50]);
    assert.equal(conn.draining, false);
  });

  test("a GOAWAY drains it: what runs goes on, nothing new begins, and it closes behind the last stream", async (t) => {
    const { conn, peer } = await pair(t);
    const stream = conn.request({ ":path": "/" });
    await until(() => peer.requests === 1, "the request is there");
    let changes = 0;
    conn.onChange(() => changes++);
    peer.goaway(1);
    await until(() => conn.draining, "it drains");
    assert.equal(changes, 1);
    assert.throws(() => conn.request({}), { name: "ConnClosedError", reason: "goaway", sent: false });
    let closed = false;
    void conn.closed.then(() => (closed = true));
    peer.respond(1, ["bye"]);
    let body = "";
    for await (const chunk of stream) body += String(chunk);
    assert.match(body, /bye/);
    if (!stream.closed) await streamClosed(stream);
    assert.equal(conn.streams, 0);
    await conn.closed;
    assert.equal(closed, true);
    assert.equal(conn.socket.destroyed, true);
  });

  test("a GOAWAY that is said twice keeps the first code that is one and the last stream id", async (t) => {
    const { conn, peer } = await pair(t);
    const stream = conn.request({ ":path": "/" }).on("error", () => {});
    await until(() => peer.requests === 1, "the request is there");
    peer.goaway(2 ** 31 - 1);
    await until(() => conn.goaway !== undefined, "it has come");
    assert.equal(conn.goaway?.lastStreamId, 2 ** 31 - 1);
    const ended = streamClosed(stream);
    peer.goaway(1, ErrorCode.enhanceYourCalm, "too_many_pings");
    await ended;
    const { code, lastStreamId, data } = conn.goaway ?? {};
    assert.deepEqual([code, lastStreamId, String(data)], [ErrorCode.enhanceYourCalm, 1, "too_many_pings"]);
  });

  const deaths: [string, (peer: HostileConn, conn: Http2Conn) => unknown][] = [
    ["the peer's reset", (peer) => peer.socket.resetAndDestroy()],
    ["the peer's end", (peer) => peer.socket.end()],
    ["a GOAWAY with an error code", (peer) => peer.goaway(0, ErrorCode.enhanceYourCalm)],
    ["a frame that must not be", (peer) => peer.frame(FrameType.ping, 0, 1, Buffer.alloc(8))],
    ["its own close()", (_, conn) => conn.close()],
    ["a destroyed session", (_, conn) => conn.session.destroy(new Error("by hand"))],
    ["a destroyed socket", (_, conn) => conn.socket.destroy(new Error("by hand"))],
  ];
  for (const [what, kill] of deaths) {
    test(`it closes before the streams that die with it: ${what}`, async (t) => {
      const { conn, peer } = await pair(t);
      const order: string[] = [];
      const streams = [conn.request({ ":path": "/" }), conn.request({ ":path": "/" })];
      const ended = streams.map((stream) => {
        stream.on("error", () => {});
        return new Promise<void>((resolve) => {
          // What tells an RPC of its end; the first of these counts.
          const over = () => queueMicrotask(() => void order.push("stream"));
          stream.once("error", over).once("close", resolve);
          stream.once("close", () => stream.errored ?? over());
        });
      });
      await until(() => peer.requests === 2, "the requests are there");
      void conn.closed.then(() => order.push("closed"));
      void kill(peer, conn);
      await Promise.all(ended);
      await conn.closed;
      assert.deepEqual(order, ["closed", "stream", "stream"]);
      assert.equal(conn.draining, true);
      assert.equal(conn.streams, 0);
      await until(() => conn.socket.closed, "the socket is closed");
    });
  }

  test("its bytesRead grows with what the peer sends, over plain text and TLS", async (t) => {
    const plain = await listen(t, createServer().on("stream", echoPath));
    const secure = await listen(t, createSecureServer(localhost).on("stream", echoPath));
    for (const key of [`http://localhost:${plain}`, `https://localhost:${secure}`]) {
      const conn = await dial(t, key, { tls: { ca } });
      const atFirst = conn.bytesRead;
      assert.ok(atFirst > 0, key);
      await ask(conn, `/${"x".repeat(1000)}`);
      const after = conn.bytesRead;
      assert.ok(after >= atFirst + 1000, `${key}: ${atFirst}, then ${after}`);
      await conn.ping();
      assert.ok(conn.bytesRead > after, key);
    }
  });

  test("a ping resolves when the peer answers, and rejects with the signal's reason when it does not", async (t) => {
    const { conn } = await pair(t);
    await conn.ping({ signal: never });
    const { conn: dead } = await pair(t, { answersPings: false });
    await until(() => dead.bytesRead === 18, "the settings and the acknowledgement of ours have come");
    const reason = new Error("no answer");
    const controller = new AbortController();
    const asked = dead.ping({ signal: controller.signal });
    setTimeout(() => controller.abort(reason), 20);
    assert.equal(await rejection(asked), reason);
    assert.equal(await rejection(dead.ping({ signal: controller.signal })), reason);
    assert.equal(dead.draining, false); // what follows from it, the pool decides
  });

  test("a ping that Node does not send is no evidence of death: any byte answers it", async (t) => {
    const { conn, peer } = await pair(t, { answersPings: false });
    await until(() => conn.bytesRead === 18, "the settings and the acknowledgement of ours have come");
    for (let i = 0; i < 10; i++) conn.session.ping(() => {});
    let answered = false;
    const asked = conn.ping().then(() => (answered = true));
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(answered, false);
    peer.settings({});
    await asked;
  });

  test("a ping on a conn that drains is answered by any byte; on a closed one it resolves at once", async (t) => {
    const { conn, peer } = await pair(t, { answersPings: false });
    const stream = conn.request({ ":path": "/" }).on("error", () => {});
    await until(() => peer.requests === 1, "the request is there");
    peer.goaway(1);
    await until(() => conn.draining, "it drains");
    const asked = conn.ping();
    peer.settings({});
    await asked;
    const pending = conn.ping(); // settled by the end of the session
    const ended = streamClosed(stream);
    void conn.close();
    await Promise.all([pending, ended]);
    await conn.ping();
  });

  test("a session that Node gives up shows by its end, or where that comes without a word by a ping", async (t) => {
    const { conn, peer } = await pair(t);
    const stream = conn.request({ ":path": "/" }).on("error", () => {});
    await until(() => peer.requests === 1, "the request is there");
    peer.frame(FrameType.data, 0, 0, Buffer.from("DATA of no stream"));
    await until(() => peer.frames.some(({ type }) => type === FrameType.goaway), "Node says GOAWAY and reads no more");
    // Node 20 says nothing; later ones fail the session.
    const silent = new Promise((resolve) => setTimeout(resolve, 50, "silent"));
    if ((await Promise.race([conn.closed, silent])) !== "silent") {
      assert.ok(!process.versions.node.startsWith("20."));
      assert.equal(conn.draining, true);
      await Promise.all([conn.ping(), conn.close()]);
      assert.equal(conn.streams, 0);
      return;
    }
    const { bytesRead } = conn;
    const reason = new Error("no answer");
    const controller = new AbortController();
    const asked = conn.ping({ signal: controller.signal });
    setTimeout(() => controller.abort(reason), 50);
    assert.equal(await rejection(asked), reason);
    assert.equal(conn.bytesRead, bytesRead);
    await Promise.all([streamClosed(stream), conn.close()]);
    assert.equal(conn.streams, 0);
  });

  test("close() of a peer that never closes its side is cut short, and idempotent", async (t) => {
    const deaf = createTcpServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => {}).resume();
      socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])); // SETTINGS
    });
    const conn = await dial(t, `http://localhost:${await listen(t, deaf)}`);
    const begun = performance.now();
    const closing = conn.close();
    assert.equal(conn.draining, true);
    assert.equal(conn.socket.destroyed, false);
    await Promise.all([closing, conn.close(), conn.closed]);
    assert.equal(conn.socket.destroyed, true);
    assert.ok(performance.now() - begun > 900, "the peer had its second");
  });

  test("drain() lets the streams end first", async (t) => {
    const { conn, peer } = await pair(t);
    const stream = conn.request({ ":path": "/" }).resume();
    await until(() => peer.requests === 1, "the request is there");
    conn.drain();
    assert.equal(conn.draining, true);
    assert.equal(stream.closed, false);
    peer.respond(1);
    await conn.closed;
    assert.equal(stream.rstCode, 0);
  });

  test("onEnd comes a turn of the event loop after the stream's close", async (t) => {
    const { conn, peer } = await pair(t);
    peer.onRequest = (stream) => void peer.respond(stream);
    const order: string[] = [];
    await new Promise<void>((resolve) => {
      const stream = conn.request({ ":path": "/" }, { endStream: true }, () => {
        order.push("end");
        resolve();
      });
      stream.resume().once("close", () => {
        order.push("close");
        process.nextTick(() => order.push("tick"));
        void Promise.resolve().then(() => order.push("microtask"));
      });
    });
    assert.deepEqual(order, ["close", "tick", "microtask", "end"]);
  });
});
