import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { credentials, status } from "@grpc/grpc-js";
import { dialGrpc, type GrpcConn, GrpcError } from "../../src/grpc/index.ts";
import { until } from "../support/clock.ts";
import { type Answer, type EchoServer, echoService, startEcho } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { frame, startRaw } from "../support/raw-grpc.ts";

const dial = dialGrpc(credentials.createInsecure());
const never = new AbortController().signal;

async function texts(stream: AsyncIterable<Answer>): Promise<string[]> {
  const all: string[] = [];
  for await (const { text } of stream) all.push(text);
  return all;
}

describe("a stream on a gRPC conn", () => {
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

  test("runs a unary RPC", async () => {
    const stream = await conn.newStream(echoService.unary);
    await stream.closeSend({ text: "one" });
    assert.deepEqual(await texts(stream), ["one"]);
  });

  test("runs client streaming, in order, awaited or not", async () => {
    for (const awaited of [true, false]) {
      const stream = await conn.newStream(echoService.collect);
      const sent: Promise<void>[] = [];
      for (let i = 0; i < 50; i++) {
        const sending = stream.send({ text: String(i) });
        if (awaited) await sending;
        else sent.push(sending);
      }
      await Promise.all(sent);
      await stream.closeSend();
      assert.deepEqual(await texts(stream), [Array.from({ length: 50 }, (_, i) => String(i)).join(" ")]);
    }
  });

  test("runs server streaming", async () => {
    const stream = await conn.newStream(echoService.repeat);
    await stream.closeSend({ text: "n", count: 200 });
    const all = await texts(stream);
    assert.equal(all.length, 200);
    assert.equal(all.at(-1), "n199");
  });

  test("runs bidirectional streaming, one by one", async () => {
    const stream = await conn.newStream(echoService.chat);
    const replies = stream[Symbol.asyncIterator]();
    for (const text of ["a", "b", "c"]) {
      await stream.send({ text });
      assert.deepEqual(await replies.next(), { done: false, value: { text } });
    }
    await stream.closeSend();
    assert.deepEqual(await replies.next(), { done: true, value: undefined });
    assert.deepEqual(await replies.next(), { done: true, value: undefined });
  });

  test("serves several next() at once in order", async () => {
    const stream = await conn.newStream(echoService.repeat);
    await stream.closeSend({ text: "n", count: 2 });
    const replies = stream[Symbol.asyncIterator]();
    const results = await Promise.all([replies.next(), replies.next(), replies.next(), replies.next()]);
    assert.deepEqual(
      results.map((result) => (result.done ? "done" : result.value.text)),
      ["n0", "n1", "done", "done"],
    );
  });

  test("gives the messages before the error, and the error once", async () => {
    const trailers: unknown[] = [];
    const stream = await conn.newStream(echoService.repeat, { onTrailer: (m) => trailers.push(m["x-trailer"]) });
    await stream.closeSend({ text: "n", count: 1, fail: status.DATA_LOSS });
    const replies = stream[Symbol.asyncIterator]();
    assert.deepEqual(await replies.next(), { done: false, value: { text: "n0" } });
    await assert.rejects(replies.next(), { code: status.DATA_LOSS, details: "failed: n" });
    assert.deepEqual(await replies.next(), { done: true, value: undefined });
    assert.deepEqual(trailers, ["end"]);
  });

  test("send rejects with the RPC's error after its end", async () => {
    const stream = await conn.newStream(echoService.chat);
    await stream.send({ text: "x", fail: status.ABORTED });
    const error = await rejection(texts(stream));
    assert.ok(error instanceof GrpcError);
    assert.equal(error.code, status.ABORTED);
    assert.equal(await rejection(stream.send({ text: "y" })), error);
    assert.equal(await rejection(stream.closeSend({ text: "y" })), error);
    await stream.closeSend();
  });

  test("send rejects after closeSend, and after an end without error", async () => {
    const stream = await conn.newStream(echoService.chat);
    await stream.closeSend();
    await stream.closeSend();
    await assert.rejects(stream.send({ text: "x" }), { details: "send after closeSend" });
    assert.deepEqual(await texts(stream), []);
    await assert.rejects(stream.send({ text: "x" }), { details: "the RPC has ended" });
  });

  test("a second consumer throws", async () => {
    const stream = await conn.newStream(echoService.repeat);
    await stream.closeSend({ text: "n" });
    assert.deepEqual(await texts(stream), ["n0"]);
    assert.throws(() => stream[Symbol.asyncIterator](), { name: "PoolTypeError", code: "ERR_POOL_ARGUMENT" });
  });

  test("closed settles at the end of the RPC, read or not, and never rejects", async () => {
    for (const fail of [undefined, status.INTERNAL]) {
      const stream = await conn.newStream(echoService.unary);
      await stream.closeSend({ text: "unread", ...(fail && { fail }) });
      await stream.closed;
    }
  });

  test("closed settles before the iterator tells the end", async () => {
    for (const fail of [undefined, status.INTERNAL]) {
      const order: string[] = [];
      const stream = await conn.newStream(echoService.chat);
      const reading = texts(stream).then(
        () => order.push("end"),
        () => order.push("end"),
      );
      const closed = stream.closed.then(() => order.push("closed"));
      if (fail) await stream.send({ text: "x", fail });
      else await stream.closeSend();
      await Promise.all([reading, closed]);
      assert.deepEqual(order, ["closed", "end"]);
    }
  });

  test("breaking out of for await cancels the call, and the server sees it", async () => {
    const before = echo.cancelled;
    const stream = await conn.newStream(echoService.repeat);
    await stream.closeSend({ text: "n", count: 1_000_000 });
    for await (const { text } of stream) if (text === "n5") break;
    await stream.closed;
    await until(() => echo.cancelled === before + 1, "the server sees the cancel");
  });

  test("close and await using cancel the call; who reads is told", async () => {
    await using echo = await startEcho();
    const conn = await dial(echo.address, { signal: never });
    {
      await using stream = await conn.newStream(echoService.chat);
      await stream.send({ text: "x" });
      await until(() => echo.handled === 1, "the call arrives");
    }
    await until(() => echo.cancelled === 1, "the server sees the cancel");
    const stream = await conn.newStream(echoService.chat);
    const reading = rejection(texts(stream));
    await until(() => echo.handled === 2, "the call arrives");
    await stream.close();
    await stream.close();
    assert.equal(Object(await reading).code, status.CANCELLED);
    await until(() => echo.cancelled === 2, "the server sees the cancel");
    await conn.close();
  });

  test("an abort ends the stream with the signal's reason, sends included", async () => {
    const controller = new AbortController();
    const stream = await conn.newStream(echoService.chat, { signal: controller.signal });
    await stream.send({ text: "x" });
    const reason = new Error("enough");
    const reading = texts(stream);
    controller.abort(reason);
    assert.equal(await rejection(reading), reason);
    assert.equal(await rejection(stream.send({ text: "y" })), reason);
  });

  test("a timeout ends the whole stream", async () => {
    const stream = await conn.newStream(echoService.chat, { timeoutMs: 30 });
    await stream.send({ text: "x" });
    await assert.rejects(texts(stream), { code: status.DEADLINE_EXCEEDED });
  });

  test("a message that cannot be encoded or decoded ends the RPC with INTERNAL", async () => {
    const fail = (): never => {
      throw new Error("broken");
    };
    const unsendable = await conn.newStream({ ...echoService.chat, requestSerialize: fail });
    await assert.rejects(unsendable.send({ text: "x" }), { code: status.INTERNAL });
    await assert.rejects(texts(unsendable), { code: status.INTERNAL });
    const unreadable = await conn.newStream({ ...echoService.chat, responseDeserialize: fail });
    await unreadable.send({ text: "x" });
    await assert.rejects(texts(unreadable), {
      code: status.INTERNAL,
      details: "Response message parsing error: broken",
    });
  });

  test("a send waits while the peer does not read", { timeout: 60_000 }, async () => {
    await using raw = await startRaw((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.pause();
    });
    const other = await dial(raw.address, { signal: never });
    const stream = await other.newStream(echoService.chat);
    const text = "x".repeat(256 * 1024);
    let flushed = 0;
    const sending = Array.from({ length: 32 }, () =>
      stream.send({ text }).then(
        () => flushed++,
        () => {},
      ),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    // grpc-js keeps up to 1 MiB of a call for a retry, and takes that without waiting.
    assert.ok(flushed < 10, `${flushed} of 32 sends of 256 KiB were flushed`);
    await stream.close();
    await Promise.all(sending);
    await other.close();
  });

  test("a flood of messages that nobody reads stops at the peer", { timeout: 60_000 }, async () => {
    let written = 0;
    await using raw = await startRaw((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      const flood = (): void => {
        while (written < 64 * 1024 * 1024) {
          const bytes = frame(JSON.stringify({ text: "x".repeat(16_000) }));
          written += bytes.length;
          if (!stream.write(bytes)) break;
        }
      };
      stream.on("drain", flood);
      flood();
    });
    const other = await dial(raw.address, { signal: never });
    const stream = await other.newStream(echoService.chat);
    await until(() => written > 64 * 1024, "the flood begins");
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.ok(written < 2 * 1024 * 1024, `${written} bytes came`);
    await stream.close();
    await other.close();
  });
});
