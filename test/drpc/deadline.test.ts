/** How long an RPC may take: `timeoutMs`, `deadline`, and what its error says. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { type DrpcConn, DrpcTimeoutError } from "../../src/drpc/index.ts";
import { WaitTimeoutError } from "../../src/errors.ts";
import { Pool } from "../../src/pool/pool.ts";
import { turns } from "../support/clock.ts";
import { rejection } from "../support/outcome.ts";
import { peer } from "../support/peer.ts";
import { connect, packet } from "../support/wire.ts";

const hello = Buffer.from("hello");
type Options = Parameters<DrpcConn["invoke"]>[2];

async function timeoutOf(call: Promise<unknown>): Promise<string> {
  const error = await rejection(call);
  assert(error instanceof DrpcTimeoutError, String(error));
  assert.equal(error.code, 4);
  return error.message;
}

test("timeoutMs cancels the RPC with a DrpcTimeoutError", async () => {
  const { far, conn } = connect();
  assert.match(await timeoutOf(conn.invoke(peer.echo, hello, { timeoutMs: 5 })), /within 5 ms/);
  assert.equal((await far.got(4)).at(-1), "cancel! 1/4");
  const stream = await conn.newStream(peer.chat, { timeoutMs: 5 });
  assert.match(await timeoutOf(stream[Symbol.asyncIterator]().next()), /within 5 ms/);
  await stream.closed;
  assert.equal(conn.unblocked(), undefined);
});

test("deadline cancels the RPC, as a Date and as milliseconds since the epoch", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
  const { far, conn } = connect();
  for (const deadline of [new Date(1_800_000_000_020), 1_800_000_000_020]) {
    t.mock.timers.setTime(1_800_000_000_000);
    const call = timeoutOf(conn.invoke(peer.echo, hello, { deadline }));
    t.mock.timers.tick(19);
    assert(conn.unblocked(), "it is not over yet");
    t.mock.timers.tick(1);
    assert((await call).includes("2027-01-15T08:00:00.020Z"), await call);
  }
  assert.equal((await far.got(8)).at(-1), "cancel! 2/4");
  const stream = await conn.newStream(peer.chat, { deadline: Date.now() + 5 });
  const ended = timeoutOf(stream[Symbol.asyncIterator]().next());
  t.mock.timers.tick(5);
  await ended;
});

test("of timeoutMs and deadline the earlier one ends the RPC, and the error names that one", async () => {
  const { conn } = connect();
  const later = Date.now() + 60_000;
  assert.match(await timeoutOf(conn.invoke(peer.echo, hello, { timeoutMs: 5, deadline: later })), /within 5 ms/);
  const deadline = Date.now() + 5;
  const soon = await timeoutOf(conn.invoke(peer.echo, hello, { timeoutMs: 60_000, deadline }));
  assert(soon.includes(new Date(deadline).toISOString()), soon);
  assert.equal(conn.unblocked(), undefined);
});

test("a time that is over already sends nothing and times out at once", async () => {
  const { far, conn } = connect();
  const over: Options[] = [
    { timeoutMs: 0 },
    { timeoutMs: -1 },
    { deadline: new Date() },
    { deadline: 0 },
    { deadline: Date.now() - 1000 },
    { timeoutMs: 1000, deadline: 0 },
  ];
  for (const options of over) {
    await timeoutOf(conn.invoke(peer.echo, hello, options));
    await timeoutOf(conn.newStream(peer.chat, options));
    assert.equal(conn.unblocked(), undefined);
  }
  await turns();
  assert.deepEqual(far.packets, []);
});

test("an RPC that waited for its conn says what it was given, how long it waited and how long it ran", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
  const { conn, far } = connect();
  await using pool = new Pool<string, Conn>({ dial: () => conn, maxKeyConns: 1 });
  const lease = await pool.acquire("peer");
  const call = rejection(pool.get("peer").invoke(peer.echo, hello, { timeoutMs: 500 }));
  const stream = rejection(pool.get("peer").newStream(peer.chat, { deadline: Date.now() + 400 }));
  t.mock.timers.tick(309);
  lease.release();
  await far.got(2);
  t.mock.timers.tick(91);
  const waited = await stream;
  t.mock.timers.tick(100);
  const ran = await call;
  assert(waited instanceof WaitTimeoutError && ran instanceof DrpcTimeoutError);
  assert.match(ran.message, /within 500 ms: it waited 309 ms for a conn, and ran for 191 ms/);
  assert.deepEqual([ran.askedMs, ran.waitedMs, ran.ranMs], [500, 309, 191]);
  assert.deepEqual([waited.askedMs, waited.waitedMs, waited.slotMs], [400, 400, 400]);
});

test("a fraction of a millisecond is not spelled out", async () => {
  const { conn } = connect();
  assert.match(await timeoutOf(conn.invoke(peer.echo, hello, { timeoutMs: 7.0413229999999 })), /within 7 ms/);
  assert.match(await timeoutOf(conn.invoke(peer.echo, hello, { timeoutMs: 0.25 })), /within 0.25 ms/);
});

test("times beyond what Node's timers can wait for do not end a call at once", async () => {
  const { far, conn } = connect();
  let stream = 0;
  for (const timeoutMs of [2 ** 31, 1e15]) {
    for (const options of [{ timeoutMs }, { deadline: Date.now() + timeoutMs }] as const) {
      const call = conn.invoke(peer.echo, hello, options);
      await turns();
      far.send(packet("message", ++stream, 1, "in time"), packet("closeSend", stream, 2));
      assert.equal((await call).toString(), "in time");
    }
  }
});

test("wrong and unknown options are refused, nothing is sent, and the conn stays free", async () => {
  const { far, conn } = connect();
  const bad = [
    { timeoutMs: Number.NaN },
    { timeoutMs: Number.POSITIVE_INFINITY },
    { timeoutMs: Number.NEGATIVE_INFINITY },
    { timeoutMs: "5" },
    { timeoutMs: null },
    { deadline: new Date(Number.NaN) },
    { deadline: Number.NaN },
    { deadline: Number.POSITIVE_INFINITY },
    { deadline: Number.NEGATIVE_INFINITY },
    { deadline: "2030-01-01" },
    { deadline: null },
    { timeout: 5 },
    { signal: null },
    { signal: {} },
    { signal: { aborted: false, throwIfAborted() {} } },
    { metadata: null },
    { metadata: 1 },
    null,
    5,
  ] as unknown[];
  for (const options of bad) {
    const what = JSON.stringify(options);
    await assert.rejects(conn.invoke(peer.echo, hello, options as Options), { code: "ERR_POOL_ARGUMENT" }, what);
    await assert.rejects(conn.newStream(peer.chat, options as Options), { code: "ERR_POOL_ARGUMENT" }, what);
    assert.equal(conn.unblocked(), undefined, what);
  }
  await turns();
  assert.deepEqual(far.packets, []);
  const all = { signal: undefined, timeoutMs: undefined, deadline: undefined, metadata: undefined };
  const call = conn.invoke(peer.echo, hello, { ...all, onHeader() {}, onTrailer() {}, waitForReady: true });
  await turns();
  far.send(packet("message", 1, 1, "fine"), packet("closeSend", 1, 2));
  assert.equal((await call).toString(), "fine");
});
