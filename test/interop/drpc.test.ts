import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { after, before, describe, test } from "node:test";
import { type DialDrpcOptions, type DrpcConn, DrpcError, DrpcServer, dialDrpc } from "../../src/drpc/index.ts";
import { Pool } from "../../src/index.ts";
import { ca, localhost } from "../support/certs.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { GoPeer, noGo } from "./gopeer.ts";

async function open(address: string, options?: DialDrpcOptions): Promise<DrpcConn> {
  return await dialDrpc(options)(address, { signal: new AbortController().signal });
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

describe("DRPC against Go", { skip: noGo }, () => {
  let go: GoPeer;
  let addresses: Awaited<ReturnType<GoPeer["serve"]>>;
  let conn: DrpcConn;

  before(async () => {
    go = new GoPeer();
    addresses = await go.serve();
    conn = await open(addresses.plain, { maxPacketBytes: 16 << 20 });
  });
  after(async () => {
    await conn.close();
    go[Symbol.dispose]();
  });

  test("unary calls, a hundred in a row on one conn", async () => {
    for (let i = 0; i < 100; i++) assert.equal(text(await conn.invoke(peer.echo, Buffer.from(`${i}`))), `${i}`);
  });

  test("metadata arrives", async () => {
    const answer = await conn.invoke(peer.metadata, Buffer.alloc(0), { metadata: { who: "jö", other: ["one"] } });
    assert.deepEqual(JSON.parse(text(answer)), { who: "jö", other: "one" });
  });

  test("errors come with their code, the biggest as a bigint", async () => {
    for (const code of [0, 5, 2n ** 64n - 1n]) {
      await assert.rejects(conn.invoke(peer.fail, Buffer.from(`${code} went wrong`)), (error) => {
        assert(error instanceof DrpcError);
        assert.equal(error.message, "went wrong");
        assert.equal(error.code, code);
        return true;
      });
    }
    await assert.rejects(conn.invoke({ ...peer.echo, path: "/test.Peer/Nothing" }, Buffer.alloc(0)), { code: 12 });
  });

  test("a server stream of a thousand messages", async () => {
    const stream = await conn.newStream(peer.count);
    await stream.closeSend(Buffer.from("1000"));
    let n = 0;
    for await (const message of stream) assert.equal(text(message), `${n++}`);
    assert.equal(n, 1000);
    assert.equal(conn.unblocked(), undefined);
  });

  test("a client stream", async () => {
    const stream = await conn.newStream(peer.collect);
    for (let i = 0; i < 10; i++) await stream.send(Buffer.from(`${i}`));
    await stream.closeSend();
    const all: string[] = [];
    for await (const message of stream) all.push(text(message));
    assert.deepEqual(all, ["0123456789"]);
  });

  test("a bidirectional stream", async () => {
    const stream = await conn.newStream(peer.chat);
    const replies = stream[Symbol.asyncIterator]();
    for (let i = 0; i < 100; i++) {
      await stream.send(Buffer.from(`${i}`));
      const { value } = await replies.next();
      assert.equal(text(value ?? Buffer.alloc(0)), `${i}`);
    }
    await stream.closeSend();
    assert.equal((await replies.next()).done, true);
    await stream.closed;
  });

  test("10 MiB in split packets, both ways", async () => {
    const big = Buffer.alloc(10 << 20, "0123456789abcdef");
    assert(big.equals(await conn.invoke(peer.echo, big)));
  });

  test("cancel in mid-stream, followed at once by the next call on the same conn", async () => {
    for (let i = 0; i < 20; i++) {
      const controller = new AbortController();
      const stream = await conn.newStream(peer.hang, { signal: controller.signal });
      await stream.send(Buffer.alloc(0));
      const replies = stream[Symbol.asyncIterator]();
      await replies.next();
      const reason = new Error(`enough ${i}`);
      controller.abort(reason);
      const next = conn.invoke(peer.echo, Buffer.from("next"));
      await assert.rejects(replies.next(), (error) => error === reason);
      assert.equal(text(await next), "next");
    }
    assert.equal(text(await conn.invoke(peer.cancelled, Buffer.alloc(0))), "20");
  });

  test("a stream that nobody reads stops the Go server, and memory stays bounded", async () => {
    const stream = await conn.newStream(peer.count);
    await stream.closeSend(Buffer.from("100000000"));
    const socket = conn.duplex as Socket;
    const received: number[] = [];
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      received.push(socket.bytesRead);
    }
    assert(socket.isPaused());
    assert.equal(received[4], received[3], "nothing more is read");
    await stream.close();
    assert.equal(text(await conn.invoke(peer.echo, Buffer.from("next"))), "next");
  });

  test("1,000 concurrent calls through the pool, over at most 50 conns", async () => {
    await using pool = new Pool<string>({ maxConns: 50, dial: dialDrpc() });
    const handle = pool.get(addresses.plain);
    const calls = Array.from({ length: 1000 }, (_, i) => handle.invoke(peer.echo, Buffer.from(`${i}`)));
    const echoes = await Promise.all(calls);
    assert.deepEqual(
      echoes.map(text),
      Array.from({ length: 1000 }, (_, i) => `${i}`),
    );
    assert(pool.stats().dials <= 50);
  });

  test("the header, on a port that Go shares by it", async () => {
    const shared = await open(addresses.header, { header: true });
    assert.equal(text(await shared.invoke(peer.echo, Buffer.from("hello"))), "hello");
    await shared.close();
  });

  test("TLS with a client certificate, and the server name taken from the key", async () => {
    const address = addresses.tls.replace("127.0.0.1", "localhost");
    const secure = await open(address, { tls: { ca, ...localhost } });
    assert.equal(text(await secure.invoke(peer.echo, Buffer.from("hello"))), "hello");
    await secure.close();
  });

  test("the Go client against our server", async () => {
    const server = new DrpcServer({ maxPacketBytes: 16 << 20 }).add(peer, peerHandlers());
    const out = await go.run("call", await server.listen({ host: "127.0.0.1" }));
    assert.deepEqual(out.trim().split("\n"), [
      "ok unary",
      "ok metadata",
      "ok error codes",
      "ok server stream",
      "ok client stream",
      "ok bidirectional stream",
      "ok 10 MiB both ways",
      "ok cancel, then call at once",
    ]);
    await server.close();
  });
});
