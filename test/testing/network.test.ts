import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnClosedError, Pool } from "../../src/index.ts";
import { echo, type NetworkOptions, type Simulation, simulate } from "../../src/testing/index.ts";
import { SimulatedConn } from "../../src/testing/simulated-conn.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

const calm = { dialMs: 10, answerMs: 10, maxStreams: 1 };

type Program = (
  pool: Pool<string>,
  simulation: Simulation & { ask: (key?: string, timeoutMs?: number) => Promise<string> },
) => Promise<void>;

/** Runs a program over a network where that one fault happens, and nothing else; nothing may be left of it. */
async function over(options: NetworkOptions, program: Program, maxKeyConns = 1): Promise<void> {
  const none = {
    failedDials: 0,
    slowDials: 0,
    slowAnswers: 0,
    deaths: 0,
    silences: 0,
    goaways: 0,
    limitChanges: 0,
    blocks: 0,
    failedCloses: 0,
  };
  const faults = options.faults === false ? false : { ...none, ...options.faults };
  await simulate({ seed: 1, ...calm, ...options, faults }, async (simulation) => {
    const { clock, network } = simulation;
    const pool = new Pool<string>({ clock, dial: network.dial, maxKeyConns });
    const ask = (key = "a", timeoutMs = 60_000) => pool.get(key).invoke(echo, "hello", { timeoutMs });
    await program(pool, { ...simulation, ask });
    await pool.close();
    assert.equal(network.open, 0);
    assert.equal(clock.timers, 0);
  });
}

test("without faults calls are answered, after the time of a dial and of a call", () =>
  over(
    { faults: false, answer: (request, { key, path }) => [request, key, path].join(" ") },
    async (_, { ask, clock, network }) => {
      const start = clock.now();
      assert.equal(await ask(), "hello a /test.Echo/Echo");
      assert.equal(clock.now() - start, 20);
      assert.deepEqual([network.open, network.dials, network.calls], [1, 1, 1]);
      assert.deepEqual(network.trace, [
        "0 ms: dial 1 of a",
        "10 ms: dial 1 of a brings conn 1 of a",
        "10 ms: conn 1 of a: /test.Echo/Echo",
      ]);
    },
  ));

test("what `answer` throws is what the call rejects with", () =>
  over({ answer: () => Promise.reject(new RangeError("no such thing")) }, async (pool, { ask }) => {
    await assert.rejects(ask(), RangeError);
    assert.equal(pool.stats().idle, 1, "the peer has answered");
  }));

test("a failed dial is a refusal, as of a socket", () =>
  over({ faults: { failedDials: 1 } }, async (pool, { ask }) => {
    const error = await ask().catch((reason: unknown) => reason);
    assert.ok(error instanceof Error && error.cause instanceof Error);
    assert.match(error.cause.message, /connect ECONNREFUSED a/);
    assert.equal(pool.stats().dialed, 0);
  }));

test("a slow dial is given up when its time is over", () =>
  over({ faults: { slowDials: 1, slowMs: 30_000 } }, async (_, { ask, network, sleep }) => {
    await assert.rejects(ask(), { code: "ERR_POOL_DIAL_TIMEOUT" });
    await sleep(0);
    assert.equal(network.trace.at(-1), "20000 ms: dial 1 of a is given up");
  }));

test("a slow answer passes the call's time limit; its conn lives, and answers the ping", () =>
  over({ faults: { slowAnswers: 1, slowMs: 5_000 } }, async (pool, { ask, sleep }) => {
    await assert.rejects(ask("a", 2_000), { name: "TimeoutError" });
    await sleep(10_000);
    assert.equal(pool.stats().idle, 1);
  }));

test("a conn dies, under its call or after it", () =>
  over({ faults: { deaths: 1 }, answerMs: [1, 100] }, async (pool, { ask, sleep }) => {
    let underCalls = 0;
    for (let i = 0; i < 20; i++) {
      await ask().catch((error: unknown) => {
        assert.ok(error instanceof ConnClosedError && error.reason === "died" && error.sent);
        underCalls++;
      });
      await sleep(200);
    }
    assert.equal(pool.stats().closed.died, 20);
    assert.ok(underCalls > 0 && underCalls < 20, `${underCalls}`);
  }));

test("a conn falls silent: the pool asks it for a sign of life, and closes it when there is none", () =>
  over({ faults: { silences: 1 }, answerMs: [100, 1000] }, async (pool, { ask, network, sleep }) => {
    while (pool.stats().closed.silent === 0) {
      await ask("a", 2_000).catch(() => {});
      await sleep(1_000);
    }
    assert.ok(network.trace.some((line) => line.endsWith("conn 1 of a falls silent")));
    assert.equal(pool.stats().closed.died, 0);
    network.calm();
    assert.equal(await ask(), "hello");
  }));

test("a silent conn under a call without a time limit dies when the machine gives it up", () =>
  over({ faults: { silentMs: 900_000 } }, async (_, { ask, clock, network }) => {
    const start = clock.now();
    const call = ask("a", 3_000_000);
    clock.setTimeout(() => network.down("a", { silent: true }), 15);
    await assert.rejects(call, { reason: "died" });
    assert.equal(clock.now() - start, 900_015);
  }));

test("a conn whose peer says goaway drains; what had not reached the peer is safe to send again", () =>
  over({ faults: { goaways: 1 }, answerMs: [1, 100] }, async (pool, { ask, network, sleep }) => {
    const unsent: boolean[] = [];
    for (let i = 0; i < 20; i++) {
      await ask().catch((error: unknown) => {
        assert.ok(error instanceof ConnClosedError && error.reason === "goaway");
        unsent.push(!error.sent);
      });
      await sleep(200);
    }
    assert.ok(unsent.length > 0 && unsent.every(Boolean), unsent.join());
    assert.equal(pool.stats().closed.goaway, 20);
    assert.equal(network.dials, 20);
  }));

test("a call that had not reached the peer before its goaway never reaches it: `retryUnsent` sends it twice, the peer has it once", () => {
  const asked: unknown[] = [];
  return over(
    { faults: { goaways: 0.5 }, answerMs: [1, 100], answer: (request) => asked.push(request) },
    async (pool) => {
      const peer = pool.get("a", { retryUnsent: true });
      let answered = 0;
      for (let i = 0; i < 50; i++) {
        const call = peer.invoke(echo, `${i}`);
        answered += await call.then(
          () => 1,
          () => 0,
        );
      }
      assert.equal(new Set(asked).size, asked.length);
      assert.equal(answered, asked.length);
    },
  );
});

test("a peer changes how many streams a conn takes, and the pool follows", () =>
  over({ faults: { limitChanges: 1 }, maxStreams: [1, 5] }, async (pool, { ask, network, sleep }) => {
    const conns: SimulatedConn[] = [];
    pool.on("dialed", ({ conn }) => conn instanceof SimulatedConn && conns.push(conn));
    const limits = new Set<number>();
    for (let i = 0; i < 10; i++) {
      await ask();
      await sleep(50);
      const [conn] = conns;
      assert.ok(conn?.maxStreams !== undefined);
      limits.add(conn.maxStreams);
      const calls = Array.from({ length: 10 }, () => ask());
      await sleep(0);
      assert.ok(conn.calls.size <= 5);
      await Promise.all(calls);
    }
    assert.ok(limits.size > 2, [...limits].join());
    assert.equal(network.dials, 1);
  }));

test("a conn stays blocked after a cancelled call, and is used when it is free again", () =>
  over({ faults: { blocks: 1, blockedMs: 300 }, answerMs: 5_000 }, async (_, { ask, clock, network }) => {
    const start = clock.now();
    await assert.rejects(ask("a", 900), { name: "TimeoutError" });
    await ask();
    assert.equal(clock.now() - start, 900 + 300 + 5_000);
    assert.equal(network.dials, 1);
  }));

test("a call that its caller aborts blocks its conn, too", () =>
  over({ faults: { blocks: 1, blockedMs: 300 } }, async (pool, { clock, network }) => {
    const gone = new AbortController();
    clock.setTimeout(() => gone.abort(), 15);
    await assert.rejects(pool.get("a").invoke(echo, "hello", { signal: gone.signal }), { name: "AbortError" });
    assert.equal(network.trace.at(-1), "15 ms: conn 1 of a is blocked");
  }));

test("a close that fails is told by the event, and nothing is open", () => {
  const errors: unknown[] = [];
  return over({ faults: { failedCloses: 1 } }, async (pool, { ask, network, sleep }) => {
    pool.on("closed", ({ error }) => errors.push(error));
    await ask();
    pool.clear();
    await sleep(0);
    assert.match(String(errors), /the close of conn 1 of a fails/);
    assert.equal(network.open, 0);
  });
});

test("a peer goes down and comes back by its name, and the other one does not mind", () =>
  over({ faults: false }, async (pool, { ask, network, sleep }) => {
    await Promise.all([ask("a"), ask("b")]);
    network.down("a");
    assert.equal(network.open, 1);
    await sleep(0);
    await assert.rejects(ask("a"), { code: "ERR_POOL_DIAL" });
    assert.equal(await ask("b"), "hello");
    network.up("a");
    assert.equal(await ask("a"), "hello");
    assert.equal(pool.stats().closed.died, 1);
  }));

test("a peer that goes down silently leaves half-open conns and dials that hang", () =>
  over({ faults: false }, async (pool, { ask, network, sleep }) => {
    await ask();
    network.down("a", { silent: true });
    await assert.rejects(ask("a", 2_000), { name: "TimeoutError" });
    await assert.rejects(ask("a", 25_000), { code: "ERR_POOL_DIAL_TIMEOUT" });
    assert.equal(pool.stats().closed.silent, 1);
    network.up("a");
    await sleep(0);
    assert.equal(await ask(), "hello");
  }));

test("keys that are objects name their peer by `nameOf`", () =>
  simulate<{ readonly host: string }>(
    { seed: 1, faults: false, nameOf: ({ host }) => host },
    async ({ clock, network }) => {
      const pool = new Pool<{ readonly host: string }>({ clock, dial: network.dial, hashKey: ({ host }) => host });
      await pool.get({ host: "a" }).invoke(echo, "hello");
      network.down({ host: "a" });
      assert.equal(network.open, 0);
      await pool.close();
    },
  ));

test("after calm() nothing happens any more, and after storm() it does again", () =>
  over({ faults: { failedDials: 1 } }, async (pool, { ask, network }) => {
    network.calm();
    assert.equal(await ask(), "hello");
    pool.clear();
    network.storm();
    await assert.rejects(ask(), { code: "ERR_POOL_DIAL" });
  }));

test("a stream has one response to each message, in order, and ends after closeSend", () =>
  over({ faults: false, answerMs: [1, 100] }, async (pool) => {
    const stream = await pool.get("a").newStream(echo);
    for (const word of ["one", "two", "three"]) await stream.send(word);
    await stream.closeSend("four");
    const received: string[] = [];
    for await (const word of stream) received.push(word);
    assert.deepEqual(received, ["one", "two", "three", "four"]);
    await assert.rejects(stream.send("five"), /the stream sends no more/);
    await stream.closed;
    assert.equal(pool.stats().idle, 1);
  }));

test("a response may be nothing, and several may be waited for at once", () =>
  over({ faults: false, answer: () => undefined }, async (pool) => {
    const stream = await pool.get("a").newStream(echo);
    const responses = stream[Symbol.asyncIterator]();
    const waiting = [responses.next(), responses.next(), responses.next()];
    await stream.send("one");
    await stream.closeSend("two");
    assert.deepEqual(
      (await Promise.all(waiting)).map(({ done }) => done),
      [false, false, true],
    );
  }));

test("a stream whose conn dies throws the error of its conn, at both ends; one that is left gives its slot back", () =>
  over({ faults: false }, async (pool, { network }) => {
    const left = await pool.get("a").newStream(echo);
    await left.send("one");
    for await (const word of left) {
      assert.equal(word, "one");
      break;
    }
    const stream = await pool.get("a").newStream(echo);
    await stream.send("one");
    const receiving = (async () => {
      for await (const word of stream) assert.equal(word, "one");
    })();
    network.down("a");
    await assert.rejects(receiving, { reason: "died" });
    await assert.rejects(stream.send("two"), { reason: "died" });
  }));
