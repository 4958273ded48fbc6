import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type CallOptions, Client, credentials, Metadata, type StatusObject, status } from "@grpc/grpc-js";
import type { Conn } from "../../src/contract.ts";
import { dialGrpc, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "../support/clock.ts";
import { type Answer, type Ask, echoService, startEcho } from "../support/echo-service.ts";

const insecure = credentials.createInsecure();
const { unary, chat, repeat } = echoService;

describe("a slot is taken at start, and given back once", () => {
  test("a call that is never started, or cancelled before, takes none", async () => {
    await using echo = await startEcho();
    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 1 }), maxKeyConns: 1 });
    const channel = pooledChannel(pool, echo.address);
    const statuses: StatusObject[] = [];
    for (let i = 0; i < 10; i++) {
      channel.createCall(unary.path, Number.POSITIVE_INFINITY, null, null, null).startRead();
      const cancelled = channel.createCall(unary.path, Number.POSITIVE_INFINITY, null, null, null);
      cancelled.cancelWithStatus(status.CANCELLED, "before start");
      cancelled.start(new Metadata(), {
        onReceiveMetadata: () => {},
        onReceiveMessage: () => {},
        onReceiveStatus: (result) => statuses.push(result),
      });
    }
    assert.equal(pool.stats().dials, 0);
    const client = new Client("not used", insecure, { channelOverride: channel });
    for (let i = 0; i < 3; i++) await call(client, { text: "x" });
    assert.deepEqual(
      statuses.map(({ details }) => details),
      Array(10).fill("before start"),
    );
    assert.equal(pool.stats().streams, 0);
    assert.equal(echo.handled, 3);
  });

  test("a listener that throws keeps none", async () => {
    await using echo = await startEcho();
    const script = fileURLToPath(new URL("../support/throwing-listener.js", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [script, echo.address], { timeout: 60_000 });
    assert.equal(stdout, "metadata message status 0\n");
  });

  // node:test fails a test by itself for what nobody handled.
  test("4,000 calls that end in every way leave none taken", { timeout: 120_000 }, async () => {
    await using echo = await startEcho();
    const dial = dialGrpc(insecure, {}, { maxStreams: 10 });
    await using pool = new Pool({ dial, maxKeyConns: 5 });
    const channelOverride = pooledChannel(pool, echo.address, { retryUnsent: true });
    const client = new Client("not used", insecure, { channelOverride });
    await using other = new Pool<string>({ dial, maxKeyConns: 5 });
    const handle = other.get(echo.address, { retryUnsent: true });
    const random = randomFrom(7);
    const ends = new Map<string, number>();
    let left = 4_000;
    const caller = async (): Promise<void> => {
      while (left-- > 0) {
        const code = await (random(2) ? callThrough(client, random) : callOn(handle, random));
        ends.set(code, (ends.get(code) ?? 0) + 1);
        if (random(200) === 0) for (const socket of echo.sockets) socket.destroy();
      }
    };
    await Promise.all(Array.from({ length: 80 }, caller));
    const all = [...ends.values()].reduce((sum, count) => sum + count);
    assert.equal(all, 4_000);
    // Every status there is, OK among them.
    for (let code = 0; code <= 16; code++)
      assert.ok(ends.get(status[code] ?? ""), `no call ended with ${status[code]}`);
    for (const { stats } of [pool, other].map((each) => ({ stats: each.stats() }))) {
      assert.equal(stats.streams, 0);
      assert.equal(stats.waiting, 0);
      assert.ok(stats.open <= 5);
      assert.ok(stats.closed.died + stats.closed.goaway > 0); // a cut that grpc-js repeats on its own counts as a goaway
    }
    await until(() => echo.running === 0, "the server's calls have ended, too");
  });
});

type Random = (below: number) => number;

function randomFrom(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
}

/** A request that may fail or take long, and the timeout of its caller. */
function draw(random: Random): { ask: Ask; patienceMs: number | undefined } {
  const fail = random(2) ? { fail: 1 + random(16) } : {};
  const delay = random(3) ? {} : { delayMs: random(10) };
  return { ask: { text: "x", count: random(5), ...fail, ...delay }, patienceMs: random(3) ? undefined : random(12) };
}

/** One call of a grpc-js client. Resolves with the name of its status, which must come exactly once. */
function callThrough(client: Client, random: Random): Promise<string> {
  const { ask, patienceMs } = draw(random);
  const options: CallOptions = patienceMs !== undefined && random(2) ? { deadline: Date.now() + patienceMs } : {};
  return new Promise((resolve, reject) => {
    let ended = false;
    const end = (code: status | undefined): void => {
      if (ended) reject(new Error("a call ended twice"));
      ended = true;
      resolve(status[code ?? status.OK]);
    };
    const { path, requestSerialize, responseDeserialize } = random(2) ? unary : random(2) ? chat : repeat;
    if (path === unary.path) {
      const running = client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, options, (error) =>
        end(error?.code),
      );
      if (patienceMs !== undefined) cancelLater(() => running.cancel());
      return;
    }
    const stream = client.makeBidiStreamRequest<Ask, Answer>(path, requestSerialize, responseDeserialize, options);
    stream.on("error", () => {}).on("status", ({ code }: StatusObject) => end(code));
    stream.on("data", () => random(2) && stream.end());
    stream.write(ask);
    if (path === repeat.path || random(2)) stream.end();
    if (patienceMs !== undefined || random(10) === 0) cancelLater(() => stream.cancel());
    else stream.once("data", () => setTimeout(() => stream.end(), 5));
  });

  /** At once, in the same turn of the event loop, or later. */
  function cancelLater(cancel: () => void): void {
    if (patienceMs === 0) cancel();
    else if (patienceMs === 1) setImmediate(cancel);
    else setTimeout(cancel, patienceMs ?? 10);
  }
}

/** One call of a handle. Resolves with the name of the status that it ended with. */
async function callOn(handle: Conn, random: Random): Promise<string> {
  const { ask, patienceMs } = draw(random);
  const controller = new AbortController();
  const options: Record<string, unknown> = { signal: controller.signal };
  if (patienceMs !== undefined) {
    if (random(2)) options["timeoutMs"] = patienceMs + 1;
    else if (patienceMs === 0) queueMicrotask(() => controller.abort());
    else setTimeout(() => controller.abort(), patienceMs);
  }
  try {
    if (random(2)) await handle.invoke(unary, ask, options);
    else {
      const rpc = random(2) ? chat : repeat;
      await using stream = await handle.newStream(rpc, options);
      await (rpc === repeat || random(2) ? stream.closeSend(ask) : stream.send(ask));
      let messages = 0;
      for await (const _ of stream) {
        if (random(4) === 0) break;
        if (messages++ === 0) await stream.closeSend();
      }
    }
    return "OK";
  } catch (error) {
    if (error === controller.signal.reason) return "ABORTED_BY_SIGNAL";
    const { code, name } = Object(error);
    return status[code] ?? String(name);
  }
}

function call(client: Client, ask: Ask): Promise<Answer | undefined> {
  const { path, requestSerialize, responseDeserialize } = unary;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}
