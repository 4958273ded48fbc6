import assert from "node:assert/strict";
import { test } from "node:test";
import { DrpcError, type DrpcHandlers, DrpcServer } from "../../src/drpc/index.ts";
import { ConnClosedError } from "../../src/errors.ts";
import { turns } from "../support/clock.ts";
import { peer, peerHandlers } from "../support/peer.ts";
import { Place, tryAll, tryEcho } from "../support/place.ts";
import { Far, packet } from "../support/wire.ts";

const hello = Buffer.from("hello");

test("a handler hears through its signal that its caller has cancelled, or gone", async () => {
  const reasons: unknown[] = [];
  let aborted: () => void = () => {};
  await using place = await new Place(undefined, {
    hang: async function* (_, { signal }) {
      yield hello;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      reasons.push(signal.reason);
      aborted();
    },
  }).listen();
  for (const leave of ["cancel", "close", "destroy"] as const) {
    const conn = await place.dial();
    const heard = new Promise<void>((resolve) => {
      aborted = resolve;
    });
    const stream = await conn.newStream(peer.hang);
    await stream.closeSend(hello);
    await stream[Symbol.asyncIterator]().next();
    if (leave === "cancel") await stream.close();
    else if (leave === "close") await conn.close();
    else conn.duplex.destroy();
    await heard;
    if (leave === "cancel") await tryAll(conn);
  }
  assert(
    reasons[0] instanceof DrpcError && reasons[1] instanceof ConnClosedError && reasons[2] instanceof ConnClosedError,
  );
});

test("a cancelled RPC is followed by the next at once, whose handler waits for the old one", async () => {
  let running = 0;
  let most = 0;
  await using place = await new Place(undefined, {
    hang: async function* (_, { signal }) {
      most = Math.max(most, ++running);
      yield hello;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await turns(3);
      running--;
    },
  }).listen();
  const conn = await place.dial();
  for (let i = 0; i < 20; i++) {
    const stream = await conn.newStream(peer.hang);
    await stream.closeSend(hello);
    for await (const message of stream) {
      assert.equal(message.toString(), "hello");
      break;
    }
  }
  assert.equal((await conn.invoke(peer.echo, hello)).toString(), "hello");
  assert.deepEqual([running, most], [0, 1]);
});

test("a new invoke on a running RPC cancels that, and handlers never pile up", async () => {
  let started = 0;
  let release: () => void = () => {};
  const server = new DrpcServer().add(peer, {
    ...peerHandlers(),
    echo: async (request) => {
      started++;
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return request;
    },
  });
  const far = new Far();
  server.serve(far.near);
  for (let stream = 1; stream <= 100; stream++) {
    far.send(packet("invoke", stream, 1, peer.echo.path), packet("message", stream, 2, `${stream}`));
    await turns(1);
  }
  assert.equal(started, 1, "99 invokes wait, or are cancelled");
  release();
  await turns();
  release();
  assert.deepEqual(await far.got(2), ["message 100/1 100", "closeSend 100/2"]);
  assert.equal(started, 2, "only the newest ran");
  await server.close({ graceMs: 0 });
});

test("a close packet is no last message: the handler's requests end with an error", async () => {
  const server = new DrpcServer();
  const seen = new Promise<unknown>((resolve) => {
    const collect = async (requests: AsyncIterable<Buffer>): Promise<Buffer> => {
      try {
        for await (const _ of requests);
        resolve("the end");
      } catch (error) {
        resolve(error);
      }
      return hello;
    };
    server.add({ collect: peer.collect }, { collect });
  });
  const far = new Far();
  server.serve(far.near);
  far.send(packet("invoke", 1, 1, peer.collect.path), packet("message", 1, 2), packet("close", 1, 3));
  assert(((await seen) as Error).message.includes("cancelled"));
  assert.deepEqual(far.packets, []);
  await server.close({ graceMs: 0 });
});

test("a handler that leaves its requests unread does not stop the conn", async () => {
  await using place = await new Place({ highWaterBytes: 1000 }, { collect: () => hello }).listen();
  const conn = await place.dial();
  const stream = await conn.newStream(peer.collect);
  for (let i = 0; i < 100; i++) await stream.send(Buffer.alloc(10_000));
  await stream.closeSend();
  for await (const message of stream) assert.equal(message.toString(), "hello");
  await tryEcho(conn);
});

test("a handler that throws, returns nonsense or cannot be serialized fails its RPC only", async () => {
  const bad = {
    echo: (): Buffer => {
      throw Object.assign(new Error("no"), { code: 5 });
    },
    count: () => "no iterable" as unknown as AsyncIterable<Buffer>,
    metadata: () => Promise.reject("just text"),
  };
  await using place = await new Place(undefined, bad).listen();
  const conn = await place.dial();
  await assert.rejects(conn.invoke(peer.echo, hello), { message: "no", code: 5 });
  const count = await conn.newStream(peer.count);
  await count.closeSend(hello);
  await assert.rejects(count[Symbol.asyncIterator]().next(), { message: /async iterable/ });
  await assert.rejects(conn.invoke(peer.metadata, hello), { message: "just text", code: 0 });
  const empty = await conn.newStream(peer.echo);
  await empty.closeSend();
  await assert.rejects(empty[Symbol.asyncIterator]().next(), { message: /no request/ });
});

/** Values whose every use throws. */
const untouchable = new Proxy(
  {},
  {
    get: () => {
      throw new Error("touched");
    },
    has: () => {
      throw new Error("touched");
    },
    getPrototypeOf: () => {
      throw new Error("touched");
    },
  },
);

test("whatever a handler throws fails its RPC only, and the conn serves the next", async () => {
  const trap = (name: string): Error =>
    Object.defineProperty(new Error("trap"), name, {
      get: () => {
        throw new Error("touched");
      },
    });
  const thrown: [unknown, RegExp, number][] = [
    [Object.assign(new Error(), { message: 42 }), /^42$/, 0],
    [Object.assign(new Error(), { message: undefined }), /^Error$/, 0],
    [Object.assign(new Error(), { message: Symbol("s"), code: 7 }), /Symbol\(s\)/, 7],
    [Object.assign(new Error(), { message: Object.create(null) }), /without a text/, 0],
    [Object.create(null), /without a text/, 0],
    [Object.assign(Object.create(null), { message: "plain", code: 9 }), /^plain$/, 9],
    [{ toString: () => Object.create(null) }, /without a text/, 0],
    [trap("message"), /without a text/, 0],
    [trap("code"), /^trap$/, 0],
    [untouchable, /without a text/, 0],
    [undefined, /undefined/, 0],
    [null, /null/, 0],
    [Symbol("why"), /Symbol\(why\)/, 0],
    ["", /^$/, 0],
  ];
  let error: unknown;
  const fail = (): never => {
    throw error;
  };
  await using place = await new Place(undefined, {
    echo: fail,
    metadata: async () => fail(),
    count: async function* () {
      yield hello;
      fail();
    },
    collect: () => untouchable as Buffer,
    cancelled: () => Promise.resolve(42 as unknown as Buffer),
    hang: () => untouchable as unknown as AsyncIterable<Buffer>,
  }).listen();
  const conn = await place.dial();
  for (const [what, message, code] of thrown) {
    error = what;
    await assert.rejects(conn.invoke(peer.echo, hello), { message, code });
    await assert.rejects(conn.invoke(peer.metadata, hello), { message, code });
    const count = await conn.newStream(peer.count);
    await count.closeSend(hello);
    const messages = count[Symbol.asyncIterator]();
    assert.equal((await messages.next()).value?.toString(), "hello");
    await assert.rejects(messages.next(), { message, code });
  }
  await assert.rejects(conn.invoke(peer.collect, hello), { message: /touched/ });
  await assert.rejects(conn.invoke(peer.cancelled, hello), { message: /serialize to bytes, got 42/ });
  await assert.rejects(conn.invoke(peer.hang, hello), { message: /touched/ });
  await assert.rejects(conn.invoke({ ...peer.echo, path: "/no/Such" }, hello), { code: 12 });
});

test("a method whose definition is no method, or whose handler is no function, is refused when it is added", () => {
  const bad: [unknown, unknown][] = [
    [undefined, {}],
    [{ toString: peer.echo }, {}],
    [{ echo: peer.echo }, {}],
    [{ echo: peer.echo }, undefined],
    [{ echo: peer.echo }, { echo: 1 }],
    [{ echo: null }, { echo: () => hello }],
    [{ echo: { ...peer.echo, path: 1 } }, { echo: () => hello }],
    [{ echo: { ...peer.echo, responseSerialize: undefined } }, { echo: () => hello }],
    [{ echo: { ...peer.echo, requestDeserialize: undefined } }, { echo: () => hello }],
  ];
  for (const [service, handlers] of bad) {
    const server = new DrpcServer();
    assert.throws(() => server.add(service as typeof peer, handlers as DrpcHandlers<typeof peer>), {
      code: "ERR_POOL_ARGUMENT",
    });
  }
  class Handlers {
    echo(request: Buffer): Buffer {
      return request;
    }
  }
  new DrpcServer().add({ echo: peer.echo }, new Handlers());
});
