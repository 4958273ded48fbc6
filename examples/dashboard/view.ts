import type { Pool, PoolConn, PoolStats } from "rpc-conn-pool";

/** Half of the times are below the first, all but one in a hundred below the second; nothing where there were none. */
export type Times = readonly [p50: number, p99: number] | undefined;

/** A key, as the page draws it. */
export interface KeyRow {
  /** What the page asks by: keys may be objects. */
  readonly id: number;
  readonly name: string;
  readonly stats: PoolStats;
}

/** What the page gets each second. */
export interface Snapshot {
  readonly name: string;
  /** Milliseconds, of a clock that only goes forward. */
  readonly at: number;
  readonly stats: PoolStats;
  readonly times: { readonly wait: Times; readonly dial: Times; readonly use: Times };
  /** Those with the most callers and conns; all of them are counted in `stats`. */
  readonly keys: readonly KeyRow[];
  /** What has happened, the last first, and how often in a row. */
  readonly news: readonly { readonly at: number; readonly what: string; readonly times: number }[];
}

/** A pool of any kind, as the page needs it. */
export interface View {
  readonly name: string;
  /** Somebody looks: listens to the pool. Returns what stops that. */
  watch(): () => void;
  snapshot(): Snapshot;
  /** What a caller of a key would meet, as text; `undefined`: there is no such key any more. */
  explain(id: number): string | undefined;
}

const mostKeys = 100;
const mostNews = 30;
/** Times of the last so many snapshots are one sample, of so many each. */
const window = 10;
const mostTimes = 1_000;

/** The last times of one kind. */
class Recent {
  #ticks: number[][] = [[]];

  add(ms: number | undefined): void {
    const [now = []] = this.#ticks;
    if (ms !== undefined && now.length < mostTimes) now.push(ms);
  }

  tick(): void {
    this.#ticks = [[], ...this.#ticks].slice(0, window);
  }

  get times(): Times {
    const all = this.#ticks.flat().sort((a, b) => a - b);
    const at = (part: number) => all[Math.floor(all.length * part)] ?? 0;
    return all.length === 0 ? undefined : [at(0.5), at(0.99)];
  }
}

/** `nameOf` says how a key looks; the default shows nothing of objects, which may hold credentials. */
export function view<K, C extends PoolConn>(pool: Pool<K, C>, nameOf: (key: K) => string = plain): View {
  const ids = new Map<K, number>();
  let lastId = 0;
  const [wait, dial, use] = [new Recent(), new Recent(), new Recent()];
  let news: Snapshot["news"] = [];
  const tell = (what: string): void => {
    const [last] = news;
    const isAgain = last?.what === what;
    const item = { at: performance.now(), what, times: isAgain ? last.times + 1 : 1 };
    news = [item, ...(isAgain ? news.slice(1) : news)].slice(0, mostNews);
  };

  const listen = (): (() => void)[] => [
    pool.on("served", ({ ms }) => wait.add(ms)),
    pool.on("released", ({ ms }) => use.add(ms)),
    pool.on("dialed", ({ key, ms }) => {
      dial.add(ms);
      tell(`${nameOf(key)}: dialed in ${Math.round(ms)} ms`);
    }),
    pool.on("dialFailed", ({ error }) => tell(error.message)),
    pool.on("timedOut", ({ error }) => tell(error.message)),
    pool.on("closed", ({ key, reason, uses }) => tell(`${nameOf(key)}: closed, ${reason}, after ${uses} uses`)),
  ];

  const idOf = (key: K): number => {
    const id = ids.get(key) ?? ++lastId;
    ids.set(key, id);
    return id;
  };

  return {
    name: pool.name,

    watch() {
      const stops = listen();
      return () => {
        for (const stop of stops) stop();
      };
    },

    snapshot() {
      const keys = [...pool.keys()].map((key) => ({ id: idOf(key), name: nameOf(key), stats: pool.stats(key) }));
      const here = new Set(keys.map(({ id }) => id));
      for (const [key, id] of ids) if (!here.has(id)) ids.delete(key);
      const weight = ({ stats }: KeyRow) => stats.waiting * 1_000 + stats.streams + stats.open + stats.dialing;
      const busiest = keys.sort((one, other) => weight(other) - weight(one)).slice(0, mostKeys);
      const times = { wait: wait.times, dial: dial.times, use: use.times };
      for (const recent of [wait, dial, use]) recent.tick();
      return {
        name: pool.name,
        at: performance.now(),
        stats: pool.stats(),
        times,
        keys: busiest.sort((one, other) => one.id - other.id), // rows keep their places
        news,
      };
    },

    explain(id) {
      for (const [key, known] of ids) if (known === id) return String(pool.explain(key));
      return undefined;
    },
  };
}

function plain(key: unknown): string {
  return typeof key === "string" || typeof key === "number" ? String(key) : `a key (${typeof key})`;
}
