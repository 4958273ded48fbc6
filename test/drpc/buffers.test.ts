/** Whose memory a message is: buffers may be reused by who sends, and what waits for its consumer is bounded. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type DrpcConn, type DrpcHandlers, DrpcServer, type Packet, PacketReader } from "../../src/drpc/index.ts";
import { turns } from "../support/clock.ts";
import { reasonOf } from "../support/outcome.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { Place } from "../support/place.ts";
import { connect, Far, packet, wire } from "../support/wire.ts";

const hello = Buffer.from("hello");
/** Newer versions of Node let a socket take so much before a sender waits; older ones 16 KiB. */
const roomy = { deaf: true, highWaterMark: 4 << 20 };
const sizes = [100, 20_000, 60_000, 200_000];

/** The first byte of each message that has come whole; a message of more than one byte value fails. */
function letters(far: Far): string {
  let seen = "";
  const reader = new PacketReader(0, ({ kind, data }: Packet) => {
    if (kind !== 2 || data.length === 0) return;
    assert(
      data.every((byte) => byte === data[0]),
      "a message is of one piece",
    );
    seen += String.fromCharCode(data[0] ?? 0);
  });
  for (const chunk of far.chunks) reader.push(chunk);
  return seen;
}

/** Waits until a far end has so many messages. */
async function lettersOf(far: Far, count: number): Promise<string> {
  far.listen();
  while (letters(far).length < count) await turns(1);
  return letters(far);
}

for (const size of sizes) {
  test(`a client may reuse a buffer of ${size} bytes as soon as send has resolved`, async () => {
    const { far, conn } = connect({}, new Far(roomy));
    const stream = await conn.newStream(peer.chat);
    const buffer = Buffer.alloc(size);
    for (const letter of "abcdef") await stream.send(buffer.fill(letter));
    await stream.closeSend(buffer.fill("g"));
    buffer.fill("x");
    assert.equal(await lettersOf(far, 7), "abcdefg");
    await conn.close();
  });

  test(`a client may reuse a buffer of ${size} bytes when its send was cancelled while the peer read slowly`, async () => {
    const { far, conn } = connect({}, new Far({ ...roomy, highWaterMark: 16 }));
    const controller = new AbortController();
    const stream = await conn.newStream(peer.chat, { signal: controller.signal });
    const first = stream.send(Buffer.from("a"));
    await turns();
    const buffer = Buffer.alloc(size, "b");
    const second = stream.send(buffer);
    await turns();
    controller.abort("enough");
    assert.deepEqual(await Promise.all([first, second].map(reasonOf)), ["enough", "enough"]);
    buffer.fill("x");
    assert.equal(await lettersOf(far, 2), "ab");
  });

  test(`a handler may reuse a buffer of ${size} bytes for its next message`, async () => {
    const buffer = Buffer.alloc(size);
    const handlers: DrpcHandlers<typeof peer> = {
      ...peerHandlers(),
      count: async function* () {
        for (const letter of "abcdef") yield buffer.fill(letter);
        buffer.fill("x");
      },
    };
    const server = new DrpcServer().add(peer, handlers);
    const far = new Far(roomy);
    server.serve(far.near);
    far.send(packet("invoke", 1, 1, peer.count.path), packet("message", 1, 2, hello));
    assert.equal(await lettersOf(far, 6), "abcdef");
    await server.close({ graceMs: 0 });
  });

  test(`handlers may answer two clients with one buffer of ${size} bytes`, async () => {
    const buffer = Buffer.alloc(size);
    const server = new DrpcServer().add(peer, { ...peerHandlers(), echo: (request) => buffer.fill(request) });
    const fars = ["a", "b"].map(() => new Far(roomy));
    for (const [i, far] of fars.entries()) {
      server.serve(far.near);
      far.send(packet("invoke", 1, 1, peer.echo.path), packet("message", 1, 2, "ab"[i]), packet("closeSend", 1, 3));
    }
    await turns();
    const answers = await Promise.all(fars.map((far) => lettersOf(far, 1)));
    assert.equal(answers.join(""), "ab");
    await server.close({ graceMs: 0 });
  });
}

test("over a socket whose peer reads slowly, what arrives is what was sent", async () => {
  const seen: string[] = [];
  await using place = await new Place(undefined, {
    collect: async (requests) => {
      for await (const request of requests) {
        await turns(2);
        seen.push(request.every((byte) => byte === request[0]) ? String.fromCharCode(request[0] ?? 0) : "?");
      }
      return hello;
    },
  }).listen();
  const stream = await (await place.dial()).newStream(peer.collect);
  const buffer = Buffer.alloc(40_000);
  const sent = "abcdefghijklmnopqrstuvwxyz".repeat(4);
  for (const letter of sent) await stream.send(buffer.fill(letter));
  await stream.closeSend();
  for await (const _ of stream);
  assert.equal(seen.join(""), sent);
});

/** Sends reads of 64 KiB, each with a short message among bytes that nobody keeps, until the conn has enough. */
async function flood(far: Far, most: number, stream = 1, first = 1): Promise<number> {
  let reads = 0;
  for (let message = first; reads < most; reads++) {
    const junk = { ...packet(42, stream, message + 1, Buffer.alloc(60_000)), control: true };
    const read = wire(packet("message", stream, message, "m"), junk);
    message += 2;
    far.near.push(read);
    await turns(1);
    if (far.near.isPaused()) break;
  }
  return reads;
}

test("short messages that wait for their consumer count with the reads that they keep in memory", async () => {
  const conn = connect({ highWaterBytes: 256 * 1024 });
  const stream = await conn.conn.newStream(peer.count);
  const reads = await flood(conn.far, 1000);
  assert(reads <= 6, `${reads} reads of 60 KB wait where 256 KiB may`);
  await stream.close();
  await conn.conn.close();

  const server = new DrpcServer({ highWaterBytes: 256 * 1024 }).add(peer, {
    ...peerHandlers(),
    collect: async (_, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return hello;
    },
  });
  const far = new Far();
  server.serve(far.near);
  far.send(packet("invoke", 1, 1, peer.collect.path));
  const requests = await flood(far, 1000, 1, 2);
  assert(requests <= 6, `${requests} reads of 60 KB wait where 256 KiB may`);
  await server.close({ graceMs: 0 });
});

test("a consumer that catches up gets every short message, whatever reads they came in", async () => {
  const { far, conn } = connect({ highWaterBytes: 100_000 });
  const stream = await conn.newStream(peer.count);
  const received = read(stream);
  let message = 0;
  for (let i = 0; i < 50; i++) {
    const packets = Array.from({ length: 20 }, () => packet("message", 1, ++message, `${message}`));
    far.near.push(wire(...packets, { ...packet(42, 1, ++message, Buffer.alloc(30_000)), control: true }));
    await turns(1);
  }
  far.send(packet("close", 1, ++message));
  assert.equal((await received).length, 1000);
});

async function read(stream: Awaited<ReturnType<DrpcConn["newStream"]>>): Promise<unknown[]> {
  const all: unknown[] = [];
  for await (const message of stream) {
    all.push(message);
    if (all.length % 50 === 0) await turns(2);
  }
  return all;
}
