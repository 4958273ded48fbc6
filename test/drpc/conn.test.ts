import assert from "node:assert/strict";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { DrpcBusyError, DrpcConn, DrpcProtocolError } from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { turns } from "../support/clock.ts";
import { reasonOf, rejection } from "../support/outcome.ts";
import { peer } from "../support/peer.ts";
import { connect, Far, packet, wire } from "../support/wire.ts";

const hello = Buffer.from("hello");

test("a unary call is one socket write, and resolves with the one response", async () => {
  const { far, conn } = connect();
  const response = conn.invoke(peer.echo, hello, { metadata: { k: "v" } });
  assert.deepEqual((await far.got(4)).slice(1), ["invoke 1/2 /test.Peer/Echo", "message 1/3 hello", "closeSend 1/4"]);
  assert.equal(far.chunks.length, 1);
  far.send(packet("message", 1, 1, "hi"), packet("closeSend", 1, 2));
  assert.equal((await response).toString(), "hi");
  assert.equal(conn.unblocked(), undefined);
});

test("the header stands in front of the first write, and of no other", async () => {
  for (const [header, text] of [
    [true, "DRPC!!!1"],
    ["MINE", "MINE"],
  ] as const) {
    const { far, conn } = connect({ header });
    const first = conn.invoke(peer.echo, hello);
    await turns();
    assert.equal(Buffer.concat(far.chunks).toString("latin1", 0, text.length), text);
    far.chunks.length = 0;
    far.send(packet("message", 1, 1), packet("closeSend", 1, 2));
    await first;
    void conn.invoke(peer.echo, hello).catch(() => {});
    await turns();
    assert.equal(far.packets[0], "invoke 2/1 /test.Peer/Echo");
    await conn.close();
  }
});

test("the conn takes the next RPC before the last one's caller hears of its end", async () => {
  const { far, conn } = connect();
  const order: string[] = [];
  const response = conn
    .invoke(peer.echo, hello)
    .then(() => order.push(`invoke, free: ${conn.unblocked() === undefined}`));
  await far.got(3);
  assert(conn.unblocked());
  far.send(packet("message", 1, 1), packet("closeSend", 1, 2));
  await response;
  const stream = await conn.newStream(peer.count);
  void stream.closed.then(() => order.push(`closed, free: ${conn.unblocked() === undefined}`));
  await stream.closeSend(hello);
  far.send(packet("message", 2, 1, "a"), packet("message", 2, 2, "b"), packet("closeSend", 2, 3));
  for await (const message of stream) order.push(message.toString());
  order.push("done");
  assert.deepEqual(order, ["invoke, free: true", "closed, free: true", "a", "b", "done"]);
});

test("a second RPC on a conn that runs one is refused, and the first goes on", async () => {
  const { far, conn } = connect();
  const first = conn.invoke(peer.echo, hello);
  assert((await rejection(conn.invoke(peer.echo, hello))) instanceof DrpcBusyError);
  assert((await rejection(conn.newStream(peer.echo))) instanceof DrpcBusyError);
  far.send(packet("message", 1, 1, "hi"), packet("closeSend", 1, 2));
  assert.equal((await first).toString(), "hi");
});

test("a unary RPC has exactly one response", async () => {
  const { far, conn } = connect();
  let response = conn.invoke(peer.echo, hello);
  far.send(packet("message", 1, 1), packet("message", 1, 2), packet("closeSend", 1, 3));
  await assert.rejects(response, { name: "DrpcError", message: /more than one response/ });
  assert.equal((await far.got(4)).at(-1), "cancel! 1/4");

  for (const [stream, end] of [[2, "closeSend"] as const, [3, "close"] as const]) {
    response = conn.invoke(peer.echo, hello);
    far.send(packet(end, stream, 1));
    await assert.rejects(response, { name: "DrpcError", message: /without a response/ });
  }

  response = conn.invoke(peer.echo, hello);
  far.send(packet("message", 4, 1, "kept"), packet("close", 4, 2));
  assert.equal((await response).toString(), "kept", "a close ends the RPC, too");
});

test("an idle conn notices the peer's end at once, and its error", async () => {
  for (const end of [(far: Far) => far.end(), (far: Far) => far.near.destroy(new Error("ECONNRESET"))]) {
    const { far, conn } = connect();
    end(far);
    await conn.closed;
    const error = await rejection(conn.invoke(peer.echo, hello));
    assert(error instanceof ConnClosedError);
    assert.deepEqual([error.reason, error.sent], ["died", false]);
  }
});

test("a conn that dies under an RPC: closed first, then sent is true and the cause is the socket's error", async () => {
  const { far, conn } = connect();
  const order: string[] = [];
  const reset = new Error("reset");
  const response = conn.invoke(peer.echo, hello);
  void conn.closed.then(() => order.push("closed"));
  void response.catch(() => order.push("rejected"));
  far.near.destroy(reset);
  const error = await rejection(response);
  assert(error instanceof ConnClosedError);
  assert.deepEqual([error.reason, error.sent, error.cause], ["died", true, reset]);
  assert.deepEqual(order, ["closed", "rejected"]);
});

test("close() ends what runs, is idempotent and resolves when the duplex is destroyed", async () => {
  const { far, conn } = connect();
  const response = conn.invoke(peer.echo, hello);
  const both = Promise.all([conn.close(), conn.close()]);
  const error = await rejection(response);
  assert(error instanceof ConnClosedError);
  assert.deepEqual([error.reason, error.sent], ["handle", true]);
  await both;
  assert(far.near.destroyed);
  await conn.close();
  assert.equal(conn.unblocked(), undefined);
});

test("a duplex that is dead already makes a conn that is closed", async () => {
  const far = new Far();
  far.near.destroy();
  const conn = new DrpcConn(far.near);
  assert(((await rejection(conn.invoke(peer.echo, hello))) as ConnClosedError).sent === false);
  await conn.closed;
});

test("an error of serializing or deserializing rejects its RPC only", async () => {
  const { far, conn } = connect();
  const broken = (): never => {
    throw new Error("broken");
  };
  await assert.rejects(conn.invoke({ ...peer.echo, requestSerialize: broken }, hello), { message: "broken" });
  const text = { ...peer.echo, requestSerialize: () => "text" as unknown as Uint8Array };
  await assert.rejects(conn.invoke(text, hello), { code: "ERR_POOL_ARGUMENT" });
  await assert.rejects(conn.invoke({ ...peer.echo, path: undefined as unknown as string }, hello), TypeError);
  const response = conn.invoke({ ...peer.echo, responseDeserialize: broken }, hello);
  far.send(packet("message", 1, 1), packet("closeSend", 1, 2));
  await assert.rejects(response, { message: "broken" });
  const stream = await conn.newStream({ ...peer.count, responseDeserialize: broken });
  far.send(packet("message", 2, 1));
  await assert.rejects(stream[Symbol.asyncIterator]().next(), { message: "broken" });
  await stream.closed;
  assert.equal(conn.unblocked(), undefined);
});

test("unknown control packets are ignored; what breaks the protocol ends the conn with a typed error", async () => {
  const { far, conn } = connect();
  const response = conn.invoke(peer.echo, hello);
  far.send({ ...packet(42, 1, 1), control: true }, { ...packet(42, 9, 1), control: true });
  await turns();
  assert(conn.unblocked());
  await conn.close();
  await rejection(response);

  for (const bad of [
    packet(42, 1, 1),
    packet("invoke", 1, 1),
    packet("invokeMetadata", 1, 1),
    packet("message", 2, 1),
    packet("message", 1, 0),
  ]) {
    const { far, conn } = connect();
    const response = conn.invoke(peer.echo, hello);
    far.send(bad);
    const error = await rejection(response);
    assert(error instanceof ConnClosedError);
    assert(error.cause instanceof DrpcProtocolError);
    assert.equal(error.sent, true);
    await conn.closed;
  }
});

test("options are checked at once, and unknown names refused", () => {
  const bad: Record<string, unknown>[] = [
    { nope: 1 },
    { cancel: "medium" },
    { maxPacketBytes: -1 },
    { splitBytes: 1.5 },
    { highWaterBytes: "1" },
    { maxBlockedMs: Number.NaN },
    { header: 1 },
    { header: "€" },
  ];
  for (const options of bad) {
    assert.throws(() => new DrpcConn(new Far().near, options), { code: "ERR_POOL_ARGUMENT" }, JSON.stringify(options));
  }
  for (const duplex of [undefined, null, 42, {}] as unknown as Duplex[]) {
    assert.throws(() => new DrpcConn(duplex), { name: "PoolTypeError" });
  }
});

test("bytesRead grows with every byte from the peer, between RPCs too", async () => {
  const { far, conn } = connect();
  assert.equal(conn.bytesRead, 0);
  const response = conn.invoke(peer.echo, hello);
  const bytes = wire(packet("message", 1, 1, "hi"), packet("closeSend", 1, 2));
  far.near.push(bytes.subarray(0, 3));
  await turns();
  assert.equal(conn.bytesRead, 3);
  far.near.push(bytes.subarray(3));
  await response;
  assert.equal(conn.bytesRead, bytes.length);
  far.send({ ...packet(42, 1, 9), control: true });
  await turns();
  assert.equal(conn.bytesRead, bytes.length + 4);
});

test("draining is true from the moment that the conn's end has begun, whoever begins it", async () => {
  const endings: [string, (far: Far, conn: DrpcConn) => unknown][] = [
    ["close()", (_, conn) => conn.close()],
    ["its user destroys the duplex", (_, conn) => conn.duplex.destroy()],
    ["its user ends the duplex", (_, conn) => conn.duplex.end()],
    ["an error", (far) => far.near.destroy(new Error("reset"))],
  ];
  for (const [what, end] of endings) {
    const { far, conn } = connect();
    assert.equal(conn.draining, false);
    end(far, conn);
    assert.equal(conn.draining, true, what);
    const error = await rejection(conn.invoke(peer.echo, hello));
    assert(error instanceof ConnClosedError && !error.sent, what);
  }
  const { far, conn } = connect();
  let seen: boolean | undefined;
  void conn.closed.then(() => {
    seen = conn.draining;
  });
  far.end();
  await conn.closed;
  assert.equal(seen, true);
  const hard = connect({ cancel: "hard" }).conn;
  const controller = new AbortController();
  const call = hard.invoke(peer.echo, hello, { signal: controller.signal });
  controller.abort("enough");
  assert.equal(hard.draining, true);
  assert.equal(await reasonOf(call), "enough");
});

test("a duplex whose write throws is closed, and its RPC rejects with what it threw", async () => {
  const { far, conn } = connect();
  far.near.write = () => {
    throw new Error("no writing");
  };
  for (const call of [() => conn.invoke(peer.echo, hello), () => conn.newStream(peer.chat)]) {
    const error = await rejection(call());
    assert(error instanceof ConnClosedError, String(error));
  }
  assert.equal(conn.unblocked(), undefined);
  await conn.closed;
});

test("a name or metadata that every peer would refuse is refused before it is sent", async () => {
  const { far, conn } = connect();
  const big = "x".repeat(65_537);
  await assert.rejects(conn.invoke({ ...peer.echo, path: big }, hello), { code: "ERR_POOL_ARGUMENT" });
  await assert.rejects(conn.newStream(peer.echo, { metadata: { big } }), { code: "ERR_POOL_ARGUMENT" });
  const grpcMetadata = { getMap: () => ({}) } as unknown as Record<string, string>;
  await assert.rejects(conn.invoke(peer.echo, hello, { metadata: grpcMetadata }), { message: /getMap/ });
  await turns();
  assert.deepEqual(far.packets, []);
  assert.equal(conn.unblocked(), undefined);
});
