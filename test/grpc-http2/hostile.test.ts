import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { credentials, status } from "@grpc/grpc-js";
import type { Rpc } from "../../src/contract.ts";
import { dialGrpcHttp2, GrpcError } from "../../src/grpc/index.ts";
import { isPoolError, Pool } from "../../src/index.ts";
import { until } from "../support/clock.ts";
import { dataAfterEnd, garbage, type Hostility, negative, resetsAll, wellBehaved } from "../support/hostile-cases.ts";
import {
  ErrorCode,
  frameBytes,
  grpcMessage,
  type HostileConn,
  HostileHttp2,
  responseHeaders,
} from "../support/hostile-http2.ts";
import { rejection } from "../support/outcome.ts";

const dial = dialGrpcHttp2(credentials.createInsecure(), { "grpc.max_receive_message_length": 100_000 });
const text: Rpc<string, string> = {
  path: "/test.Hostile/Text",
  requestSerialize: (message) => Buffer.from(message),
  responseDeserialize: (bytes) => bytes.toString(),
};

function poolOf(): Pool {
  return new Pool<string>({ dial });
}

describe("a reset stream", () => {
  // https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
  for (const [name, number, code] of [
    ["NO_ERROR", 0, status.INTERNAL],
    ["PROTOCOL_ERROR", 1, status.INTERNAL],
    ["INTERNAL_ERROR", 2, status.INTERNAL],
    ["FLOW_CONTROL_ERROR", 3, status.INTERNAL],
    ["FRAME_SIZE_ERROR", 6, status.INTERNAL],
    ["REFUSED_STREAM", 7, status.UNAVAILABLE],
    ["CANCEL", 8, status.CANCELLED],
    ["COMPRESSION_ERROR", 9, status.INTERNAL],
    ["CONNECT_ERROR", 10, status.INTERNAL],
    ["ENHANCE_YOUR_CALM", 11, status.RESOURCE_EXHAUSTED],
    ["INADEQUATE_SECURITY", 12, status.PERMISSION_DENIED],
  ] as const) {
    for (const header of [true, false]) {
      test(`with ${name}, ${header ? "behind" : "without"} a header: ${status[code]}`, {
        timeout: 60_000,
      }, async () => {
        await using server = await HostileHttp2.start((conn) => {
          conn.onRequest = (stream) => {
            if (header) conn.headers(stream, responseHeaders);
            conn.rst(stream, number);
          };
        });
        await using pool = poolOf();
        const error = await rejection(pool.get(server.address).invoke(text, "x"));
        assert.equal(status[Object(error).code], status[code]);
        // Refused without a header it was certainly not processed: it was sent again, once.
        assert.equal(server.requests, name === "REFUSED_STREAM" && !header ? 2 : 1);
      });
    }
  }
});

// https://github.com/grpc/grpc/blob/master/doc/negative-http2-interop-test-descriptions.md
describe("gRPC's negative HTTP/2 cases", () => {
  const run = async (hostility: Hostility, check: (pool: Pool, server: HostileHttp2) => Promise<void>) => {
    await using server = await HostileHttp2.start(hostility);
    await using pool = poolOf();
    await check(pool, server);
    assert.equal(pool.stats().streams, 0);
  };
  for (const name of ["rstAfterHeader", "rstDuringData", "rstAfterData"] as const) {
    test(`${name}: the call fails, and the conn goes on`, { timeout: 60_000 }, () =>
      run(negative[name], async (pool, server) => {
        for (let i = 0; i < 3; i++) {
          const error = await rejection(pool.get(server.address).invoke(text, "x"));
          assert.equal(Object(error).code, status.INTERNAL);
        }
        assert.equal(pool.stats().dials, 1);
      }),
    );
  }
  test("goaway: the next call has another connection", { timeout: 60_000 }, () =>
    run(negative.goaway, async (pool, server) => {
      for (let i = 0; i < 3; i++) assert.equal(await pool.get(server.address).invoke(text, "x"), "");
      assert.equal(server.conns.length, 3);
    }),
  );
  test("ping: all are answered", { timeout: 60_000 }, () =>
    run(negative.ping, async (pool, server) => {
      assert.equal(await pool.get(server.address).invoke(text, "x"), "");
      await until(() => (server.conns[0]?.pongs ?? 0) >= 4, "pongs");
    }),
  );
  test("max_streams: obeyed at once", { timeout: 60_000 }, () =>
    run(negative.maxStreams, async (pool, server) => {
      pool.configure({ maxKeyConns: 1 });
      await pool.get(server.address).invoke(text, "x");
      await Promise.all(Array.from({ length: 10 }, () => pool.get(server.address).invoke(text, "x")));
      assert.equal(server.conns[0]?.mostOpen, 1);
    }),
  );
  test("data frame padding: dropped", { timeout: 60_000 }, () =>
    run(negative.padding, async (pool, server) => {
      for (let i = 0; i < 6; i++) {
        const stream = await pool.get(server.address).newStream(text);
        await stream.closeSend("x");
        const got: string[] = [];
        for await (const each of stream) got.push(each);
        assert.deepEqual(got, ["\n\u0006padded"]);
      }
    }),
  );
});

/** Whatever a peer does to its first connections, calls end with a clear status and the pool goes on. */
async function survives(hostility: Hostility, rounds: number, most = 40): Promise<void> {
  let hostile = true;
  await using server = await HostileHttp2.start((conn, index) =>
    hostile ? hostility(conn, index) : wellBehaved(conn, index),
  );
  await using pool = poolOf();
  const handle = pool.get(server.address);
  const before = process.memoryUsage();
  for (let round = 0; round < rounds; round++) {
    const result = await handle.invoke(text, "x", { timeoutMs: 200 }).catch((error: unknown) => error);
    if (typeof result === "string") continue;
    assert.ok(result instanceof GrpcError || isPoolError(result), String(result));
    if (result instanceof GrpcError) assert.ok(result.details.length > 0, "it says why");
  }
  const { arrayBuffers, external } = process.memoryUsage();
  assert.ok(arrayBuffers - before.arrayBuffers + external - before.external < most << 20, "memory is bounded");
  assert.equal(pool.stats().streams, 0);
  hostile = false;
  pool.clear();
  assert.equal(await handle.invoke(text, "x", { timeoutMs: 5_000 }), "");
}

const hostilities: Record<string, Hostility> = {
  "ends and goes on": dataAfterEnd,
  "speaks of no stream": garbage,
  "resets all": resetsAll,
  "sends more headers than fit": (conn) => {
    conn.onRequest = (stream) => {
      for (let i = 0; i < 10; i++) conn.headers(stream, { ...responseHeaders, "x-a": "a".repeat(12_000) });
    };
  },
  "names a length that it does not send": (conn) => {
    conn.onRequest = (stream) => {
      conn.headers(stream, responseHeaders).data(stream, Buffer.of(0, 0, 1, 0x86, 0x9f, 1, 2, 3), { end: true });
    };
  },
  "names a length over the limit": (conn) => {
    conn.onRequest = (stream) => {
      conn.headers(stream, responseHeaders).data(stream, Buffer.of(0, 0xff, 0xff, 0xff, 0xff));
    };
  },
  "compresses without saying how": (conn) => {
    conn.onRequest = (stream) => {
      conn.headers(stream, responseHeaders).data(stream, Buffer.of(1, 0, 0, 0, 1, 9), { end: true });
    };
  },
  "compresses garbage": (conn) => {
    conn.onRequest = (stream) => {
      conn.headers(stream, { ...responseHeaders, "grpc-encoding": "gzip" });
      conn.data(stream, Buffer.of(1, 0, 0, 0, 4, 9, 9, 9, 9)).headers(stream, { "grpc-status": "0" }, { end: true });
    };
  },
  "sends more messages than one": (conn) => {
    conn.onRequest = (stream) => {
      conn.headers(stream, responseHeaders);
      for (let i = 0; i < 2_000; i++) conn.data(stream, grpcMessage("m".repeat(100)));
      conn.headers(stream, { "grpc-status": "0" }, { end: true });
    };
  },
};

describe("a peer that", { concurrency: true }, () => {
  for (const [name, hostility] of Object.entries(hostilities)) {
    test(name, { timeout: 60_000 }, () => survives(hostility, 5));
  }

  for (let seed = 1; seed <= 6; seed++) {
    test(`sends frames at random (${seed})`, { timeout: 60_000 }, () => survives(random(seed), 30));
  }
});

/** Frames of all kinds, with flags, lengths and contents that fit, or do not. */
function random(seed: number): Hostility {
  let state = seed;
  const below = (limit: number): number => {
    state = (state * 48_271) % 2_147_483_647;
    return state % limit;
  };
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => below(256)));
  const one = (conn: HostileConn, stream: number): void => {
    const end = below(3) === 0;
    switch (below(9)) {
      case 0:
        conn.headers(stream, below(4) ? responseHeaders : { ":status": String(100 + below(500)) }, { end });
        break;
      case 1:
        conn.data(stream, grpcMessage(bytes(below(200))), { end });
        break;
      case 2:
        conn.data(stream, bytes(below(50)), { end });
        break;
      case 3:
        conn.headers(stream, { "grpc-status": String(below(30)), "grpc-message": "%" }, { end: true });
        break;
      case 4:
        conn.rst(stream, below(20));
        break;
      case 5:
        conn.frame(below(12), below(256), below(2) ? stream : below(10), bytes(below(40)));
        break;
      case 6: {
        const frame = frameBytes(below(12), below(256), stream, bytes(below(40)));
        frame[below(3)] = below(256); // a length that is a lie
        conn.raw(frame);
        break;
      }
      case 7:
        conn.goaway(below(2) ? 0 : stream, below(2) ? ErrorCode.noError : below(14));
        break;
      default:
        conn.headers(stream, responseHeaders).data(stream, grpcMessage("ok"));
        conn.headers(stream, { "grpc-status": "0" }, { end: true });
    }
  };
  return (conn) => {
    conn.onRequest = (stream) => {
      for (let i = below(6); i >= 0 && !conn.socket.destroyed; i--) one(conn, stream);
      // What waits for more than comes would wait for its deadline.
      setTimeout(() => conn.socket.destroy(), 5);
    };
  };
}
