import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import fc from "fast-check";
import { Deframer, framed } from "../../src/grpc/http2/framing.ts";

interface Got {
  readonly message: Buffer;
  readonly compressed: boolean;
}

function read(deframer: Deframer, chunks: readonly Buffer[]): Got[] {
  const got: Got[] = [];
  for (const chunk of chunks) {
    deframer.push(chunk, { onFramed: (message, compressed) => got.push({ message, compressed }) });
  }
  return got;
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
}

test("messages come out as they went in, however their bytes are cut", () => {
  const messages = fc.array(fc.tuple(fc.uint8Array({ maxLength: 300 }), fc.boolean()), { maxLength: 10 });
  fc.assert(
    fc.property(messages, fc.array(fc.nat(), { maxLength: 20 }), (sent, cuts) => {
      const bytes = Buffer.concat(sent.flatMap(([message, compressed]) => framed(Buffer.from(message), compressed)));
      const deframer = new Deframer(1_000);
      const got = read(deframer, split(bytes, cuts));
      assert.deepEqual(
        got.map(({ message, compressed }) => [[...message], compressed]),
        sent.map(([message, compressed]) => [[...message], compressed]),
      );
      assert.equal(deframer.partial, false);
    }),
  );
});

test("large messages are neither copied when they are sent, nor lost when they come byte by byte", () => {
  const large = Buffer.alloc(200_000, 7);
  const [prefix, body] = framed(large, false);
  assert.ok(prefix);
  assert.equal(body, large);
  const [got] = read(
    new Deframer(-1),
    split(
      Buffer.concat([prefix, large]),
      Array.from({ length: 5_000 }, (_, i) => i * 40),
    ),
  );
  assert.ok(got?.message.equals(large));
});

test("a message over the limit is refused by its length, before its bytes come", () => {
  const prefix = Buffer.of(0, 0, 0, 4, 1);
  assert.throws(() => read(new Deframer(1_024), [prefix]), {
    code: status.RESOURCE_EXHAUSTED,
    details: "Received message larger than max (1025 vs 1024)",
  });
  assert.doesNotThrow(() => read(new Deframer(1_025), [prefix]));
});

test("a length that is a lie costs little memory", () => {
  const prefix = Buffer.of(0, 0xff, 0xff, 0xff, 0xff);
  const before = process.memoryUsage().arrayBuffers;
  const liars = Array.from({ length: 100 }, () => {
    const deframer = new Deframer(-1);
    read(deframer, [prefix, Buffer.of(1)]);
    return deframer;
  });
  assert.ok(process.memoryUsage().arrayBuffers - before < 20 << 20);
  assert.ok(liars.every(({ partial }) => partial));
});

test("a flag other than 0 and 1 is refused", () => {
  assert.throws(() => read(new Deframer(-1), [Buffer.of(2, 0, 0, 0, 0)]), { code: status.INTERNAL });
});

test("a small message does not keep what it came in", () => {
  const [prefix] = framed(Buffer.from("small"), false);
  assert.ok(prefix);
  const chunk = Buffer.concat([prefix, Buffer.alloc(60_000)]);
  const own = Buffer.from(new Uint8Array(chunk).buffer);
  const [got] = read(new Deframer(-1), [own]);
  assert.equal(got?.message.toString(), "small");
  assert.notEqual(got?.message.buffer, own.buffer);
});
