import assert from "node:assert/strict";
import { connect as connectTcp } from "node:net";
import { test } from "node:test";
import { DrpcServer } from "../../src/drpc/index.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { Place, tryEcho } from "../support/place.ts";
import { Far, holding, packet, turns, wire } from "../support/wire.ts";

const hello = Buffer.from("hello");

test("inactive clients are closed, silent ones and those that send half a request", async () => {
  await using place = await new Place({ inactivityTimeoutMs: 30 }).listen();
  const silent = await place.dial();
  await holding(silent.closed);
  const half = await place.dial();
  const stream = await half.newStream(peer.echo);
  await stream.closed;
  await place.listen({ header: true });
  const [host, port] = place.key.split(":");
  const socket = connectTcp(Number(port), host).resume();
  await new Promise((resolve) => socket.on("close", resolve));
  await place.listen();
  const busy = await place.dial();
  const hang = await busy.newStream(peer.hang);
  await hang.closeSend(hello);
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

test("maxConns closes what comes beyond it", async () => {
  await using place = await new Place({ maxConns: 1 }).listen();
  const first = await place.dial();
  await first.invoke(peer.echo, hello);
  const second = await place.dial();
  await holding(second.closed);
  await first.invoke(peer.echo, hello);
});
