import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { credentials, status } from "@grpc/grpc-js";
import { ConnClosedError } from "../../src/errors.ts";
import { dialGrpc, type GrpcConn } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { answer, startRaw } from "../support/raw-grpc.ts";

const dial = dialGrpc(credentials.createInsecure());
const never = new AbortController().signal;
const waiting = { text: "x", delayMs: -1 };

/** What happened to a conn and its calls, in order. */
function record(conn: GrpcConn): string[] {
  const log: string[] = [];
  conn.onChange(() => log.push(`draining ${conn.draining}`));
  void conn.closed.then(() => log.push("closed"));
  return log;
}

describe("a gRPC conn that leaves", () => {
  test("after a GOAWAY it takes no new RPC, finishes what runs, and closes", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    const log = record(conn);
    const call = conn.invoke(echoService.unary, { text: "last", delayMs: 50 }).then(({ text }) => log.push(text));
    await until(() => echo.handled === 1, "the call arrives");
    echo.server.tryShutdown(() => {});
    await until(() => conn.draining, "the GOAWAY comes");
    await assert.rejects(conn.invoke(echoService.unary, { text: "late" }), {
      name: "ConnClosedError",
      code: "ERR_POOL_CONN_CLOSED",
      reason: "goaway",
      sent: false,
    });
    await assert.rejects(conn.newStream(echoService.chat), { name: "ConnClosedError", sent: false });
    await call;
    assert.deepEqual(log, ["draining true", "closed", "last"]);
    assert.equal(echo.handled, 1);
    await until(() => echo.sockets.size === 0, "the connection closes");
  });

  test("a GOAWAY with nothing running closes it at once", async () => {
    await using raw = await startRaw((stream) => answer(stream, ['{"text":"x"}']));
    const conn = await dial(raw.address, { signal: never });
    const log = record(conn);
    for (const session of raw.sessions) session.goaway(0);
    await conn.closed;
    assert.deepEqual(log, ["draining true", "closed"]);
  });

  test("a call that the GOAWAY's last stream id leaves out runs once, on a new connection", async () => {
    const seen: number[] = [];
    await using raw = await startRaw((stream) => {
      seen.push(stream.id ?? 0);
      if (seen.length === 2) stream.session?.goaway(0, 1);
      else answer(stream, [`{"text":"${seen.length}"}`]);
    });
    const conn = await dial(raw.address, { signal: never });
    assert.deepEqual(await conn.invoke(echoService.unary, { text: "x" }), { text: "1" });
    assert.deepEqual(await conn.invoke(echoService.unary, { text: "x" }), { text: "3" });
    assert.deepEqual(seen, [1, 3, 1]);
    assert.equal(conn.draining, true);
    await conn.closed;
  });

  test("a lost connection fails its calls with their status, and closes before any of them rejects", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    const log = record(conn);
    const calls = Array.from({ length: 20 }, () =>
      conn.invoke(echoService.unary, waiting).catch((error: { code: status }) => {
        assert.equal(error.code, status.UNAVAILABLE);
        log.push("rejected");
      }),
    );
    const stream = await conn.newStream(echoService.chat);
    void stream.closed.then(() => log.push("stream closed"));
    await until(() => echo.handled === 21, "the calls arrive");
    for (const socket of echo.sockets) socket.destroy();
    await Promise.all(calls);
    await stream.closed;
    assert.equal(log[0], "closed");
    assert.equal(log.length, 22);
  });

  test("a pool counts it as died, not as a GOAWAY", async () => {
    await using echo = await startEcho();
    await using pool = new Pool<string>({ dial });
    const call = rejection(pool.get(echo.address).invoke(echoService.unary, waiting));
    await until(() => echo.handled === 1, "the call arrives");
    for (const socket of echo.sockets) socket.destroy();
    await call;
    const { died, goaway } = pool.stats().closed;
    assert.deepEqual({ died, goaway }, { died: 1, goaway: 0 });
  });

  test("a reset connection fails its calls in the same order", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    const log = record(conn);
    const calls = Array.from({ length: 5 }, () =>
      conn.invoke(echoService.unary, waiting).catch((error: { code: status }) => log.push(status[error.code])),
    );
    await until(() => echo.handled === 5, "the calls arrive");
    for (const socket of echo.sockets) socket.resetAndDestroy();
    await Promise.all(calls);
    assert.deepEqual(log.slice(0, 2), ["closed", "UNAVAILABLE"]);
  });

  test("a lost connection that runs nothing closes, and is not mistaken for a GOAWAY", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    const log = record(conn);
    for (const socket of echo.sockets) socket.destroy();
    await conn.closed;
    assert.deepEqual(log, ["closed"]);
    await assert.rejects(conn.invoke(echoService.unary, { text: "late" }), { reason: "died", sent: false });
  });

  test("close() is idempotent, cancels what runs and leaves no socket", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    const log = record(conn);
    const call = conn.invoke(echoService.unary, waiting).catch((error: { code: status }) => {
      log.push(status[error.code]);
    });
    await until(() => echo.handled === 1, "the call arrives");
    await Promise.all([conn.close(), conn.close()]);
    await call;
    assert.deepEqual(log, ["closed", "CANCELLED"]);
    await until(() => echo.cancelled === 1 && echo.sockets.size === 0, "the server sees the end");
    const error = await rejection(conn.invoke(echoService.unary, { text: "late" }));
    assert.ok(error instanceof ConnClosedError);
    assert.equal(error.reason, "pool");
    assert.equal(error.sent, false);
  });

  test("closing the real channel closes the conn", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    conn.channel.close();
    await conn.closed;
    assert.equal(conn.draining, true);
  });

  test("a call whose credentials come after the close was not sent", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    let trailers = 0;
    const call = conn.invoke(echoService.unary, { text: "x" }, { onTrailer: () => trailers++ });
    conn.channel.close();
    await assert.rejects(call, { name: "ConnClosedError", sent: false });
    assert.equal(trailers, 0);
    assert.equal(echo.handled, 0);
  });

  test("a peer that ignores our FIN holds the socket for a second, not for ever", { timeout: 60_000 }, async () => {
    // After a GOAWAY, Node's HTTP/2 server does not notice that its peer has hung up.
    await using raw = await startRaw((stream) => answer(stream, []));
    const sockets: Socket[] = [];
    const onSocket = (message: unknown): void => {
      const { socket } = message as { socket: Socket };
      sockets.push(socket);
    };
    subscribe("net.client.socket", onSocket);
    const conn = await dial(raw.address, { signal: never });
    unsubscribe("net.client.socket", onSocket);
    for (const session of raw.sessions) session.goaway(0);
    await conn.closed;
    assert.equal(sockets.length, 1);
    assert.equal(sockets[0]?.destroyed, false);
    await until(() => sockets[0]?.destroyed === true, "our socket closes");
  });

  test("a conn that runs nothing does not hold the process", async () => {
    await using echo = await startEcho();
    const script = fileURLToPath(new URL("../support/idle-client.js", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [script, echo.address], { timeout: 60_000 });
    assert.equal(stdout, "idle\n");
  });
});
