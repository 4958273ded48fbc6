import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "../support/clock.ts";
import { FaultProxy } from "../support/faults/proxy.ts";
import { type FaultClient, type TransportName, transports, wordOf } from "../support/faults/transports.ts";

/**
 * What callers notice of conns that have died without a word, of outages and of frozen processes, in figures:
 * `npm run test:scenarios -- [seconds without a false kill] [name of a scenario]`.
 */
const calmSeconds = Number(process.argv[2] ?? 60);
const only = process.argv[3] ?? "";

interface Call {
  readonly at: number;
  readonly ms: number;
  readonly word: string;
}

/** Calls as often as `everyMs` says until `stop` aborts, whether earlier ones have ended or not. */
async function load(
  client: FaultClient,
  address: string,
  { everyMs, timeoutMs }: { everyMs: number; timeoutMs: number },
  stop: AbortSignal,
): Promise<Call[]> {
  const calls: Promise<Call>[] = [];
  const start = performance.now();
  const one = async (): Promise<Call> => {
    const at = performance.now();
    const word = await client.echo(address, `${at}`, { timeoutMs }).then(() => "", wordOf);
    return { at: at - start, ms: performance.now() - at, word };
  };
  for (; !stop.aborted; await sleep(everyMs)) calls.push(one());
  return Promise.all(calls);
}

function words(calls: readonly Call[]): string {
  const counts = new Map<string, number>();
  for (const { word } of calls) if (word !== "") counts.set(word, (counts.get(word) ?? 0) + 1);
  return [...counts].map(([word, count]) => `${word} ${count}`).join(", ") || "none";
}

/** A figure and its target; the command fails where that is missed. */
function atMost(value: number, target: number): string {
  if (value > target) process.exitCode = 1;
  const verdict = value > target ? "MISSED" : "met";
  return `${Math.round(value).toLocaleString("en")} (target: at most ${target.toLocaleString("en")}, ${verdict})`;
}

/** The share of calls that failed, for each piece of `stepMs`. */
function shares(calls: readonly Call[], stepMs: number): string {
  const steps: { all: number; failed: number }[] = [];
  for (const { at, word } of calls) {
    const step = Math.floor(at / stepMs);
    steps[step] ??= { all: 0, failed: 0 };
    steps[step].all++;
    if (word !== "") steps[step].failed++;
  }
  return steps.map((step) => `${step === undefined ? "-" : Math.round((100 * step.failed) / step.all)} %`).join(" ");
}

/** Some conns of a key go half-open under load. */
async function halfOpen(
  name: TransportName,
  conns: number,
  dead: number,
  maxStreams: number,
  maxKeyConns = 0,
): Promise<void> {
  const { serve, client: makeClient } = transports[name];
  const server = await serve();
  server.delayMs = () => 20;
  const client = makeClient({ maxStreams, maxKeyConns });
  const proxy = await FaultProxy.start(server.port);
  const { address } = proxy;
  try {
    await Promise.all(
      Array.from({ length: conns * maxStreams }, () => client.echo(address, "warm", { timeoutMs: 5_000 })),
    );
    const stop = new AbortController();
    const calls = load(client, address, { everyMs: 2, timeoutMs: 500 }, stop.signal);
    for (const link of [...proxy.links].slice(0, dead)) link.die();
    await sleep(10_000);
    stop.abort();
    const all = await calls;
    const failed = all.filter(({ word }) => word !== "");
    const last = Math.max(0, ...failed.map(({ at, ms }) => at + ms));
    console.log(
      `${name}, ${dead} of ${conns} conns half-open, a call every 2 ms with 500 ms of time, maxKeyConns ${maxKeyConns}:`,
    );
    console.log(
      `  failed ${failed.length} of ${all.length} (${words(all)}); the last ended after ${Math.round(last)} ms`,
    );
    console.log(`  share that failed, of calls that began in each half second: ${shares(all, 500)}`);
    console.log(`  closed as silent: ${client.pool.stats().closed.silent}; dials: ${proxy.accepted}`);
  } finally {
    await client.pool.close({ graceMs: 0 });
    await proxy[Symbol.asyncDispose]();
    await server.close();
  }
}

/** Peers are down for two seconds, with callers that wait. */
async function outage(name: TransportName, keys: number, callers: number): Promise<void> {
  const { serve, client: makeClient } = transports[name];
  const server = await serve();
  const client = makeClient();
  const proxies = await Promise.all(Array.from({ length: keys }, (_, i) => FaultProxy.start(server.port, i + 1)));
  try {
    await Promise.all(proxies.map(({ address }) => client.echo(address, "warm", { timeoutMs: 5_000 })));
    const before = client.pool.stats();
    for (const proxy of proxies) {
      proxy.refuse();
      for (const link of proxy.links) link.reset();
    }
    await until(() => client.pool.stats().open === 0, "all conns are gone");
    const ends: number[][] = proxies.map(() => []);
    let failed = 0;
    const waiting = proxies.flatMap(({ address }, i) =>
      Array.from({ length: callers }, async () => {
        await client.echo(address, "wait", { timeoutMs: 20_000, waitForReady: true }).then(
          () => ends[i]?.push(performance.now()),
          () => failed++,
        );
      }),
    );
    await sleep(2_000);
    const dials = (key: string): number => client.pool.stats(client.keyOf(key)).dials;
    const most = Math.max(...proxies.map(({ address }) => dials(address)));
    const { dialErrors } = client.pool.stats();
    const back = performance.now();
    await Promise.all(proxies.map((proxy) => proxy.listen()));
    await Promise.all(waiting);
    const served = ends.map((all) => Math.max(...all) - back);
    const spread = ends.map((all) => Math.max(...all) - Math.min(...all));
    const failures = dialErrors - before.dialErrors;
    // Each caller of an exclusive conn has a dial of its own in flight before the first failure is known.
    const mostDials = 20 + (name === "DRPC" ? callers - 1 : 0);
    console.log(`${name}, ${keys} keys down for 2 s, ${callers} callers of each that wait for ready:`);
    console.log(
      `  dials that failed: ${failures} in all, ${(failures / keys).toFixed(1)} for a key, ${atMost(most, mostDials)} with the first for the worst; callers that failed: ${atMost(failed, 0)}`,
    );
    console.log(
      `  all served ${atMost(Math.max(...served), 1_200)} ms after the return; callers of one key within ${atMost(Math.max(...spread), 250)} ms of its first`,
    );
  } finally {
    await client.pool.close({ graceMs: 0 });
    await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
    await server.close();
  }
}

/** A server that is loaded, slow and stalls is not dead. */
async function calm(name: TransportName, maxKeyConns: number): Promise<string> {
  const { serve, client: makeClient } = transports[name];
  const server = await serve();
  let stalledUntil = 0;
  // Most answers take a moment, one in 20 longer than its caller waits, and all stand still for a second each ten.
  server.delayMs = () => Math.max(stalledUntil - performance.now(), Math.random() < 0.05 ? 900 : Math.random() * 40);
  const stalls = setInterval(() => {
    stalledUntil = performance.now() + 1_000;
  }, 10_000);
  const client = makeClient({ maxKeyConns });
  const proxy = await FaultProxy.start(server.port);
  proxy.weather = { latencyMs: 5, jitterMs: 20 };
  // The path stands still, too, and so does this process.
  const pauses = setInterval(() => {
    for (const link of proxy.links) link.stop();
    setTimeout(() => {
      for (const link of proxy.links) link.go();
    }, 1_500);
  }, 15_000);
  try {
    const stop = new AbortController();
    const calls = load(client, proxy.address, { everyMs: 10, timeoutMs: 500 }, stop.signal);
    await sleep(calmSeconds * 1_000);
    stop.abort();
    const all = await calls;
    const { closed, dials } = client.pool.stats();
    const others = Object.entries(closed).filter(([why, count]) => why !== "silent" && count > 0);
    const killed = `closed as silent: ${atMost(closed.silent, 0)}; otherwise: ${others.map(([why, count]) => `${why} ${count}`).join(", ") || "none"}`;
    return `  ${name}, maxKeyConns ${maxKeyConns}: ${all.length} calls, failed: ${words(all)}; conns ${killed}; dials: ${dials}`;
  } finally {
    clearInterval(stalls);
    clearInterval(pauses);
    await client.pool.close({ graceMs: 0 });
    await proxy[Symbol.asyncDispose]();
    await server.close();
  }
}

/** A process that stands still for a while: the server, or a client whose server has meanwhile forgotten its conns. */
async function freezer(name: TransportName, who: "server" | "client", seconds: number): Promise<void> {
  const role = fileURLToPath(new URL("./freezer.js", import.meta.url));
  const children: ChildProcess[] = [];
  const start = async (...args: string[]): Promise<{ child: ChildProcess; first: string }> => {
    const child = fork(role, args);
    children.push(child);
    const [first] = await once(child, "message");
    return { child, first: String(first) };
  };
  const server = await start("server", name);
  const proxy = await FaultProxy.start(Number(server.first));
  const client = await start("client", name, proxy.address);
  try {
    const frozen = who === "server" ? server.child : client.child;
    await sleep(500);
    frozen.kill("SIGSTOP");
    // While a client sleeps, what lies between forgets its conns.
    if (who === "client") for (const link of proxy.links) link.die();
    await sleep(seconds * 1_000);
    frozen.kill("SIGCONT");
    const thawedAt = Date.now();
    await sleep(4_000);
    client.child.send("report");
    const [report] = await once(client.child, "message");
    const calls: { at: number; ms: number; word: string }[] = Object(report).calls;
    const after = calls.filter(({ at }) => at >= thawedAt);
    const during = calls.filter(({ at, ms }) => at < thawedAt && at + ms > thawedAt - seconds * 1_000);
    const good = after.find(({ word }) => word === "");
    const failed = after.filter(({ word }) => word !== "");
    console.log(
      `${name}, ${who} stopped for ${seconds} s: calls in that time failed ${during.filter(({ word }) => word !== "").length} of ${during.length}; ` +
        `of ${after.length} that began after it ${failed.length} failed; first success ${good === undefined ? "never" : `${good.at + Math.round(good.ms) - thawedAt} ms after`}; ` +
        `closed as silent: ${Object(report).silent}`,
    );
  } finally {
    for (const child of children) child.kill("SIGKILL");
    await proxy[Symbol.asyncDispose]();
  }
}

const calmCases = [
  ["gRPC", 20],
  ["Connect", 20],
  ["DRPC", 20],
  ["DRPC", 0],
] as const;

const scenarios: Readonly<Record<string, () => Promise<unknown>>> = {
  "half-open": async () => {
    await halfOpen("gRPC", 3, 1, 4);
    await halfOpen("gRPC", 3, 1, 4, 3);
    await halfOpen("gRPC over node:http2", 3, 1, 4);
    await halfOpen("Connect", 1, 1, 100);
    await halfOpen("Connect", 1, 1, 100, 1);
    await halfOpen("DRPC", 9, 3, 1);
    await halfOpen("DRPC", 12, 3, 1, 12);
  },
  outage: async () => {
    for (const name of ["gRPC", "gRPC over node:http2", "DRPC"] as const) {
      await outage(name, 50, 1);
      await outage(name, 1, 30);
    }
  },
  freezer: async () => {
    for (const name of ["gRPC", "Connect", "DRPC"] as const) {
      await freezer(name, "server", 3);
      for (const seconds of [3, 12]) await freezer(name, "client", seconds);
    }
  },
  calm: async () => {
    console.log(`A loaded, slow, stalling server for ${calmSeconds} s:`);
    for (const line of await Promise.all(calmCases.map(([name, most]) => calm(name, most)))) console.log(line);
  },
};

for (const [name, run] of Object.entries(scenarios)) if (name.includes(only)) await run();
