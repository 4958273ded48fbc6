import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../clock.ts";
import { type Fault, faults } from "./faults.ts";
import { FaultProxy } from "./proxy.ts";
import { type FaultClient, type TransportName, transports, wordOf } from "./transports.ts";

/** How long, and under how much load. */
export interface Pace {
  /** How long each fault lasts. */
  readonly ms: number;
  /** Callers of each key, and how long each rests between calls. */
  readonly callers: number;
  readonly restMs: number;
  /** The deadline of each call. */
  readonly timeoutMs: number;
  /** Whether to wait until half-open conns have been found out, which takes the pool six seconds. */
  readonly untilClean: boolean;
}

/** What the callers of one key have seen, and what is left when its fault is over. */
export interface Row {
  readonly fault: string;
  readonly calls: number;
  /** Calls that failed, by their error. */
  readonly failed: Readonly<Record<string, number>>;
  /** How long the longest call took. */
  readonly longestMs: number;
  /** Requests that reached the server more than once. */
  readonly sentTwice: number;
  /** Answers to another call than the one that was made. */
  readonly wrong: number;
  readonly dials: number;
  /** From the end of the fault to the first success that began after it. */
  readonly backAfterMs: number;
  /** What is not as it was before: nothing, if the pool is whole. */
  readonly left: readonly string[];
}

export interface Report {
  readonly transport: TransportName;
  readonly rows: readonly Row[];
  /** The key that had no fault. Its calls have all the time they want. */
  readonly other: Row;
}

const patienceMs = 30_000;
/** After this a call without a short time limit is tried, too. */
const hurryMs = 5_000;

class Seat {
  calls = 0;
  readonly failed: Record<string, number> = {};
  longestMs = 0;
  wrong = 0;
  successFrom = 0;
  readonly texts: string[] = [];
  readonly proxy: FaultProxy;
  readonly #client: FaultClient;

  constructor(proxy: FaultProxy, client: FaultClient) {
    this.proxy = proxy;
    this.#client = client;
  }

  async call(timeoutMs: number): Promise<boolean> {
    const text = `${this.proxy.address} ${this.calls++}`;
    this.texts.push(text);
    const start = performance.now();
    try {
      const answer = await this.#client.echo(this.proxy.address, text, { timeoutMs });
      this.successFrom = start;
      if (answer !== text) this.wrong++;
      return true;
    } catch (error) {
      const word = wordOf(error);
      this.failed[word] = (this.failed[word] ?? 0) + 1;
      return false;
    } finally {
      this.longestMs = Math.max(this.longestMs, performance.now() - start);
    }
  }

  async load({ callers, restMs, timeoutMs }: Pace, signal: AbortSignal): Promise<void> {
    const caller = async (): Promise<void> => {
      for (; !signal.aborted; await sleep(restMs)) await this.call(timeoutMs);
    };
    await Promise.all(Array.from({ length: callers }, caller));
  }

  /** Waits until a call has succeeded that began after `since`. Returns how long that took. */
  async isBack(since: number): Promise<number> {
    const isBack = (): boolean => this.successFrom > since;
    // On a machine that is too busy for the callers' time limit, one call without hurry tells.
    await until(isBack, "", hurryMs).catch(() => this.call(patienceMs));
    await until(isBack, `${this.proxy.address} is served again`, patienceMs);
    return performance.now() - since;
  }

  /** What is not as it should be when nobody calls any more and nothing is wrong with the network. */
  async left(callers: number, untilClean: boolean): Promise<string[]> {
    const served = await Promise.all(Array.from({ length: callers }, () => this.call(patienceMs)));
    const stats = () => this.#client.pool.stats(this.#client.keyOf(this.proxy.address));
    const links = () => [...this.proxy.links].filter(({ isOpen }) => isOpen).length;
    const failed = served.filter((isServed) => !isServed).length;
    const now = (): [string, number][] => {
      const { streams, waiting, dialing, blocked, draining, open } = stats();
      const clean = untilClean ? { blocked, draining, sockets: links() - open } : {};
      return Object.entries({ failed, streams, waiting, dialing, ...clean });
    };
    const isWhole = (): boolean => now().every(([name, count]) => name === "failed" || count === 0);
    await until(isWhole, "", patienceMs).catch(() => {});
    return now().flatMap(([name, count]) => (count === 0 ? [] : [`${count} ${name}`]));
  }

  row(name: string, seen: ReadonlyMap<string, number>, backAfterMs: number, left: readonly string[]): Row {
    const { calls, failed, longestMs, wrong } = this;
    const sentTwice = this.texts.filter((text) => (seen.get(text) ?? 0) > 1).length;
    return { fault: name, calls, failed, longestMs, sentTwice, wrong, dials: this.proxy.accepted, backAfterMs, left };
  }
}

/** All faults at once, each on a key of its own, and a key without one: one pool, one server, a proxy for each key. */
export async function runFaults(transport: TransportName, pace: Pace, of: readonly Fault[] = faults): Promise<Report> {
  const { serve, client: makeClient } = transports[transport];
  const server = await serve();
  const client = makeClient();
  const proxies = await Promise.all([...of, "other"].map((_, i) => FaultProxy.start(server.port, 101 + i)));
  const otherStops = new AbortController();
  try {
    const seats = proxies.map((proxy) => new Seat(proxy, client));
    const other = seats.at(-1);
    if (other === undefined) throw new Error("there is one seat more than faults");
    const unhurried = { ...pace, timeoutMs: patienceMs };
    const otherLoad = other.load(unhurried, otherStops.signal);
    const rows = await Promise.all(
      of.map(async (fault, i) => {
        const seat = seats[i];
        if (seat === undefined) throw new Error("each fault has a seat");
        const stop = new AbortController();
        const load = seat.load(pace, stop.signal);
        let backAfterMs = Number.NaN;
        try {
          await seat.isBack(0); // its first conn is there
          await sleep(100);
          fault.begin(seat.proxy);
          await sleep(pace.ms);
          await fault.end(seat.proxy);
          backAfterMs = await seat.isBack(performance.now());
        } finally {
          stop.abort();
          await load;
        }
        const left = await seat.left(pace.callers, pace.untilClean);
        return seat.row(fault.name, server.seen, backAfterMs, left);
      }),
    );
    otherStops.abort();
    await otherLoad;
    return {
      transport,
      rows,
      other: other.row("none", server.seen, 0, await other.left(pace.callers, pace.untilClean)),
    };
  } finally {
    otherStops.abort();
    await client.pool.close({ graceMs: 0 });
    await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
    await server.close();
  }
}
