import assert from "node:assert/strict";
import { createServer as createHttp2Server, type ServerHttp2Session } from "node:http2";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { describe, type TestContext, test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import type { Dial, PoolConn } from "../../src/contract.ts";
import { dialGrpc, dialGrpcHttp2 } from "../../src/grpc/index.ts";
import { dialHttp2 } from "../../src/http2/index.ts";
import { dialSocket } from "../../src/net/dial.ts";
import { instrument } from "../../src/otel/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { ScriptedConn } from "../support/conn.ts";
import { nothingUnheard } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";
import { Telemetry } from "../support/telemetry.ts";

nothingUnheard();

async function listen(t: TestContext, server: Server): Promise<{ port: number; sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => void sockets.add(socket.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(0, "localhost", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, sockets };
}

/** What the counter says once a conn has gone. */
async function after<C extends PoolConn>(t: TestContext, dial: Dial<string, C>, key: string, end: () => void) {
  const telemetry = new Telemetry();
  const pool = new Pool<string, C>({ dial });
  t.after(() => pool.close({ graceMs: 0 }));
  using _watching = instrument(pool, telemetry);
  let gone = false;
  pool.on("closed", () => {
    gone = true;
  });
  await pool.warm(key);
  end();
  await until(() => gone, "the conn is closed");
  return Object.keys((await telemetry.collect())["disconnections"] ?? {});
}

describe("why conns were closed, in gRPC's words", () => {
  const insecure = credentials.createInsecure();
  const dials: Record<string, { dial: Dial<string, PoolConn>; scheme: string }> = {
    dialHttp2: { dial: dialHttp2(), scheme: "http://" },
    dialGrpc: { dial: dialGrpc(insecure), scheme: "" },
    dialGrpcHttp2: { dial: dialGrpcHttp2(insecure), scheme: "" },
  };
  for (const [name, { dial, scheme }] of Object.entries(dials)) {
    for (const [code, word] of [
      [0, "NO_ERROR"],
      [11, "ENHANCE_YOUR_CALM"],
    ] as const) {
      test(`${name}: a GOAWAY with its code, ${word}, though the connection is lost then`, async (t) => {
        const sessions = new Set<ServerHttp2Session>();
        const server = createHttp2Server().on("session", (session) => void sessions.add(session.on("error", () => {})));
        const { port } = await listen(t, server);
        const said = await after(t, dial, `${scheme}localhost:${port}`, () => {
          for (const session of sessions) session.goaway(code);
        });
        assert.deepEqual(said, [`close.reason=goaway grpc.disconnect_error=GOAWAY ${word}`]);
      });
    }
  }

  test("a socket that was reset, and one that was ended", async (t) => {
    const { port, sockets } = await listen(t, createServer());
    const key = `localhost:${port}`;
    const reset = await after(t, dialSocket(), key, () => {
      for (const socket of sockets) socket.resetAndDestroy();
      sockets.clear();
    });
    assert.deepEqual(reset, ["close.reason=died grpc.disconnect_error=connection reset"]);
    const ended = await after(t, dialSocket(), key, () => {
      for (const socket of sockets) socket.end();
    });
    assert.deepEqual(ended, ["close.reason=died grpc.disconnect_error=socket error"]);
  });

  test("what the pool decides is a shutdown; what a caller discards is what it says", async (t) => {
    const telemetry = new Telemetry();
    const { pool, clock } = pooled(t, { expirationMs: 1_000 });
    t.after(instrument(pool, telemetry).stop);
    const discard = (error?: unknown) => {
      pool.put("k", new ScriptedConn());
      pool.tryAcquire("k")?.discard(error);
    };
    discard();
    discard(Object.assign(new Error("read"), { code: "ETIMEDOUT" }));
    discard(new Error("no sense"));
    pool.put("k", new ScriptedConn());
    await clock.advance(2_000);
    assert.deepEqual((await telemetry.collect())["disconnections"], {
      "close.reason=discarded grpc.disconnect_error=unknown": 1,
      "close.reason=discarded grpc.disconnect_error=connection timed out": 1,
      "close.reason=discarded grpc.disconnect_error=socket error": 1,
      "close.reason=expired grpc.disconnect_error=subchannel shutdown": 1,
    });
  });
});
