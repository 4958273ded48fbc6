import { getEventListeners, setMaxListeners } from "node:events";
import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../support/clock.ts";
import { faults } from "../support/faults/faults.ts";
import { FaultProxy } from "../support/faults/proxy.ts";
import { type FaultClient, type FaultPeer, transportNames, transports, wordOf } from "../support/faults/transports.ts";
import { collectGarbage } from "../support/gc.ts";

/**
 * Mixed load of all transports over thousands of keys, with faults: `npm run test:soak -- [minutes] [keys of each] [transport]`.
 * In rounds; after each, load and faults stop, all conns are closed, and what is left is counted. Fails where that grows.
 */
const minutes = Number(process.argv[2] ?? 30);
const keysEach = Number(process.argv[3] ?? 800);
const rounds = 10;
const roundMs = (minutes * 60_000) / rounds;
const callersEach = 8;

/** One transport: a server, a pool, and a proxy for each key. */
interface Field {
  readonly name: string;
  readonly server: FaultPeer;
  readonly client: FaultClient;
  readonly proxies: readonly FaultProxy[];
}

/** What must not grow. */
interface Left {
  readonly heapMiB: number;
  readonly descriptors: number;
  readonly timers: number;
  readonly handles: number;
  readonly listeners: number;
  readonly keys: number;
}

const limits = { capacity: 200, expirationMs: 5_000, maxLifetimeMs: 20_000 };
/** The signal of all calls: what is left on it is a leak. Connect adds a listener for each call that runs. */
const { signal } = new AbortController();
setMaxListeners(0, signal);

async function plant(name: (typeof transportNames)[number]): Promise<Field> {
  const { serve, client } = transports[name];
  const server = await serve();
  const proxies = await Promise.all(Array.from({ length: keysEach }, (_, i) => FaultProxy.start(server.port, i + 1)));
  return { name, server, client: client(limits), proxies };
}

const any = <T>(items: readonly T[]): T | undefined => items[Math.floor(Math.random() * items.length)];

const outcomes = new Map<string, number>();
let twice = 0;
let sequence = 0;

async function caller({ name, client, proxies, server }: Field, end: number): Promise<void> {
  const hot = proxies.slice(0, Math.ceil(proxies.length / 50));
  while (performance.now() < end) {
    const proxy = any(Math.random() < 0.8 ? hot : proxies);
    if (proxy === undefined) return;
    const text = `${sequence++}`;
    // Some give up early.
    const timeoutMs = Math.random() < 0.05 ? 3 : 500;
    const word = await client.echo(proxy.address, text, { timeoutMs, signal }).then(() => "OK", wordOf);
    outcomes.set(`${name} ${word}`, (outcomes.get(`${name} ${word}`) ?? 0) + 1);
    if ((server.seen.get(text) ?? 0) > 1) twice++;
    server.seen.delete(text);
    await sleep(Math.random() * 40);
  }
}

/** A fault after another, each on one key, many at a time. */
async function trouble({ proxies }: Field, end: number): Promise<void> {
  const running: Promise<unknown>[] = [];
  while (performance.now() < end) {
    const [proxy, fault] = [any(proxies.slice(0, 100)), any(faults)];
    if (proxy !== undefined && fault !== undefined && !troubled.has(proxy)) {
      troubled.add(proxy);
      fault.begin(proxy);
      running.push(
        sleep(1_000 + Math.random() * 2_000)
          .then(() => fault.end(proxy))
          .then(() => troubled.delete(proxy)),
      );
    }
    await sleep(100);
  }
  await Promise.all(running);
}

const troubled = new Set<FaultProxy>();

const descriptors = (): number => readdirSync("/proc/self/fd").length;

async function rest(fields: readonly Field[]): Promise<Left> {
  for (const { client, proxies } of fields) {
    client.pool.clear();
    await until(() => client.pool.stats().open + client.pool.stats().dialing === 0, "all conns are closed", 30_000);
    for (const proxy of proxies) for (const link of proxy.links) link.cut();
  }
  for (const { server } of fields) server.seen.clear();
  // Sockets may linger for a second, and longer on a busy machine.
  await until(() => descriptors() <= idleDescriptors, "all sockets are closed", 15_000).catch(() => {});
  await sleep(1_000);
  for (let i = 0; i < 3; i++) {
    collectGarbage();
    await sleep(50);
  }
  const resources = process.getActiveResourcesInfo();
  return {
    heapMiB: process.memoryUsage().heapUsed / 2 ** 20,
    descriptors: descriptors(),
    timers: resources.filter((name) => name === "Timeout").length,
    handles: resources.length,
    listeners:
      process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0) +
      getEventListeners(signal, "abort").length,
    keys: fields.reduce((sum, { client }) => sum + [...client.pool.keys()].length, 0),
  };
}

const names = transportNames.filter((name) => name.includes(process.argv[4] ?? ""));
const fields = await Promise.all(names.map(plant));
const idleDescriptors = descriptors();
// Each key once: what is made for a key, of a client or a proxy, is there before anything is counted.
for (const { client, proxies } of fields) {
  for (const { address } of proxies) await client.echo(address, "warm", { timeoutMs: 10_000 }).catch(wordOf);
}
console.log(`${fields.length} transports, ${keysEach} keys each, ${rounds} rounds of ${(roundMs / 1000).toFixed(0)} s`);
console.log("round     calls  heap MiB  descriptors  timers  handles  listeners  keys");
const seen: Left[] = [];
for (let round = 1; round <= rounds; round++) {
  const end = performance.now() + roundMs;
  await Promise.all(
    fields.flatMap((field) => [trouble(field, end), ...Array.from({ length: callersEach }, () => caller(field, end))]),
  );
  const left = await rest(fields);
  seen.push(left);
  const figures = [left.heapMiB.toFixed(1), left.descriptors, left.timers, left.handles, left.listeners, left.keys];
  const widths = [10, 13, 8, 9, 11, 6];
  console.log(
    `${`${round}`.padStart(5)}${`${sequence}`.padStart(10)}${figures.map((figure, i) => String(figure).padStart(widths[i] ?? 0)).join("")}`,
  );
}
console.log(
  [...outcomes]
    .map(([what, count]) => `${what} ${count}`)
    .sort((a, b) => (a < b ? -1 : 1))
    .join("; "),
);
console.log(`requests that reached a server twice: ${twice}`);

/** Compared with the third round: by then everything has been done, and caches are full. */
const [base, last] = [seen[2], seen.at(-1)];
const grown = Object.entries(last ?? {}).filter(([name, value]) => {
  const before = base?.[name as keyof Left] ?? 0;
  return value > before * (name === "heapMiB" ? 1.15 : 1) + (name === "heapMiB" ? 2 : 3);
});
for (const [name, value] of grown) console.log(`${name} has grown to ${value}`);
process.exit(grown.length + twice === 0 ? 0 : 1);
