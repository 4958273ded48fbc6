import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { credentials, logVerbosity, setLogVerbosity, status } from "@grpc/grpc-js";
import type { Conn, Rpc } from "../../src/contract.ts";
import { dialGrpc, GrpcError } from "../../src/grpc/index.ts";
import { until } from "../support/clock.ts";
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
setLogVerbosity(logVerbosity.NONE);

const text: Rpc<string, string> = {
  path: "/test.Hostile/Text",
  requestSerialize: (message) => Buffer.from(message),
  responseDeserialize: (bytes) => bytes.toString(),
};

/** A pool of grpc-js channels, and the hostile server that it calls. */
async function face(t: TestContext, hostility: Hostility, options: FacingOptions<Conn> = {}) {
  const { server, pool, free } = await hostilePool(t, hostility, {
    dial: dialGrpc(credentials.createInsecure()),
    ...options,
  });
  const handle = pool.get(server.address);
  /** The status that a call ends with. Each ends in time, whatever the server does. */
  const call = (timeoutMs = 5_000): Promise<status> =>
    handle.invoke(text, "x", { timeoutMs }).then(
      () => status.OK,
      (error: unknown) => {
        assert.ok(error instanceof GrpcError, String(error));
        assert.notEqual(error.details, "");
        return error.code;
      },
    );
  const calls = (count: number) => Promise.all(Array.from({ length: count }, () => call()));
  return { server, pool, call, calls, free };
}

const ok = (count: number): status[] => Array.from({ length: count }, () => status.OK);

describe("the negative HTTP/2 cases of gRPC, on grpc-js", () => {
  test("goaway: the next call runs on another connection", async (t) => {
    const { server, pool, call, free } = await face(t, negative.goaway);
    for (let i = 0; i < 3; i++) {
      assert.equal(await call(), status.OK);
      await until(() => pool.stats().open === 0, "the conn has left");
    }
    await free();
    assert.equal(server.requests, 3);
    assert.equal(pool.stats().dials, 3);
    assert.equal(pool.stats().closed.goaway, 3);
  });

  for (const name of ["rstAfterHeader", "rstDuringData", "rstAfterData"] as const) {
    test(`${name}: the call fails, is not sent again, its slot is free, and the connection is kept`, async (t) => {
      const { server, call, free } = await face(t, negative[name]);
      for (let i = 0; i < 5; i++) assert.notEqual(await call(), status.OK);
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
    assert.equal(await call(), status.OK);
    await until(() => pool.stats(server.address).conns?.[0]?.maxStreams === 1, "the limit is known");
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

describe("a server that hurts others, on grpc-js", () => {
  test("GOAWAY in the middle of a burst: what it has taken succeeds, and what it never saw is sent again, elsewhere", async (t) => {
    const { server, call, calls, free } = await face(t, goawayInMidBurst(20));
    assert.deepEqual(await calls(20), ok(20));
    assert.equal(server.requests, 29);
    await free();
    assert.equal(await call(), status.OK);
  });

  test("a storm of refusals costs no slot and no connection; what is refused is sent again once at most", async (t) => {
    const { server, calls, free } = await face(t, refusesAllBut(3), { maxKeyConns: 1 });
    for (let round = 0; round < 10; round++) {
      for (const code of await calls(30)) assert.ok(code === status.OK || code === status.UNAVAILABLE, status[code]);
    }
    await free();
    assert.equal(server.conns.length, 1);
    assert.ok(server.requests >= 300 && server.requests <= 600, `${server.requests} requests`);
  });

  test("no streams at first: calls wait until some are allowed", async (t) => {
    const { server, pool, calls, free } = await face(t, raisesFromZero(3, 50), { manners: noStreams, maxKeyConns: 1 });
    const running = calls(10);
    await until(() => server.conns.length === 1, "it is dialed");
    assert.equal(server.requests, 0);
    assert.deepEqual(await running, ok(10));
    await free();
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
      for (const code of await calls(50)) assert.notEqual(code, status.OK);
    }
    await free();
  });

  for (const how of ["goaway", "cut"] as const) {
    test(`it leaves after each five calls (${how}): what fails is said to be so, and the next call succeeds`, async (t) => {
      const { server, pool, call, free } = await face(t, leavesAfter(5, how));
      let failed = 0;
      for (let i = 0; i < 60; i++) {
        // A call may be on its way when the server leaves; never two in a row.
        if ((await call()) === status.OK) continue;
        failed++;
        assert.equal(await call(), status.OK);
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
    const code = await call(50);
    assert.notEqual(code, status.OK);
    await pool.close({ graceMs: 0 });
    assert.equal(pool.stats().open, 0);
  });
});
