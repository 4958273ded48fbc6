import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, test } from "node:test";
import { credentials, ServerCredentials } from "@grpc/grpc-js";
import { dialGrpc, type GrpcConn } from "../../src/grpc/index.ts";
import { ca, localhost } from "../support/certs.ts";
import { until } from "../support/clock.ts";
import { echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { startRaw } from "../support/raw-grpc.ts";

const insecure = credentials.createInsecure();
const dial = dialGrpc(insecure);
const { signal } = new AbortController();

/** A link to `address` that can be silenced: what is sent then gets lost, and nobody hangs up. */
async function startLink(port: number) {
  const sockets = new Set<Socket>();
  const clients = new Set<Socket>();
  let silent = false;
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    clients.add(near);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("data", (bytes) => {
        if (!silent) to.write(bytes);
      });
      from.on("close", () => to.destroy()).on("error", () => {});
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    silence(): void {
      silent = true;
    },
    /** Sends the clients a frame that no ping waits for: empty SETTINGS. */
    speak(): void {
      for (const client of clients) client.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    },
    async [Symbol.asyncDispose](): Promise<void> {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** How a promise ended within 100 ms. */
async function stateOf(promise: PromiseLike<unknown>): Promise<string> {
  const ended = Promise.resolve(promise).then(
    () => "answered",
    () => "failed",
  );
  return Promise.race([ended, new Promise<string>((resolve) => setTimeout(resolve, 100, "pending"))]);
}

function ping(conn: GrpcConn, options = { signal }): PromiseLike<unknown> {
  assert.ok(conn.ping !== undefined);
  return conn.ping(options);
}

describe("signs of life of a gRPC conn", () => {
  const pair = { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.cert) };
  for (const [kind, server, client] of [
    ["plain text", undefined, insecure],
    ["TLS", ServerCredentials.createSsl(null, [pair]), credentials.createSsl(Buffer.from(ca))],
  ] as const) {
    test(`bytesRead grows with what comes, and with nothing else, over ${kind}`, async () => {
      await using echo = await startEcho(server);
      const conn = await dialGrpc(client)(`localhost:${echo.port}`, { signal });
      let last = conn.bytesRead;
      assert.ok(last > 0, "the peer's settings");
      for (let i = 0; i < 3; i++) {
        await conn.invoke(echoService.unary, { text: "x".repeat(1_000) });
        assert.ok(conn.bytesRead > last + 1_000, `${conn.bytesRead} after ${last}`);
        last = conn.bytesRead;
      }
      await ping(conn);
      assert.ok(conn.bytesRead > last);
      await conn.close();
    });
  }

  test("a ping is answered by a peer that runs calls and answers none of them", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal });
    const call = rejection(conn.invoke(echoService.unary, { text: "x", delayMs: -1 }));
    await until(() => echo.running === 1, "the call arrives");
    assert.equal(await stateOf(ping(conn)), "answered");
    await conn.close();
    await call;
  });

  test("a ping over a dead link is pending, until its signal aborts", async () => {
    await using echo = await startEcho();
    await using link = await startLink(echo.port);
    const conn = await dial(link.address, { signal });
    await conn.invoke(echoService.unary, { text: "x" });
    link.silence();
    const { bytesRead } = conn;
    const controller = new AbortController();
    const pinging = ping(conn, controller);
    assert.equal(await stateOf(pinging), "pending");
    assert.equal(conn.bytesRead, bytesRead);
    const reason = new Error("too long");
    controller.abort(reason);
    assert.equal(await rejection(Promise.resolve(pinging)), reason);
    assert.equal(await rejection(Promise.resolve(ping(conn, controller))), reason);
    await conn.close();
  });

  test("a ping that cannot be sent is answered by any byte, and by nothing else", async () => {
    await using echo = await startEcho();
    await using link = await startLink(echo.port);
    const conn = await dial(link.address, { signal });
    await conn.invoke(echoService.unary, { text: "x" });
    link.silence();
    const pings = Array.from({ length: 11 }, () => ping(conn));
    assert.equal(await stateOf(Promise.any(pings)), "pending", "Node sends ten, and nobody answers");
    link.speak();
    assert.equal(await stateOf(Promise.all(pings)), "answered");
    await conn.close();
  });

  test("pings that cannot be sent are no evidence of death: neither too many at once, nor one of a conn that closes", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal });
    assert.deepEqual(
      new Set(await Promise.all(Array.from({ length: 50 }, () => stateOf(ping(conn))))),
      new Set(["answered"]),
    );
    const last = ping(conn);
    await conn.close();
    assert.equal(await stateOf(last), "answered");
    assert.equal(await stateOf(ping(conn)), "answered");
  });
});

describe("a gRPC conn is draining from the moment that its end has begun", () => {
  test("when it is closed", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal });
    const closing = conn.close();
    assert.equal(conn.draining, true);
    await closing;
  });

  test("when its socket has gone, before anybody is told", async () => {
    await using echo = await startEcho();
    const sockets: Socket[] = [];
    const onSocket = (message: unknown): void => void sockets.push((message as { socket: Socket }).socket);
    subscribe("net.client.socket", onSocket);
    const conn = await dial(echo.address, { signal });
    unsubscribe("net.client.socket", onSocket);
    assert.equal(conn.draining, false);
    for (const socket of sockets) socket.destroy();
    assert.equal(conn.draining, true);
    await conn.closed;
  });

  test("when a GOAWAY has come, though calls run on", async () => {
    await using raw = await startRaw((stream) => stream.session?.goaway(0, stream.id));
    const conn = await dial(raw.address, { signal });
    const states: string[] = [];
    conn.onChange(() => states.push(`draining ${conn.draining}`));
    const call = rejection(conn.invoke(echoService.unary, { text: "x" }));
    await until(() => states.length > 0, "the GOAWAY comes");
    assert.deepEqual(states, ["draining true"]);
    await conn.close();
    await call;
  });
});
