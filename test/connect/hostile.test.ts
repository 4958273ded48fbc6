import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { createFileRegistry, type DescService, type JsonObject, type Message } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { dialHttp2, type Http2Conn, pooledSession } from "../../src/connect/index.ts";
import { until } from "../support/clock.ts";
import { echoDescriptors } from "../support/echo-descriptor.ts";
import {
  dataAfterEnd,
  type FacingOptions,
  garbage,
  goawayInMidBurst,
  type Hostility,
  hostilePool,
  leavesAfter,
  negative,
  noStreams,
  raisesFromZero,
  refusesAllBut,
  resetsAll,
  shrinks,
} from "../support/hostile-cases.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

interface Text extends JsonObject {
  text?: string;
}

interface EchoClient {
  unary(ask: Text, options?: CallOptions): Promise<Message & Text>;
}

/** A Connect client over a pool, and the hostile server that it calls. */
async function face(t: TestContext, hostility: Hostility, options: FacingOptions<Http2Conn> = {}) {
  const { server, pool, free } = await hostilePool(t, hostility, { dial: dialHttp2(), ...options });
  const service: DescService | undefined = createFileRegistry(echoDescriptors).getService("test.Echo");
  assert.ok(service);
  const sessionManager = pooledSession(pool, server.url);
  const transport = createGrpcTransport({ baseUrl: server.url, sessionManager });
  const client: EchoClient = Object(createClient(service, transport));
  /** The code that a call ends with, 0 for success. Each ends in time, whatever the server does. */
  const call = (timeoutMs = 5_000): Promise<Code | 0> =>
    client.unary({}, { timeoutMs }).then(
      () => 0,
      (error: unknown) => {
        assert.ok(error instanceof ConnectError, String(error));
        return error.code;
      },
    );
  const calls = (count: number) => Promise.all(Array.from({ length: count }, () => call()));
  return { server, pool, call, calls, free };
}

/** What Connect makes of REFUSED_STREAM, with its own session manager as well. */
const refused = Code.Internal;

const ok = (count: number): 0[] => Array.from({ length: count }, () => 0);

describe("the negative HTTP/2 cases of gRPC, on Connect", () => {
  test("goaway: the next call runs on another connection", async (t) => {
    const { server, pool, call, free } = await face(t, negative.goaway);
    assert.equal(await call(), 0);
    await until(() => pool.stats().open === 0, "the conn has left");
    assert.equal(await call(), 0);
    await free();
    assert.equal(server.conns.length, 2);
    assert.ok(pool.stats().closed.goaway >= 1);
  });

  for (const name of ["rstAfterHeader", "rstDuringData", "rstAfterData"] as const) {
    test(`${name}: the call fails, its slot is free, and the connection is kept`, async (t) => {
      const { server, call, free } = await face(t, negative[name]);
      for (let i = 0; i < 5; i++) assert.notEqual(await call(), 0);
      await free();
      assert.equal(server.conns.length, 1);
      assert.equal(server.requests, 5);
    });
  }

  test("ping: each is answered, and the calls succeed", async (t) => {
    const { server, calls, free } = await face(t, negative.ping);
    assert.deepEqual(await calls(10), ok(10));
    await free();
    await until(() => server.conns[0]?.pongs === 40, "all are answered");
  });

  test("max_streams: a limit that comes with the first answer is obeyed", async (t) => {
    const { server, pool, call, calls } = await face(t, negative.maxStreams, { maxKeyConns: 1 });
    assert.equal(await call(), 0);
    await until(() => pool.stats(server.url).conns?.[0]?.maxStreams === 1, "the limit is known");
    assert.deepEqual(await calls(10), ok(10));
    assert.equal(server.conns.length, 1);
    assert.equal(server.conns[0]?.mostOpen, 1);
  });

  test("data-frame padding is dropped", async (t) => {
    const { server, calls } = await face(t, negative.padding);
    for (let round = 0; round < 10; round++) assert.deepEqual(await calls(10), ok(10));
    assert.equal(server.conns.length, 1);
  });
});

describe("a server that hurts others, on Connect", () => {
  test("GOAWAY in the middle of a burst: what it has taken succeeds, the rest is refused, what follows goes elsewhere", async (t) => {
    const { server, call, calls, free } = await face(t, goawayInMidBurst(20));
    const codes = await calls(20);
    assert.equal(codes.filter((code) => code === 0).length, 11);
    assert.equal(codes.filter((code) => code === refused).length, 9);
    await free();
    assert.equal(await call(), 0);
    assert.equal(server.conns.length, 2);
  });

  test("a storm of refusals costs no slot and no connection", async (t) => {
    const { server, calls, free } = await face(t, refusesAllBut(3), { maxKeyConns: 1 });
    for (let round = 0; round < 10; round++) {
      const codes = await calls(30);
      assert.equal(codes.filter((code) => code === 0).length, 10);
      assert.equal(codes.filter((code) => code === refused).length, 20);
    }
    await free();
    assert.equal(server.conns.length, 1);
  });

  test("no streams at first: calls wait until some are allowed", async (t) => {
    const { server, pool, calls, free } = await face(t, raisesFromZero(3, 50), { manners: noStreams, maxKeyConns: 1 });
    const running = calls(10);
    await until(() => server.conns.length === 1, "it is dialed");
    assert.equal(server.requests, 0);
    assert.deepEqual(await running, ok(10));
    await free();
    assert.equal(server.conns.length, 1);
    assert.ok((server.conns[0]?.mostOpen ?? 0) <= 3);
    assert.equal(pool.stats().dials, 1);
  });

  test("a limit that shrinks under load loses no call", async (t) => {
    const { server, calls, free } = await face(t, shrinks(10, 1, 2), { maxKeyConns: 1 });
    assert.deepEqual(await calls(50), ok(50));
    assert.deepEqual(await calls(10), ok(10));
    await free();
    assert.equal(server.conns.length, 1);
    assert.ok((server.conns[0]?.mostOpen ?? 0) <= 10);
  });

  test("a storm of resets costs no slot", async (t) => {
    const { calls, free } = await face(t, resetsAll, { maxKeyConns: 1 });
    for (let round = 0; round < 10; round++) {
      for (const code of await calls(50)) assert.notEqual(code, 0);
    }
    await free();
  });

  for (const how of ["goaway", "cut"] as const) {
    test(`it leaves after each five calls (${how}): what fails is said to be so, and the next call succeeds`, async (t) => {
      const { server, pool, call, free } = await face(t, leavesAfter(5, how));
      let failed = 0;
      for (let i = 0; i < 60; i++) {
        // A call may be on its way when the server leaves; never two in a row.
        if ((await call()) === 0) continue;
        failed++;
        assert.equal(await call(), 0);
      }
      assert.ok(failed <= 15, `${failed} of 60 failed`);
      await free();
      assert.ok(server.conns.length >= 10);
      assert.ok(pool.stats().open <= 1);
    });
  }

  test("data behind the end of a stream hurts no other call", async (t) => {
    const { calls, free } = await face(t, dataAfterEnd);
    for (let round = 0; round < 5; round++) assert.deepEqual(await calls(1), ok(1));
    await free();
  });

  test("a session that Node gives up without a word: calls end at their deadline at the latest, and the pool can be closed", async (t) => {
    const { pool, call } = await face(t, garbage);
    // Node 20 says nothing; later ones fail the session, and its calls with it.
    const code = await call(50);
    assert.ok(
      code === Code.DeadlineExceeded || (code === Code.Internal && !process.versions.node.startsWith("20.")),
      `${code}`,
    );
    await pool.close({ graceMs: 0 });
    assert.equal(pool.stats().open, 0);
  });
});
