import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { PoolConn } from "../../src/contract.ts";
import { dialSocket } from "../../src/net/dial.ts";
import { Pool } from "../../src/pool/pool.ts";
import { collectGarbage } from "../support/gc.ts";

/**
 * How much a pool can hold: `npm run test:scale -- [keys] [sockets]`. Conns in memory first, two of each key, then real
 * sockets to servers in a process of their own. Prints times, memory and how long the event loop stood still.
 */
const keys = Number(process.argv[2] ?? 100_000);
const sockets = Number(process.argv[3] ?? 5_000);

const servers = 50;
if (process.send !== undefined) await serve();
else {
  await inMemory();
  await overSockets();
}

/** Runs `what` and says what it took. */
async function measure(name: string, what: () => unknown): Promise<void> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  await new Promise((resolve) => setImmediate(resolve));
  delay.enable();
  const start = performance.now();
  const done = what();
  const atOnceMs = performance.now() - start; // the delay of the loop is seen only by timers in between
  await done;
  const ms = performance.now() - start;
  await new Promise((resolve) => setTimeout(resolve, 20));
  delay.disable();
  console.log(
    `  ${name.padEnd(52)}${ms.toFixed(0).padStart(7)} ms, loop p99 ${(delay.percentile(99) / 1e6).toFixed(0)} ms, longest ${Math.max(atOnceMs, delay.max / 1e6).toFixed(0)} ms`,
  );
}

function heapBytes(): number {
  collectGarbage();
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

/** Conns that do nothing. Programs do their work in pieces; here each piece has 1,000 keys. */
async function inMemory(): Promise<void> {
  const never = new Promise<void>(() => {});
  const plain = (): PoolConn => ({ closed: never, close: () => {} });
  const dial = Object.assign(async () => plain(), { maxStreams: 1 });
  const names = Array.from({ length: keys }, (_, i) => `key ${i}`);
  const before = heapBytes();
  const conns: PoolConn[] = names.flatMap(() => [plain(), plain()]);
  const own = heapBytes() - before;
  conns.length = 0;
  const pool = new Pool<string, PoolConn>({ dial, expirationMs: 60_000, capacity: 2 * keys });
  const inPieces = async (each: (name: string) => unknown): Promise<void> => {
    for (let from = 0; from < names.length; from += 1_000) {
      await Promise.all(names.slice(from, from + 1_000).map(each));
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  console.log(`${keys} keys with two conns each, in memory:`);
  const start = heapBytes();
  await measure("two leases of each key, dialed", () =>
    inPieces(async (name) => {
      const leases = await Promise.all([pool.acquire(name), pool.acquire(name)]);
      for (const lease of leases) lease.release();
    }),
  );
  const { open, keys: held } = pool.stats();
  const perConn = (heapBytes() - start - own) / open;
  console.log(
    `  ${open} conns of ${held} keys; ${perConn.toFixed(0)} bytes of the pool for each conn, its half of a key included`,
  );
  await measure("a lease of each, taken and given back", () => inPieces((name) => pool.tryAcquire(name)?.release()));
  await measure("stats()", () => pool.stats());
  await measure("stats() of one key, 1,000 times", () => {
    for (let i = 0; i < 1_000; i++) pool.stats("key 5");
  });
  await measure("configure({ capacity }) to one half", () => pool.configure({ capacity: keys }));
  await measure("clear() of all", () => pool.clear());
  await measure("close()", () => pool.close());
}

async function overSockets(): Promise<void> {
  const child: ChildProcess = fork(new URL(import.meta.url));
  const [ports] = (await once(child, "message")) as [number[]]; // what `serve` sends
  const pool = new Pool({ dial: dialSocket(), capacity: sockets });
  const each = Math.ceil(sockets / servers);
  const leases: { release(): void }[] = [];
  console.log(`${sockets} sockets to ${servers} servers of another process:`);
  const before = process.memoryUsage();
  await measure("dialed, 100 of each key at once", async () => {
    for (const port of ports) {
      leases.push(...(await Promise.all(Array.from({ length: each }, () => pool.acquire(`127.0.0.1:${port}`)))));
    }
  });
  collectGarbage();
  const after = process.memoryUsage();
  const { open } = pool.stats();
  const perSocket = (after.rss - before.rss) / open;
  console.log(
    `  ${open} open; ${(perSocket / 1024).toFixed(1)} KiB of the process for each socket, Node's own included`,
  );
  await measure("all given back", () => {
    for (const lease of leases) lease.release();
  });
  await measure("10,000 leases, taken and given back", () => {
    for (let i = 0; i < 10_000; i++) pool.tryAcquire(`127.0.0.1:${ports[i % ports.length]}`)?.release();
  });
  const dead = new Promise((resolve) => child.once("exit", resolve));
  await measure("the servers die: until all conns are gone", async () => {
    child.kill("SIGKILL");
    await dead;
    while (pool.stats().open > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });
  await measure("close()", () => pool.close());
}

async function serve(): Promise<void> {
  const all = Array.from({ length: servers }, () => createServer((socket) => socket.on("error", () => {}).resume()));
  await Promise.all(
    all.map(
      (server) =>
        new Promise<void>((resolve) => server.listen({ port: 0, host: "127.0.0.1", backlog: 4_096 }, resolve)),
    ),
  );
  process.send?.(all.map((server) => (server.address() as AddressInfo).port)); // they listen on TCP
}
