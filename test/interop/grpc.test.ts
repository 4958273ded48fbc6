import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type CallOptions, Client, credentials, status } from "@grpc/grpc-js";
import { dialGrpc, type GrpcConn, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/index.ts";
import { type GoAddresses, type GoAsk, GoGrpcPeer, type GoReport, goService, noGo } from "./grpcpeer.ts";

const insecure = credentials.createInsecure();

/** A client of the pool, with its one line changed. */
function clientOf(pool: Pool<string, GrpcConn>, key: string): Client {
  return new Client("not used", insecure, { channelOverride: pooledChannel(pool, key, { retryUnsent: true }) });
}

function call(client: Client, ask: GoAsk, options: CallOptions = {}): Promise<GoAsk | undefined> {
  const { path, requestSerialize, responseDeserialize } = goService.unary;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, ask, options, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

/** Asks the server what it has seen, over a connection that it does not count calls of. */
async function reportOf(address: string): Promise<GoReport> {
  const conn = await dialGrpc(insecure)(address, { signal: new AbortController().signal });
  const report = await conn.invoke(goService.report, { id: "" });
  await conn.close();
  return report;
}

describe("gRPC against Go", { skip: noGo }, () => {
  let go: GoGrpcPeer;
  let addresses: GoAddresses;
  before(async () => {
    go = new GoGrpcPeer();
    addresses = await go.serve();
  });
  after(() => go[Symbol.dispose]());

  test("at 10 streams for each connection, 100 calls run at once on 10 connections", async () => {
    const plain = new Client(addresses.narrow, insecure);
    await Promise.all(Array.from({ length: 100 }, (_, i) => call(plain, { id: `plain ${i}`, delayMs: 50 })));
    plain.close();
    const before = await reportOf(addresses.narrow);
    assert.equal(before.connections, 1 + 1); // the report's own
    assert.equal(before.peakOfAll, 10);

    await using pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 10 }), maxKeyConns: 10 });
    const client = clientOf(pool, addresses.narrow);
    await Promise.all(Array.from({ length: 100 }, (_, i) => call(client, { id: `pooled ${i}`, delayMs: 50 })));
    const after = await reportOf(addresses.narrow);
    assert.equal(after.ran, 200);
    assert.deepEqual(after.twice, []);
    assert.equal(pool.stats().dials, 10);
    assert.ok(after.connections <= 2 + 10 + 1);
    assert.equal(after.peak, 10);
    // 100, unless the machine is so slow that the first calls have ended before the last conns are open.
    assert.ok(after.peakOfAll > 30, `${after.peakOfAll} at once`);
  });

  test("connections that Go retires every second, under load: no call is lost, and none runs twice", async () => {
    const dial = dialGrpc(insecure, {}, { maxStreams: 10 });
    await using pool = new Pool({ dial });
    const client = clientOf(pool, addresses.aging);
    await using other = new Pool<string>({ dial });
    const handle = other.get(addresses.aging, { retryUnsent: true });
    const end = Date.now() + 3_500;
    let count = 0;
    const caller = async (number: number): Promise<void> => {
      while (Date.now() < end) {
        const ask = { id: String(count++), delayMs: count % 20 };
        if (number % 3 === 0) assert.deepEqual(await call(client, ask), ask);
        else if (number % 3 === 1) assert.deepEqual(await handle.invoke(goService.unary, ask), ask);
        else {
          await using stream = await handle.newStream(goService.chat);
          await stream.closeSend(ask);
          for await (const answer of stream) assert.deepEqual(answer, ask);
        }
      }
    };
    await Promise.all(Array.from({ length: 60 }, (_, number) => caller(number)));
    const report = await reportOf(addresses.aging);
    assert.deepEqual(report.twice, []);
    assert.equal(report.ran, count);
    for (const { streams, closed } of [pool.stats(), other.stats()]) {
      assert.equal(streams, 0);
      assert.ok(closed.goaway >= 3, `${closed.goaway} connections were retired`);
    }
  });

  test("what Go cuts in the middle fails, and does not run again", async () => {
    const dial = dialGrpc(insecure, {}, { maxStreams: 10 });
    await using pool = new Pool({ dial });
    const client = clientOf(pool, addresses.cutting);
    await using other = new Pool<string>({ dial });
    const handle = other.get(addresses.cutting, { retryUnsent: true });
    const [end, latest] = [Date.now() + 1_500, Date.now() + 30_000];
    let count = 0;
    let cut = 0;
    const caller = async (number: number): Promise<void> => {
      while (Date.now() < (cut > 0 ? end : latest)) {
        const ask = { id: String(count++), delayMs: 200 };
        try {
          await (number % 2 ? call(client, ask) : handle.invoke(goService.unary, ask));
        } catch (error) {
          assert.equal(Object(error).code, status.UNAVAILABLE, String(error));
          cut++;
        }
      }
    };
    await Promise.all(Array.from({ length: 40 }, (_, number) => caller(number)));
    const report = await reportOf(addresses.cutting);
    assert.deepEqual(report.twice, []);
    assert.equal(report.ran, count);
    assert.ok(cut > 0);
    for (const { streams } of [pool.stats(), other.stats()]) assert.equal(streams, 0);
  });
});
