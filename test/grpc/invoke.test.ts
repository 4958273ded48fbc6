import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { after, before, describe, test } from "node:test";
import { credentials, Metadata as GrpcMetadata, status } from "@grpc/grpc-js";
import type { Metadata } from "../../src/contract.ts";
import { dialGrpc, type GrpcConn, GrpcError } from "../../src/grpc/index.ts";
import { until } from "../support/clock.ts";
import { type EchoServer, echoService, startEcho } from "../support/echo-service.ts";
import { reasonOf, rejection } from "../support/outcome.ts";
import { answer, startRaw } from "../support/raw-grpc.ts";

const dial = dialGrpc(credentials.createInsecure());
const never = new AbortController().signal;

describe("invoke on a gRPC conn", () => {
  let echo: EchoServer;
  let conn: GrpcConn;
  before(async () => {
    echo = await startEcho();
    conn = await dial(echo.address, { signal: never });
  });
  after(async () => {
    await conn.close();
    await echo[Symbol.asyncDispose]();
  });

  test("gives the response of a unary RPC", async () => {
    assert.deepEqual(await conn.invoke(echoService.unary, { text: "hello" }), { text: "hello" });
  });

  test("gives the one response of a stream, too", async () => {
    assert.deepEqual(await conn.invoke(echoService.repeat, { text: "n" }), { text: "n0" });
    assert.deepEqual(await conn.invoke(echoService.collect, { text: "all" }), { text: "all" });
  });

  test("rejects when the peer gives no response, or two", async () => {
    await assert.rejects(conn.invoke(echoService.repeat, { text: "n", count: 0 }), {
      name: "GrpcError",
      code: status.UNIMPLEMENTED,
      details: "No message received",
    });
    await assert.rejects(conn.invoke(echoService.repeat, { text: "n", count: 2 }), {
      code: status.UNIMPLEMENTED,
      details: "Too many responses received",
    });
  });

  test("takes metadata both ways, in text and in bytes, single and repeated", async () => {
    const headers: Metadata[] = [];
    const trailers: Metadata[] = [];
    const metadata = { "x-one": "1", "x-two": ["a", "b"], "x-bytes-bin": new Uint8Array([0, 255, 7]) };
    await conn.invoke(
      echoService.unary,
      { text: "m" },
      { metadata, onHeader: (m) => headers.push(m), onTrailer: (m) => trailers.push(m) },
    );
    assert.equal(headers.length, 1);
    assert.equal(headers[0]?.["x-one"], "1");
    // HTTP/2 may join what is repeated: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
    assert.equal(String(headers[0]?.["x-two"]).replace(" ", ""), "a,b");
    assert.deepEqual(headers[0]?.["x-bytes-bin"], Buffer.from([0, 255, 7]));
    assert.equal(trailers.length, 1);
    assert.equal(trailers[0]?.["x-trailer"], "end");
    assert.deepEqual(trailers[0]?.["x-trailer-bin"], Buffer.from([0, 255, 7]));
  });

  test("keeps the code, the details and the trailers of an error", async () => {
    const trailers: Metadata[] = [];
    const ask = { text: "x", fail: status.NOT_FOUND };
    const failing = conn.invoke(echoService.unary, ask, { onTrailer: (m) => trailers.push(m) });
    const error = await rejection(failing);
    assert.ok(error instanceof GrpcError);
    assert.equal(error.code, status.NOT_FOUND);
    assert.equal(error.details, "failed: x");
    assert.equal(error.message, "5 NOT_FOUND: failed: x");
    assert.deepEqual(error.metadata.get("x-trailer"), ["end"]);
    assert.equal(trailers[0]?.["x-trailer"], "end");
  });

  test("carries every status code", async () => {
    for (let code = 1; code <= 16; code++) {
      await assert.rejects(conn.invoke(echoService.unary, { text: "x", fail: code }), { code, name: "GrpcError" });
    }
  });

  test("an unknown method is UNIMPLEMENTED", async () => {
    const rpc = { ...echoService.unary, path: "/test.Echo/Nothing" };
    await assert.rejects(conn.invoke(rpc, { text: "x" }), { code: status.UNIMPLEMENTED });
  });

  test("a timeout is DEADLINE_EXCEEDED, and the server sees the cancel", async () => {
    const before = echo.cancelled;
    await assert.rejects(conn.invoke(echoService.unary, { text: "x", delayMs: -1 }, { timeoutMs: 30 }), {
      name: "GrpcError",
      code: status.DEADLINE_EXCEEDED,
    });
    await until(() => echo.cancelled === before + 1, "the server sees the cancel");
  });

  test("refuses a time that is none at once, infinity among them, and takes one of years", async () => {
    const { handled } = echo;
    const notFinite = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    const invalid = [
      ...notFinite.flatMap((time) => [{ timeoutMs: time }, { deadline: time }]),
      { deadline: new Date(Number.NaN) },
    ];
    for (const options of invalid) {
      await assert.rejects(conn.invoke(echoService.unary, { text: "x" }, options), {
        name: "PoolRangeError",
        code: "ERR_POOL_ARGUMENT",
      });
    }
    for (const options of [{ timeoutMs: "5" }, { timeoutMs: new Date() }, { deadline: "5" }, { deadline: null }]) {
      await assert.rejects(conn.invoke(echoService.unary, { text: "x" }, options as object), {
        name: "PoolTypeError",
        code: "ERR_POOL_ARGUMENT",
      });
    }
    assert.equal(echo.handled, handled);
    for (const time of [1e300, Date.now() + 2 ** 32]) {
      for (const options of [{ timeoutMs: time }, { deadline: time }]) {
        assert.deepEqual(await conn.invoke(echoService.unary, { text: "x" }, options), { text: "x" });
      }
    }
  });

  test("a time that is up already is DEADLINE_EXCEEDED at once, and nothing is sent", async () => {
    const { handled } = echo;
    const past = Date.now() - 1;
    for (const options of [
      { timeoutMs: 0 },
      { timeoutMs: -1 },
      { deadline: past },
      { deadline: new Date(past) },
      { deadline: 0, timeoutMs: 1_000 },
      { deadline: past + 60_000, timeoutMs: 0 },
    ]) {
      const exceeded = { name: "GrpcError", code: status.DEADLINE_EXCEEDED };
      await assert.rejects(conn.invoke(echoService.unary, { text: "x" }, options), exceeded);
      await assert.rejects(conn.newStream(echoService.chat, options), exceeded);
    }
    assert.equal(echo.handled, handled);
  });

  test("a deadline that comes ends the call, the earlier of two", async () => {
    const { running } = echo;
    for (const options of [
      { deadline: new Date(Date.now() + 30) },
      { deadline: Date.now() + 30, timeoutMs: 60_000 },
      { deadline: Date.now() + 60_000, timeoutMs: 30 },
    ]) {
      const call = conn.invoke(echoService.unary, { text: "x", delayMs: -1 }, options);
      await assert.rejects(call, { code: status.DEADLINE_EXCEEDED });
    }
    await until(() => echo.running === running, "the server sees the cancels");
  });

  test("refuses options that it does not know", async () => {
    const wrong = { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT", message: /unknown option `timeout`/ };
    await assert.rejects(conn.invoke(echoService.unary, { text: "x" }, { timeout: 5 } as object), wrong);
    await assert.rejects(conn.newStream(echoService.chat, { timeout: 5 } as object), wrong);
  });

  test("refuses a Metadata of grpc-js, which is no plain object", async () => {
    const metadata = new GrpcMetadata() as unknown as Metadata;
    const wrong = { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT", message: /metadata\.getMap\(\)/ };
    await assert.rejects(conn.invoke(echoService.unary, { text: "x" }, { metadata }), wrong);
    await assert.rejects(conn.newStream(echoService.chat, { metadata }), wrong);
  });

  test("an abort rejects with the signal's reason untouched, and the server sees the cancel", async () => {
    const before = echo.cancelled;
    const running = echo.running;
    const controller = new AbortController();
    const reason = { whatever: "it is" };
    const call = conn.invoke(echoService.unary, { text: "x", delayMs: -1 }, { signal: controller.signal });
    await until(() => echo.running === running + 1, "the call arrives");
    controller.abort(reason);
    assert.equal(await reasonOf(call), reason);
    await until(() => echo.cancelled === before + 1, "the server sees the cancel");
  });

  test("a signal that is aborted already sends nothing", async () => {
    const handled = echo.handled;
    const reason = new Error("no");
    const call = conn.invoke(echoService.unary, { text: "x" }, { signal: AbortSignal.abort(reason) });
    assert.equal(await reasonOf(call), reason);
    assert.equal(echo.handled, handled);
  });

  test("a thousand calls with one signal print no warning and leave no listener", async () => {
    const { signal } = new AbortController();
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    const calls = Array.from({ length: 1_000 }, (_, i) =>
      conn.invoke(echoService.unary, { text: String(i) }, { signal }),
    );
    assert.equal(getEventListeners(signal, "abort").length, 1);
    assert.deepEqual((await Promise.all(calls)).at(-1), { text: "999" });
    assert.equal(getEventListeners(signal, "abort").length, 0);
    process.off("warning", onWarning);
    assert.deepEqual(warnings, []);
  });

  test("a message that cannot be encoded, or decoded, is INTERNAL, and the conn goes on", async () => {
    const broken = new Error("broken");
    const fail = (): never => {
      throw broken;
    };
    await assert.rejects(conn.invoke({ ...echoService.unary, requestSerialize: fail }, { text: "x" }), {
      code: status.INTERNAL,
      details: "Request message serialization failure: broken",
      cause: broken,
    });
    await assert.rejects(conn.invoke({ ...echoService.unary, responseDeserialize: fail }, { text: "x" }), {
      code: status.INTERNAL,
      details: "Response message parsing error: broken",
    });
    assert.deepEqual(await conn.invoke(echoService.unary, { text: "on" }), { text: "on" });
  });

  test("a serializer may give any Uint8Array", async () => {
    const requestSerialize = (ask: { text: string }): Uint8Array => {
      const bytes = new TextEncoder().encode(`..${JSON.stringify(ask)}`);
      return bytes.subarray(2);
    };
    assert.deepEqual(await conn.invoke({ ...echoService.unary, requestSerialize }, { text: "u8" }), { text: "u8" });
  });

  test("a metadata callback that throws fails its own call and no other", async () => {
    const thrown = new Error("mine");
    const callback = (): never => {
      throw thrown;
    };
    const other = conn.invoke(echoService.unary, { text: "other", delayMs: 20 });
    const options = [{ onHeader: callback, metadata: { "x-a": "1" } }, { onTrailer: callback }];
    for (const each of options) {
      const call = conn.invoke(echoService.unary, { text: "x" }, each);
      assert.equal(await reasonOf(call), thrown);
    }
    assert.deepEqual(await other, { text: "other" });
  });

  test("metadata that gRPC cannot carry is refused at once", async () => {
    const bad: unknown[] = [{ "x y": "1" }, { "x-bin": "text" }, { "x-a": "ü" }, { "x-a": 5 }, { "x-a": Buffer.of(1) }];
    for (const metadata of bad as Metadata[]) {
      await assert.rejects(conn.invoke(echoService.unary, { text: "x" }, { metadata }), {
        name: "PoolTypeError",
        code: "ERR_POOL_ARGUMENT",
      });
    }
  });

  test("a message over the limit is RESOURCE_EXHAUSTED, and 3 MiB go through", async () => {
    const text = "x".repeat(3 * 1024 * 1024);
    assert.equal((await conn.invoke(echoService.unary, { text })).text.length, text.length);
    await assert.rejects(conn.invoke(echoService.unary, { text: text + text }), { code: status.RESOURCE_EXHAUSTED });
  });

  test("a key that would set a prototype is left out of the metadata", async () => {
    await using raw = await startRaw((stream) => {
      stream.respond(
        { ":status": 200, "content-type": "application/grpc", ["__proto__"]: "evil", "x-fine": "yes" },
        { waitForTrailers: true },
      );
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "5" }));
      stream.end();
    });
    const other = await dial(raw.address, { signal: never });
    let header: Metadata = {};
    const call = other.invoke(echoService.unary, { text: "x" }, { onHeader: (m) => (header = m) });
    await assert.rejects(call, { code: status.NOT_FOUND });
    assert.equal(header["x-fine"], "yes");
    assert.equal(Object.getPrototypeOf(header), Object.prototype);
    await other.close();
  });

  test("two responses in one packet reject, and the slot is free", { timeout: 60_000 }, async () => {
    await using raw = await startRaw((stream) => answer(stream, ['{"text":"a"}', '{"text":"b"}']));
    const other = await dial(raw.address, { signal: never });
    await assert.rejects(other.invoke(echoService.unary, { text: "x" }), { code: status.UNIMPLEMENTED });
    await other.close();
  });
});
