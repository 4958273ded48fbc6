/** The behaviours of upstream's pool, over real DRPC connections: dial counts prove them. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { Dial, Stream } from "../../src/contract.ts";
import { type DialDrpcOptions, type DrpcConn, DrpcServer, dialDrpc } from "../../src/drpc/index.ts";
import { Pool } from "../../src/index.ts";
import { ca, localhost } from "../support/certs.ts";
import { reasonOf } from "../support/outcome.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { holding } from "../support/wire.ts";

const hello = Buffer.from("hello");

/** A dial function that counts. */
class Counter {
  dials = 0;
  readonly conns: DrpcConn[] = [];
  readonly dial: Dial<string, DrpcConn>;

  constructor(options?: DialDrpcOptions) {
    const dial = dialDrpc(options);
    const counted: Dial<string, DrpcConn> = async (key, dialOptions) => {
      this.dials++;
      const conn = await dial(key, dialOptions);
      this.conns.push(conn);
      return conn;
    };
    this.dial = Object.assign(counted, { maxStreams: dial.maxStreams });
  }
}

describe("a pool of DRPC conns", () => {
  const server = new DrpcServer().add(peer, peerHandlers());
  const keys: string[] = [];
  let key = "";

  before(async () => {
    for (let i = 0; i < 3; i++) keys.push(await server.listen({ host: "127.0.0.1" }));
    key = keys[0] ?? "";
  });
  after(() => server.close({ graceMs: 0 }));

  test("get dials nothing, conns are reused, and the oldest is evicted", async () => {
    const counter = new Counter();
    await using pool = new Pool({ capacity: 2, keyCapacity: 1 });
    const [one, two, three] = keys.map((at) => pool.get(at, counter.dial));
    assert(one && two && three);
    assert.equal(counter.dials, 0); // lazily
    const steps = [
      [one, 1], // the first call dials
      [one, 1], // and the next reuses
      [two, 2],
      [two, 2],
      [one, 2],
      [three, 3], // evicts two's, used longest ago
      [one, 3],
      [two, 4],
    ] as const;
    for (const [handle, dials] of steps) {
      assert.equal((await handle.invoke(peer.echo, hello)).toString(), "hello");
      assert.equal(counter.dials, dials);
    }
  });

  test("streams at the same time dial a conn each, and after closed they are reused", async () => {
    const counter = new Counter();
    await using pool = new Pool();
    const handle = pool.get(key, counter.dial);
    const streams: Stream<Uint8Array, Buffer>[] = [];
    for (let dials = 1; dials <= 3; dials++) {
      streams.push(await handle.newStream(peer.chat));
      assert.equal(counter.dials, dials);
    }
    for (const stream of streams) {
      await stream.close();
      await stream.closed;
    }
    for (let i = 0; i < 3; i++) await handle.newStream(peer.chat);
    assert.equal(counter.dials, 3);
    await handle.newStream(peer.chat);
    assert.equal(counter.dials, 4);
    await pool.close({ graceMs: 0 });
  });

  for (const [name, options] of [
    ["TCP", {}],
    ["TLS", { tls: { ca } }],
  ] as const) {
    test(`a soft cancel keeps the conn, over ${name}: one dial for fifty cancelled calls and the next`, async () => {
      const counter = new Counter(options);
      await using pool = new Pool({ maxKeyConns: 1 });
      const at = await server.listen({ host: "127.0.0.1", tls: name === "TLS" ? localhost : undefined });
      const handle = pool.get(at, counter.dial);
      for (let i = 0; i < 50; i++) {
        const controller = new AbortController();
        const stream = await handle.newStream(peer.hang, { signal: controller.signal });
        await stream.closeSend(hello);
        const messages = stream[Symbol.asyncIterator]();
        await messages.next();
        controller.abort(i);
        assert.equal(await reasonOf(messages.next()), i);
        assert.equal((await handle.invoke(peer.echo, hello)).toString(), "hello");
      }
      assert.equal(counter.dials, 1);
    });
  }

  for (const [name, options] of [
    ["TCP", {}],
    ["TLS", { tls: { ca } }],
  ] as const) {
    test(`without any limit a soft cancel over ${name} costs no dial either: the conn serves the next call`, async () => {
      const counter = new Counter(options);
      await using pool = new Pool();
      const at = await server.listen({ host: "127.0.0.1", tls: name === "TLS" ? localhost : undefined });
      const handle = pool.get(at, counter.dial);
      await handle.invoke(peer.echo, hello);
      for (let i = 0; i < 60; i++) {
        const controller = new AbortController();
        const call = handle.invoke(peer.hang, hello, { signal: controller.signal });
        if (i % 3 === 0) controller.abort(i);
        else if (i % 3 === 1) setImmediate(() => controller.abort(i));
        else setTimeout(() => controller.abort(i), 2);
        assert.equal(await reasonOf(call), i);
        assert.equal((await handle.invoke(peer.echo, hello)).toString(), "hello");
      }
      assert.equal(counter.dials, 1);
    });
  }

  test("a hard cancel costs the conn", async () => {
    const counter = new Counter({ cancel: "hard" });
    await using pool = new Pool();
    const handle = pool.get(key, counter.dial);
    for (let dials = 1; dials <= 5; dials++) {
      assert.equal((await handle.invoke(peer.echo, hello)).toString(), "hello");
      assert.equal(counter.dials, dials);
      const controller = new AbortController();
      const call = handle.invoke(peer.hang, hello, { signal: controller.signal });
      controller.abort("enough");
      assert.equal(await reasonOf(call), "enough");
    }
  });

  test("a conn that died while idle is dropped, and the next call dials", async () => {
    const counter = new Counter();
    await using pool = new Pool();
    const handle = pool.get(key, counter.dial);
    await handle.invoke(peer.echo, hello);
    counter.conns[0]?.duplex.destroy();
    await holding(counter.conns[0]?.closed ?? Promise.reject(new Error("no conn")));
    await handle.invoke(peer.echo, hello);
    assert.equal(counter.dials, 2);
  });

  test("a negative capacity caches nothing", async () => {
    const counter = new Counter();
    await using pool = new Pool({ capacity: -1 });
    const handle = pool.get(key, counter.dial);
    for (let dials = 1; dials <= 3; dials++) {
      await handle.invoke(peer.echo, hello);
      assert.equal(counter.dials, dials);
    }
  });

  test("a thousand calls at once through twenty conns, one in three cancelled: none fails that was not", async () => {
    const counter = new Counter();
    await using pool = new Pool({ maxConns: 20, maxWaiters: 0 });
    const handle = pool.get(key, counter.dial);
    const calls = Array.from({ length: 1000 }, async (_, i) => {
      const controller = new AbortController();
      const call = handle.invoke(peer.echo, Buffer.from(`${i}`), { signal: controller.signal });
      if (i % 3 === 0) {
        setImmediate(() => controller.abort("cancelled"));
        return await call.then(
          () => "cancelled",
          (reason) => reason,
        );
      }
      return (await call).toString();
    });
    const expected = Array.from({ length: 1000 }, (_, i) => (i % 3 === 0 ? "cancelled" : `${i}`));
    assert.deepEqual(await Promise.all(calls), expected);
    assert(counter.dials <= 20);
  });
});
