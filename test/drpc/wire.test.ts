import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Metadata } from "../../src/contract.ts";
import {
  type Cursor,
  DrpcError,
  decodeError,
  decodeMetadata,
  encodeError,
  encodeMetadata,
  encodePackets,
  Kind,
  type Packet,
  PacketReader,
  readVarint,
  type Uint64,
  varintBytes,
  writeVarint,
} from "../../src/drpc/index.ts";
import { packet, unwire, wire } from "../support/wire.ts";

const protocol = { name: "DrpcProtocolError" };
const uint64: fc.Arbitrary<Uint64> = fc
  .oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.maxSafeNat().map(BigInt), fc.nat(300).map(BigInt))
  .map((value) => (value <= Number.MAX_SAFE_INTEGER ? Number(value) : value));

function read(maxPacketBytes: number, ...chunks: Buffer[]): Packet[] {
  const packets: Packet[] = [];
  const reader = new PacketReader(maxPacketBytes, (found) => packets.push({ ...found, data: Buffer.from(found.data) }));
  for (const chunk of chunks) reader.push(chunk);
  return packets;
}

function frame(control: number, stream: number, message: number, data: string): Buffer {
  return Buffer.concat([Buffer.from([control, stream, message, data.length]), Buffer.from(data)]);
}

test("a varint is read back as written, with all 64 bits", () => {
  fc.assert(
    fc.property(uint64, (value) => {
      const bytes = new Uint8Array(12);
      const end = writeVarint(bytes, 1, value);
      assert.equal(end - 1, varintBytes(value));
      const cursor: Cursor = { bytes, at: 1 };
      assert.equal(readVarint(cursor), value);
      assert.equal(cursor.at, end);
      for (let cut = 1; cut < end; cut++) assert.equal(readVarint({ bytes: bytes.subarray(0, cut), at: 1 }), undefined);
    }),
  );
  assert.equal(readVarint({ bytes: Buffer.from("ffffffffffffff0f", "hex"), at: 0 }), Number.MAX_SAFE_INTEGER);
  assert.equal(readVarint({ bytes: Buffer.from("8080808080808010", "hex"), at: 0 }), 2n ** 53n);
});

test("what is no exact integer of 64 bits is refused, and a small bigint written as its number is", () => {
  for (const value of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60, -1n, 2n ** 64n]) {
    assert.throws(() => writeVarint(new Uint8Array(12), 0, value), { name: "PoolRangeError" }, String(value));
    assert.throws(() => varintBytes(value), { name: "PoolRangeError" }, String(value));
  }
  const bytes = new Uint8Array(12);
  assert.equal(writeVarint(bytes, 0, 5n), varintBytes(5n));
  assert.equal(readVarint({ bytes, at: 0 }), 5);
});

test("a varint without end, or of more than 64 bits, is refused", () => {
  assert.throws(() => readVarint({ bytes: Buffer.alloc(10, 0x80), at: 0 }), protocol);
  assert.equal(readVarint({ bytes: Buffer.alloc(9, 0x80), at: 0 }), undefined);
  assert.throws(() => readVarint({ bytes: Buffer.from("ffffffffffffffffff02", "hex"), at: 0 }), protocol);
  assert.equal(readVarint({ bytes: Buffer.from("ffffffffffffffffff01", "hex"), at: 0 }), 2n ** 64n - 1n);
});

test("golden frames: a unary call as the Go client sent it", () => {
  const golden = "0f65010c0a0a0a0377686f120367c3b6036502132f746573742e506565722f4d65746164617461056503000d650400";
  const metadata = encodeMetadata({ who: "gö" });
  assert(metadata);
  const packets = [
    packet("invokeMetadata", 101, 1, metadata),
    packet("invoke", 101, 2, "/test.Peer/Metadata"),
    packet("message", 101, 3),
    packet("closeSend", 101, 4),
  ];
  assert.equal(wire(...packets).toString("hex"), golden);
  assert.deepEqual(unwire(Buffer.from(golden, "hex")).slice(1), [
    "invoke 101/2 /test.Peer/Metadata",
    "message 101/3",
    "closeSend 101/4",
  ]);
});

test("golden frames: responses and errors as the Go server sent them", () => {
  assert.deepEqual(unwire(Buffer.from("05010101300d010200", "hex")), ["message 1/1 0", "closeSend 1/2"]);
  const [error] = read(0, Buffer.from("07680112ffffffffffffffff77656e742077726f6e67", "hex"));
  const decoded = decodeError(Buffer.from(error?.data ?? []));
  assert.equal(decoded.message, "went wrong");
  assert.equal(decoded.code, 2n ** 64n - 1n);
});

const arbitraryPacket = fc.record({
  kind: fc.integer({ min: 1, max: 63 }),
  control: fc.boolean(),
  data: fc.uint8Array({ maxLength: 300 }).map((data) => Buffer.from(data)),
});

test("packets come out as they went in, however they are split and cut", () => {
  fc.assert(
    fc.property(
      fc.array(arbitraryPacket, { maxLength: 8 }),
      uint64.filter((stream) => stream > 0),
      fc.nat(50),
      fc.array(fc.nat(40), { minLength: 1 }),
      (partial, stream, splitBytes, cuts) => {
        const packets = partial.map((some, i) => ({ ...some, stream, message: i + 1 }));
        const bytes = Buffer.concat(encodePackets(packets, splitBytes));
        const chunks: Buffer[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = (cuts[i % cuts.length] ?? 0) + 1;
          chunks.push(bytes.subarray(at, at + size));
          at += size;
        }
        assert.deepEqual(read(0, ...chunks), packets);
      },
    ),
  );
});

test("a big packet is not copied, and a small one is written as one buffer", () => {
  const big = Buffer.alloc(200_000, "x");
  const buffers = encodePackets([packet("message", 1, 1, big)], 64 * 1024);
  assert.equal(buffers.length, 8, "four frames, each a header and its data");
  assert.equal(buffers[1]?.buffer, big.buffer);
  assert.deepEqual(read(0, Buffer.concat(buffers))[0]?.data, big);
  assert.equal(encodePackets([packet("invoke", 1, 1, "/a/B"), packet("message", 1, 2, "x")], 1).length, 1);
});

test("a whole frame is not copied", () => {
  const chunk = wire(packet("message", 1, 1, "hello"));
  let data: Uint8Array | undefined;
  new PacketReader(0, (found) => {
    data = found.data;
  }).push(chunk);
  assert.equal(data?.buffer, chunk.buffer);
});

test("a newer id discards a packet that is not finished", () => {
  assert.deepEqual(unwire(frame(0x04, 1, 1, "half a mess"), frame(0x0b, 1, 2, "")), ["close 1/2"]);
  assert.deepEqual(unwire(frame(0x04, 1, 1, "half a mess"), frame(0x03, 2, 1, "next")), ["invoke 2/1 next"]);
});

test("one frame with the control flag makes the packet a control packet", () => {
  const frames = [frame(0x04, 1, 1, "a"), frame(0x84, 1, 1, "b"), frame(0x05, 1, 1, "c")];
  assert.deepEqual(unwire(...frames), ["message! 1/1 abc"]);
});

test("ids that go down or come twice, and a kind that changes inside a packet, are refused", () => {
  for (const bad of [
    [frame(0x05, 1, 2, ""), frame(0x05, 1, 1, "")],
    [frame(0x05, 2, 1, ""), frame(0x05, 1, 2, "")],
    [frame(0x05, 1, 1, ""), frame(0x05, 1, 1, "")],
    [frame(0x05, 1, 0, "")],
    [frame(0x05, 0, 1, "")],
    [frame(0x04, 1, 1, ""), frame(0x0b, 1, 1, "")],
  ]) {
    assert.throws(() => unwire(...bad), protocol);
  }
});

test("packets over the limit are refused as soon as their length is known", () => {
  assert.throws(() => read(10, Buffer.from([0x05, 1, 1, 11])), protocol, "the length alone says it");
  assert.throws(() => read(10, frame(0x04, 1, 1, "123456"), frame(0x04, 1, 1, "12345")), protocol);
  assert.equal(read(10, frame(0x04, 1, 1, "12345"), frame(0x05, 1, 1, "12345")).length, 1);
  assert.throws(() => read(0, Buffer.from("0501" + "01" + "ffffffffffffffffff01", "hex")), protocol);
  assert.throws(() => read(0, Buffer.from([0x03, 1, 1, 0x81, 0x80, 0x04])), protocol, "a name of over 64 KiB");
});

test("a length that lies costs no memory, nor do a million pieces of one packet", () => {
  const reader = new PacketReader(0, () => {});
  const before = process.memoryUsage();
  reader.push(Buffer.from([0x05, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x04])); // a gigabyte to come
  const one = Buffer.alloc(1);
  for (let i = 0; i < 1_000_000; i++) reader.push(one);
  const after = process.memoryUsage();
  assert(after.arrayBuffers - before.arrayBuffers < 8 << 20);
});

test("joining a thousand frames takes linear time", () => {
  const chunk = Buffer.concat([Buffer.from([0x04, 1, 1, 0x80, 0x80, 0x04]), Buffer.alloc(1 << 16)]);
  const reader = new PacketReader(0, () => {});
  const start = performance.now();
  for (let i = 0; i < 1024; i++) reader.push(chunk);
  const ms = performance.now() - start;
  assert(ms < 4000, `took ${ms} ms for 64 MiB; copying all at each frame takes over 8 s`);
});

test("metadata is read back as written", () => {
  const texts = fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }));
  fc.assert(
    fc.property(texts, (metadata) => {
      const bytes = encodeMetadata(metadata);
      assert.deepEqual(bytes === undefined ? {} : { ...decodeMetadata(bytes) }, { ...metadata });
    }),
  );
  assert.equal(encodeMetadata({}), undefined);
});

test("metadata of the peer cannot reach a prototype", () => {
  const bytes = encodeMetadata({ ["__proto__"]: "x", constructor: "y" });
  assert(bytes);
  const metadata = decodeMetadata(bytes);
  assert.equal(Object.getPrototypeOf(metadata), null);
  assert.deepEqual(Object.keys(metadata), ["__proto__", "constructor"]);
});

test("metadata that DRPC cannot carry is refused, and so is metadata that is not protobuf", () => {
  assert.throws(() => encodeMetadata({ "k-bin": new Uint8Array(1) }), { code: "ERR_POOL_ARGUMENT" });
  const grpcJs: Metadata = Object.assign(Object.create({ getMap() {} }), { k: "v" });
  assert.throws(() => encodeMetadata(grpcJs), { code: "ERR_POOL_ARGUMENT", message: /got grpc-js' Metadata/ });
  assert.throws(() => encodeMetadata({ k: ["a", "b"] }), { code: "ERR_POOL_ARGUMENT" });
  for (const none of [null, "text", 1] as const) {
    assert.throws(() => encodeMetadata(none as unknown as Metadata), {
      message: /expected `metadata` to be an object/,
    });
  }
  for (const hex of [
    "ff",
    "0a",
    "0a05",
    "0a020a00",
    "0a040a001200ff",
    "0a060a0012000a00",
    "0a80808080808080808080",
    "120412001200",
    "0a0412001200",
    "0a040a000a00",
  ]) {
    assert.throws(() => decodeMetadata(Buffer.from(hex, "hex")), protocol, hex);
  }
});

test("an error keeps its code, and one that is too short for a code fails its RPC all the same", () => {
  for (const code of [0, 12, Number.MAX_SAFE_INTEGER, 2n ** 53n, 2n ** 64n - 1n]) {
    const { message, code: back } = decodeError(encodeError(new DrpcError("oh: ö", code)));
    assert.deepEqual([message, back], ["oh: ö", code]);
  }
  assert.equal(new DrpcError("", 5n).code, 5, "one form for each value");
  for (const code of [-1, 1.5, Number.NaN, "ENOENT", 2n ** 64n, -1n]) {
    assert.equal(decodeError(encodeError(Object.assign(new Error("x"), { code }))).code, 0);
  }
  assert.equal(decodeError(encodeError("just text")).message, "just text");
  const short = decodeError(Buffer.from("oops"));
  assert(short instanceof DrpcError);
  assert.match(short.message, /^oops/);
  assert.equal(short.code, 0);
});

test("the kinds are those of Go", () => {
  assert.deepEqual(Object.values(Kind), [1, 2, 3, 4, 5, 6, 7]);
});

test("metadata of 64 KiB is encoded, and a byte more is refused", () => {
  const around = (encodeMetadata({ k: "x".repeat(60_000) })?.length ?? 0) - 60_000;
  assert.equal(encodeMetadata({ k: "x".repeat(65_536 - around) })?.length, 65_536);
  assert.throws(() => encodeMetadata({ k: "x".repeat(65_537 - around) }), { code: "ERR_POOL_ARGUMENT" });
});

test("metadata that ends anywhere but behind an entry is refused", () => {
  const bytes = encodeMetadata({ who: "me", where: "x".repeat(200) }) ?? assert.fail();
  const first = encodeMetadata({ who: "me" })?.length ?? assert.fail();
  for (let length = 1; length < bytes.length; length++) {
    if (length === first) continue;
    assert.throws(() => decodeMetadata(bytes.subarray(0, length)), protocol, `${length} bytes`);
  }
});
