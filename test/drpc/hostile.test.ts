import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import { test } from "node:test";
import { DrpcProtocolError, DrpcServer } from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { ca, localhost } from "../support/certs.ts";
import { turns, until } from "../support/clock.ts";
import { rejection } from "../support/outcome.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { Place, tryEcho } from "../support/place.ts";
import { connect, Far, holding, packet, unwire, wire } from "../support/wire.ts";

const hello = Buffer.from("hello");

function rejectedAsClosed(error: unknown): undefined {
  if (!(error instanceof ConnClosedError)) throw error;
}

test("inactive clients are closed, silent ones and those that send half a request", async () => {
  await using place = await new Place({ inactivityTimeoutMs: 30 }).listen();
  const silent = await place.dial();
  await holding(silent.closed);
  const half = await place.dial();
  // Where the machine stands still, it is closed before it has sent its half.
  await half.newStream(peer.echo).then((stream) => stream.closed, rejectedAsClosed);
  await holding(half.closed);
  await place.listen({ header: true });
  const [host, port] = place.key.split(":");
  const socket = connectTcp(Number(port), host).resume();
  await new Promise((resolve) => socket.on("close", resolve));
});

test("a client is not inactive while a handler runs for it", async () => {
  let running = 0;
  const hang = async function* (_: unknown, { signal }: { signal: AbortSignal }) {
    running++;
    yield hello;
    await once(signal, "abort");
  };
  await using place = await new Place({ inactivityTimeoutMs: 30 }, { hang }).listen();
  // Until a handler runs, a client that the machine holds up is inactive.
  let busy = await place.dial();
  while (running === 0) {
    const stream = await busy.newStream(peer.hang).catch(rejectedAsClosed);
    await stream?.closeSend(hello).catch(rejectedAsClosed);
    await until(() => running > 0 || busy.draining, "the call runs, or the client is closed");
    if (running === 0) busy = await place.dial();
  }
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert(busy.unblocked(), "a handler that runs is activity");
  await busy.close();
});

test("a client that never reads its replies gets no further RPCs, and others do not notice", async () => {
  let handled = 0;
  const big = Buffer.alloc(1 << 20);
  const metadata = (): Buffer => {
    handled++;
    return big;
  };
  await using place = await new Place(undefined, { metadata }).listen();
  const [host, port] = place.key.split(":");
  const rude = connectTcp(Number(port), host).pause();
  for (let stream = 1; stream <= 300; stream++) {
    rude.write(wire(packet("invoke", stream, 1, peer.metadata.path), packet("message", stream, 2)));
    await turns(2);
  }
  assert(handled > 0 && handled < 50, `${handled} of 300 were handled`);
  await tryEcho(await place.dial());
  rude.destroy();
});

test("who breaks the protocol is cut off, the server is told why, and others go on", async () => {
  const errors: unknown[] = [];
  const server = new DrpcServer({ maxPacketBytes: 1000, onError: (error) => errors.push(error) }).add(
    peer,
    peerHandlers(),
  );
  const friend = new Far();
  server.serve(friend.near);
  const invoke = packet("invoke", 1, 1, peer.chat.path);
  const bad: [string, Buffer][] = [
    ["a length over the limit", Buffer.from([0x05, 1, 1, 0xff, 0xff, 0x7f])],
    ["a varint without end", Buffer.concat([Buffer.from([0x05]), Buffer.alloc(10, 0xff)])],
    ["ids that go down", wire(packet("invoke", 2, 1, peer.chat.path), packet("message", 1, 2))],
    ["an id that comes twice", wire(invoke, packet("message", 1, 1))],
    ["a kind that changes", Buffer.from([0x04, 1, 1, 0, 0x0b, 1, 1, 0])],
    ["metadata that is not protobuf", wire(packet("invokeMetadata", 1, 1, "nonsense"))],
    ["an invoke on a running stream", wire(invoke, packet("invoke", 1, 2, peer.chat.path))],
    ["a message of a stream that was not invoked", wire(packet("message", 1, 1))],
    ["an unknown kind", wire(invoke, packet(42, 1, 2))],
  ];
  for (const [i, [what, bytes]] of bad.entries()) {
    const far = new Far();
    server.serve(far.near);
    far.near.push(bytes);
    await turns();
    assert(far.near.destroyed, what);
    assert.equal(errors.length, i + 1, what);
    assert.equal((errors[i] as Error).name, "DrpcProtocolError", what);
    friend.send(packet("invoke", i + 1, 1, peer.echo.path), packet("message", i + 1, 2), packet("closeSend", i + 1, 3));
    await friend.got(2 * (i + 1));
  }
  const tolerant = new Far();
  server.serve(tolerant.near);
  tolerant.send(
    { ...packet(42, 1, 1), control: true },
    packet("invoke", 2, 1, peer.collect.path),
    packet("closeSend", 2, 2),
  );
  tolerant.send(packet("message", 2, 3, "data after close-send"), packet("closeSend", 2, 4));
  assert.deepEqual(await tolerant.got(2), ["message 2/1", "closeSend 2/2"]);
  tolerant.send(packet("message", 2, 5, "data after the end"));
  await turns();
  assert(!tolerant.near.destroyed);
  await server.close({ graceMs: 0 });
});

/** A client that knows no protocol: opens a connection and says these bytes. */
async function raw(place: Place, ...chunks: Uint8Array[]): Promise<Socket> {
  const socket = connectTcp(Number(place.key.split(":")[1]), "127.0.0.1").on("error", () => {});
  await once(socket, "connect");
  for (const chunk of chunks) {
    socket.write(chunk);
    await turns(2);
  }
  return socket.resume();
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
}

test("a request that begins and does not come to its end is closed after requestTimeoutMs, however slowly it drips", async () => {
  await using place = await new Place({ requestTimeoutMs: 100 }).listen();
  const invoke = wire(packet("invoke", 1, 1, peer.echo.path));
  const slow: [string, Uint8Array][] = [
    ["half a frame", invoke.subarray(0, 5)],
    ["an invoke without its request", invoke],
    ["metadata without an invoke", wire(packet("invokeMetadata", 1, 1))],
    ["a packet whose last frame does not come", Buffer.from([0x02, 1, 1, 0])],
    ["half a request", Buffer.concat([invoke, Buffer.from([0x05, 1, 2, 100, 1, 2, 3])])],
  ];
  await Promise.all(
    slow.map(async ([, bytes]) => {
      const socket = await raw(place, bytes);
      await closed(socket);
    }),
  );
  const endless = await raw(place);
  const drip = setInterval(() => endless.write(Buffer.from([0x02, 1, 1, 0])), 10); // frames that are never the last
  await closed(endless).finally(() => clearInterval(drip));
  const shared = await new Place({ requestTimeoutMs: 100 }).listen({ header: true });
  await closed(await raw(shared, Buffer.from("DRPC")));
  await shared.server.close();
  const secure = await new Place({ requestTimeoutMs: 100 }).listen({ tls: localhost });
  await closed(await raw(secure));
  await secure.server.close();
});

test("requestTimeoutMs leaves alone who says nothing, or nothing any more, whose handler runs and whose requests come in pieces", async () => {
  await using place = await new Place({ requestTimeoutMs: 60 }).listen();
  const idle = await place.dial();
  const rests = await place.dial();
  await tryEcho(rests);
  const conn = await place.dial();
  const hang = await conn.newStream(peer.hang);
  await hang.closeSend(hello);
  const pieces = await raw(place);
  const answers: Buffer[] = [];
  pieces.on("data", (data) => answers.push(data));
  for (let stream = 1; stream <= 4; stream++) {
    const bytes = wire(packet("invoke", stream, 1, peer.echo.path), packet("message", stream, 2, `${stream}`));
    pieces.write(bytes.subarray(0, 10));
    await new Promise((resolve) => setTimeout(resolve, 25));
    pieces.write(Buffer.concat([bytes.subarray(10), wire(packet("closeSend", stream, 3))]));
  }
  while (unwire(...answers).length < 8) await turns(1);
  assert.equal(unwire(...answers).at(-2), "message 4/1 4");
  assert(conn.unblocked() !== undefined && !conn.draining, "its handler has run for longer");
  await tryEcho(idle);
  assert(!rests.draining, "it has made its request");
  pieces.destroy();
});

test("requestTimeoutMs is 60 s unless it is set, and idle floods are closed where inactivityTimeoutMs says so", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const server = new DrpcServer().add(peer, peerHandlers());
  const fars = Array.from({ length: 3 }, () => new Far());
  for (const far of fars) server.serve(far.near);
  fars[0]?.near.push(Buffer.from([0x02, 1]));
  await turns();
  t.mock.timers.tick(59_999);
  assert.deepEqual(
    fars.map((far) => far.near.destroyed),
    [false, false, false],
  );
  t.mock.timers.tick(1);
  assert.deepEqual(
    fars.map((far) => far.near.destroyed),
    [true, false, false],
    "who says nothing stays, as in Go",
  );
  await server.close({ graceMs: 0 });

  const strict = new DrpcServer({ inactivityTimeoutMs: 1000, maxConns: 100 }).add(peer, peerHandlers());
  const flood = Array.from({ length: 200 }, () => new Far());
  for (const far of flood) strict.serve(far.near);
  assert.equal(flood.filter((far) => !far.near.destroyed).length, 100);
  t.mock.timers.tick(1000);
  await turns();
  assert.equal(flood.filter((far) => !far.near.destroyed).length, 0);
  const friend = new Far();
  strict.serve(friend.near);
  friend.send(packet("invoke", 1, 1, peer.echo.path), packet("message", 1, 2, "x"), packet("closeSend", 1, 3));
  assert.deepEqual(await friend.got(2), ["message 1/1 x", "closeSend 1/2"]);
  await strict.close({ graceMs: 0 });
});

test("maxConns counts connections in their TLS handshake", async () => {
  await using place = await new Place({ maxConns: 2 }).listen({ tls: localhost });
  const slow = [await raw(place), await raw(place)];
  await closed(await raw(place));
  for (const socket of slow) {
    assert(!socket.closed);
    socket.destroy();
  }
  await Promise.all(slow.map(closed));
  await turns();
  const conn = await place.dial({ tls: { ca } });
  await tryEcho(conn);
});

test("floods of control packets, empty messages and invokes leave memory and other clients alone", async () => {
  await using place = await new Place().listen();
  const friend = await place.dial();
  const control = wire(...Array.from({ length: 2000 }, (_, i) => ({ ...packet(42, 1, i + 1), control: true })));
  const invokes = wire(...Array.from({ length: 2000 }, (_, i) => packet("invoke", i + 1, 1, `/no/Such/${i}`)));
  const metadata = wire(...Array.from({ length: 2000 }, (_, i) => packet("invokeMetadata", i + 1, 1)));
  const empty = Array.from({ length: 20_000 }, (_, i) => packet("message", 1, i + 2));
  const rude = [
    await raw(place, control),
    await raw(place, invokes),
    await raw(place, metadata),
    await raw(place, wire(packet("invoke", 1, 1, peer.hang.path), ...empty)),
  ];
  for (let i = 0; i < 20; i++) await tryEcho(friend);
  for (const socket of rude) socket.destroy();
});

test("a client is told nothing but its own metadata: names and texts are taken as they are", async () => {
  const seen: Record<string, string>[] = [];
  await using place = await new Place(undefined, {
    metadata: (_, context) => {
      seen.push({ ...context.metadata });
      assert.equal(Object.getPrototypeOf(context.metadata), null);
      return hello;
    },
  }).listen();
  const conn = await place.dial();
  const metadata: Record<string, string> = {
    "a\r\nb": "c\r\nset-cookie: x",
    "nul\0": "\0",
    ":path": "/other/Method",
    "grpc-status": "0",
    constructor: "x",
    ["__proto__"]: "y",
    toString: "z",
    "": "",
  };
  await conn.invoke(peer.metadata, hello, { metadata });
  assert.deepEqual(new Map(Object.entries(seen[0] ?? {})), new Map(Object.entries(metadata)));
  assert.equal(({} as Record<string, unknown>)["y"], undefined);
  await conn.invoke(peer.metadata, hello);
  assert.deepEqual(seen[1], {}, "metadata ends with its RPC");
  for (const path of [
    "/test.Peer/Echo\r\n",
    "/test.Peer/Echo\0",
    "__proto__",
    "constructor",
    "toString",
    "",
    "/",
    " /test.Peer/Echo",
  ]) {
    await assert.rejects(conn.invoke({ ...peer.echo, path }, hello), { code: 12 }, path);
  }
  await tryEcho(conn);
});

test("a server cannot hurt its client with endless frames, oversize ones or answers nobody asked for", async () => {
  const bad: [string, Buffer][] = [
    ["a packet over the limit", Buffer.from([0x05, 1, 1, 0xff, 0xff, 0x7f])],
    [
      "frames that together are over it",
      Buffer.concat(Array(20).fill(Buffer.concat([Buffer.from([0x04, 1, 1, 100]), Buffer.alloc(100)]))),
    ],
    ["an error over the limit", Buffer.from([0x07, 1, 1, 0xff, 0xff, 0x7f])],
    ["an unknown kind of over 64 KiB", Buffer.from([0xd5, 1, 1, 0x81, 0x80, 0x04])],
    ["a varint without end", Buffer.concat([Buffer.from([0x05]), Buffer.alloc(10, 0xff)])],
    ["an answer to what was not asked", wire(packet("message", 2, 1))],
  ];
  for (const [what, bytes] of bad) {
    const { far, conn } = connect({ maxPacketBytes: 1000 });
    const call = conn.invoke(peer.echo, hello);
    far.near.push(bytes);
    const error = await rejection(call);
    assert(error instanceof ConnClosedError && error.cause instanceof DrpcProtocolError, what);
    assert(far.near.destroyed, what);
  }
  const { far, conn } = connect();
  const call = conn.invoke(peer.echo, hello);
  for (let i = 1; i <= 1000; i++) far.near.push(Buffer.from([0x04, 1, 1, 0])); // frames that are never the last
  for (let i = 1; i <= 1000; i++) far.send({ ...packet(42, 1, i + 1, "x"), control: true });
  far.send(packet("message", 1, 2000, "in the end"), packet("closeSend", 1, 2001));
  assert.equal((await call).toString(), "in the end");
});

test("maxConns closes what comes beyond it", async () => {
  await using place = await new Place({ maxConns: 1 }).listen();
  const first = await place.dial();
  await first.invoke(peer.echo, hello);
  const second = await place.dial();
  await holding(second.closed);
  await first.invoke(peer.echo, hello);
});
