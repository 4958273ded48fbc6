import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { instrument } from "../../src/otel/index.ts";
import { settle } from "../support/clock.ts";
import { echo, type ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";
import { Telemetry } from "../support/telemetry.ts";

nothingUnheard();

describe("metrics of a pool", () => {
  test("conns are counted by state, with streams, waiters and the limits that are set", async (t) => {
    const telemetry = new Telemetry();
    const { meterProvider } = telemetry;
    const { pool } = pooled(t, { maxConns: 5, capacity: 3, minIdle: 1, keyCapacity: 2, dial: scriptedDial() });
    t.after(instrument(pool, { meterProvider }).stop);
    pool.configure({ maxKeyConns: 2, minIdle: 0 }, "a");
    const [one, two] = [await pool.acquire("a"), await pool.acquire("a")];
    const three = pool.acquire("a");
    await settle();
    const { count, streams, pending_requests, max, ...rest } = await telemetry.collect();
    assert.deepEqual(count, { "state=idle": 0, "state=used": 2, "state=draining": 0, "state=dialing": 0 });
    assert.deepEqual([streams, pending_requests, max], [{ "": 2 }, { "": 1 }, { "": 5 }]);
    assert.deepEqual([rest["idle.max"], rest["idle.min"]], [{ "": 3 }, { "": 1 }]);
    one.release();
    (await three).release();
    pool.clear();
    const after = await telemetry.collect();
    assert.deepEqual(after["count"], { "state=idle": 0, "state=used": 0, "state=draining": 1, "state=dialing": 0 });
    two.release();
  });

  test("a limit that is not set is absent, one of none is 0", async (t) => {
    const telemetry = new Telemetry();
    const { meterProvider } = telemetry;
    const { pool } = pooled(t, { capacity: -1 });
    t.after(instrument(pool, { meterProvider }).stop);
    const found = await telemetry.collect();
    assert.deepEqual([found["max"], found["idle.max"], found["idle.min"]], [undefined, { "": 0 }, { "": 0 }]);
  });

  test("times are in seconds: of dials, waits, uses and lives, failures by their kind", async (t) => {
    const telemetry = new Telemetry();
    const { meterProvider } = telemetry;
    const { pool, clock } = pooled(t, { maxKeyConns: 1, maxWaiters: 1 });
    t.after(instrument(pool, { meterProvider }).stop);
    const dial = scriptedDial({}, { manual: true });
    const refused = rejection(pool.acquire("k", { dial }));
    await clock.advance(100);
    dial.pending[0]?.fail(Object.assign(new Error("nobody there"), { code: "ECONNREFUSED" }));
    await refused;
    const first = pool.acquire("k", { dial });
    await clock.advance(2_000);
    dial.pending[1]?.arrive();
    const lease = await first;
    const late = rejection(pool.acquire("k", { timeoutMs: 500 }));
    const full = rejection(pool.acquire("k"));
    await Promise.all([full, clock.advance(500), late]);
    const controller = new AbortController();
    const gone = rejection(pool.acquire("k", { signal: controller.signal }));
    controller.abort();
    await gone;
    await clock.advance(500);
    lease.release();
    pool.tryAcquire("k")?.release();
    assert.equal(pool.tryAcquire("another"), undefined);
    pool.clear();
    await settle();
    const found = await telemetry.collect();
    assert.deepEqual(found["create_time"], { "": [2, 1], "error.type=ECONNREFUSED": [0.1, 1] });
    assert.deepEqual(found["wait_time"], {
      "": [2, 1],
      "error.type=ECONNREFUSED": [0.1, 1],
      "error.type=ERR_POOL_WAIT_TIMEOUT": [0.5, 1],
      "error.type=ERR_POOL_QUEUE_FULL": [0, 1],
      "error.type=AbortError": [0, 1],
    });
    assert.deepEqual(found["use_time"], { "": [1, 2] });
    assert.deepEqual(found["duration"], { "": [1, 1] });
    assert.deepEqual(found["timeouts"], { "": 1 });
    const outcomes = { hit: 1, served: 1, timeout: 1, refused: 1, aborted: 1, failed: 1, empty: 0 };
    assert.deepEqual(
      found["requests"],
      Object.fromEntries(Object.entries(outcomes).map(([name, n]) => [`request.outcome=${name}`, n])),
    );
  });

  test("keys are attributes only when asked for; those with the same attributes are added up", async (t) => {
    const telemetry = new Telemetry();
    const { meterProvider } = telemetry;
    const options = { maxKeyConns: 2, maxConns: 10, dial: scriptedDial({ answer: () => "y" }) };
    const { pool } = pooled<ScriptedConn>(t, options);
    const keyAttributes = (key: string) => ({ "server.address": key.replace(/:\d+$/, "") });
    t.after(instrument(pool, { meterProvider, keyAttributes }).stop);
    for (const key of ["a:1", "a:2", "b:1"]) (await pool.acquire(key)).release();
    await settle();
    const found = await telemetry.collect();
    assert.equal(found["count"]?.["server.address=a state=idle"], 2);
    assert.equal(found["count"]?.["server.address=b state=idle"], 1);
    assert.deepEqual(found["max"], { "": 10, "server.address=a": 4, "server.address=b": 2 });
    assert.deepEqual(found["use_time"], { "server.address=a": [0, 2], "server.address=b": [0, 1] });
    assert.equal(found["requests"]?.["request.outcome=served"], 3);
  });
});

describe("instrument", () => {
  test("adds one listener for each event; stop, and the end of a using block, take everything off", async (t) => {
    const telemetry = new Telemetry();
    const { meterProvider } = telemetry;
    const { pool } = pooled(t, { dial: scriptedDial() });
    let listeners = 0;
    const on = pool.on.bind(pool);
    pool.on = (name, listener) => {
      listeners++;
      const stop = on(name, listener);
      return () => {
        listeners--;
        stop();
      };
    };
    const first = instrument(pool, { meterProvider });
    assert.equal(listeners, 11);
    assert.throws(() => instrument(pool), { code: "ERR_POOL_ARGUMENT", message: /is instrumented already/ });
    first.stop();
    first.stop();
    assert.equal(listeners, 0);
    {
      using _watching = instrument(pool, { meterProvider, useTime: false, spans: false });
      assert.equal(listeners, 8);
    }
    assert.equal(listeners, 0);
    assert.deepEqual(await telemetry.collect(), { timeouts: { "": 0 } });
  });

  test("pools are told apart by their names", async (t) => {
    const telemetry = new Telemetry();
    const { meterProvider } = telemetry;
    const pools = ["one", "two"].map((name) => pooled(t, { name, dial: scriptedDial() }).pool);
    for (const pool of pools) t.after(instrument(pool, { meterProvider }).stop);
    await pools[0]?.warm("k");
    await pools[1]?.warm("k", 3);
    for (const [name, idle] of [
      ["one", 1],
      ["two", 3],
    ] as const) {
      assert.equal((await telemetry.collect(name))["count"]?.["state=idle"], idle);
    }
  });

  test("without use_time a hit stays what it was: no clock is read", async (t) => {
    const { meterProvider } = new Telemetry();
    const { pool, clock } = pooled<Conn>(t, { dial: scriptedDial({ answer: () => "y" }) });
    t.after(instrument(pool, { meterProvider, useTime: false }).stop);
    const handle = pool.get("k");
    await handle.invoke(echo, "x");
    const { readings } = clock;
    pool.tryAcquire("k")?.release();
    await handle.invoke(echo, "x");
    assert.equal(clock.readings, readings);
  });

  test("wrong options are refused by their names", (t) => {
    const { pool } = pooled(t);
    for (const options of [
      { keys: true },
      { keyAttributes: "a" },
      { useTime: 1 },
      { spans: "no" },
      { meterProvider: 1 },
    ]) {
      assert.throws(() => instrument(pool, options as object), { code: "ERR_POOL_ARGUMENT" }, JSON.stringify(options));
    }
    instrument(pool).stop(); // the refused ones have left nothing
  });
});
