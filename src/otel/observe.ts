import type { Attributes, BatchObservableResult, Meter, Observable } from "@opentelemetry/api";
import type { PoolConn } from "../contract.ts";
import type { KeyLimits } from "../options.ts";
import type { Pool } from "../pool/pool.ts";
import { names } from "./metrics.ts";

type Stats = ReturnType<Pool["stats"]>;

/** What is added up, of the pool or of the keys with the same attributes. */
interface Sums {
  readonly attributes: Attributes;
  readonly states: Readonly<Record<string, number>>;
  readonly streams: number;
  readonly pending: number;
  /** Limits of keys; `undefined`: none. */
  readonly max: number | undefined;
  readonly idleMax: number | undefined;
  readonly idleMin: number;
}

/** Has a meter ask for what is true when metrics are collected. Returns what stops it. */
export function observe<K, C extends PoolConn>(
  pool: Pool<K, C>,
  meter: Meter,
  own: Attributes,
  keyAttributes: ((key: K) => Attributes) | undefined,
): () => void {
  const gauge = (name: string, unit: string, description: string): Observable =>
    meter.createObservableUpDownCounter(`rpc.client.connection.${name}`, { unit: `{${unit}}`, description });
  const count = gauge(
    "count",
    "connection",
    "Connections by state: idle, used, draining, and dialing, which are none yet.",
  );
  const streams = gauge("streams", "stream", "Streams that run.");
  const pending = gauge("pending_requests", "request", "Requests that wait for a connection.");
  const max = gauge("max", "connection", "Connections allowed, dialing ones included; absent without a limit.");
  const idleMax = gauge("idle.max", "connection", "Idle connections allowed; absent without a limit.");
  const idleMin = gauge("idle.min", "connection", "Idle connections kept ready for each key in use.");
  const requests = meter.createObservableCounter("rpc.client.connection.requests", {
    unit: "{request}",
    description: "Requests for a connection by what became of them; hit: there was one at once.",
  });
  const observables = [count, streams, pending, max, idleMax, idleMin, requests];

  const collect = (result: BatchObservableResult): void => {
    const stats = pool.stats();
    for (const [outcome, value] of outcomes(stats)) {
      result.observe(requests, value, { ...own, [names.outcome]: outcome });
    }
    const tell = (what: Observable, value: number | undefined, attributes: Attributes): void => {
      if (value !== undefined) result.observe(what, value, attributes);
    };
    const { maxConns, capacity, minIdle } = stats.limits;
    tell(max, limit(maxConns), own);
    tell(idleMax, limit(capacity), own);
    const all = keyAttributes === undefined ? [sums(stats, own, {}, minIdle)] : ofKeys(pool, own, keyAttributes);
    for (const { attributes, states, ...sum } of all) {
      for (const [state, value] of Object.entries(states)) tell(count, value, { ...attributes, [names.state]: state });
      tell(streams, sum.streams, attributes);
      tell(pending, sum.pending, attributes);
      tell(max, sum.max, attributes);
      tell(idleMax, sum.idleMax, attributes);
      tell(idleMin, sum.idleMin, attributes);
    }
  };
  meter.addBatchObservableCallback(collect, observables);
  return () => meter.removeBatchObservableCallback(collect, observables);
}

/** Keys with the same attributes are one. */
function ofKeys<K, C extends PoolConn>(
  pool: Pool<K, C>,
  own: Attributes,
  keyAttributes: (key: K) => Attributes,
): Iterable<Sums> {
  const all = new Map<string, Sums>();
  for (const key of pool.keys()) {
    const stats = pool.stats(key);
    const one = sums(stats, { ...keyAttributes(key), ...own }, stats.limits, stats.limits.minIdle);
    const id = JSON.stringify(one.attributes);
    const before = all.get(id);
    all.set(id, before === undefined ? one : both(before, one));
  }
  return all.values();
}

function sums(
  { idle, leased, draining, dialing, streams, waiting }: Stats,
  attributes: Attributes,
  { maxKeyConns, keyCapacity }: KeyLimits,
  minIdle: number | undefined,
): Sums {
  const states = { idle, used: leased, draining, dialing };
  const limits = { max: limit(maxKeyConns), idleMax: limit(keyCapacity), idleMin: Math.max(minIdle ?? 0, 0) };
  return { attributes, states, streams, pending: waiting, ...limits };
}

function both(one: Sums, other: Sums): Sums {
  const states = Object.entries(one.states).map(([state, n]) => [state, n + (other.states[state] ?? 0)]);
  return {
    attributes: one.attributes,
    states: Object.fromEntries(states),
    streams: one.streams + other.streams,
    pending: one.pending + other.pending,
    max: one.max === undefined || other.max === undefined ? undefined : one.max + other.max,
    idleMax: one.idleMax === undefined || other.idleMax === undefined ? undefined : one.idleMax + other.idleMax,
    idleMin: one.idleMin + other.idleMin,
  };
}

/** What an option says: 0 is no limit, negative none allowed. */
function limit(value: number | undefined): number | undefined {
  return value === undefined || value === 0 ? undefined : Math.max(value, 0);
}

function outcomes({ hits, served, timeouts, refused, aborted, failed, empty }: Stats): [string, number][] {
  return Object.entries({ hit: hits, served, timeout: timeouts, refused, aborted, failed, empty });
}
