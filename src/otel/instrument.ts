import { type Attributes, type MeterProvider, metrics, type TracerProvider, trace } from "@opentelemetry/api";
import { checkBoolean, checkFunction, checkObject, checkOptions } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import type { Pool } from "../pool/pool.ts";
import { disconnectError, errorType } from "./errors.ts";
import { Instruments, names } from "./metrics.ts";
import { observe } from "./observe.ts";
import { type End, Spans } from "./spans.ts";

/** What is measured, and where it goes. */
export interface InstrumentOptions<K = string> {
  /** Where the metrics go. Default: the global one as it is now, so start the SDK first. */
  readonly meterProvider?: MeterProvider | undefined;
  /** Where the spans go. Default: the global one. */
  readonly tracerProvider?: TracerProvider | undefined;
  /**
   * Attributes of a key, for all that is measured of it: `(address) => ({ "server.address": address })`. Keys with the same
   * attributes are added up. Each set of attributes is a time series of its own, so they should be few; they go wherever the
   * metrics go, so no secret may be among them. Default: none, all keys are added up.
   */
  readonly keyAttributes?: ((key: K) => Attributes) | undefined;
  /**
   * Measures how long each stream runs (`use_time`), by a listener of `released`: about 2 µs a call. Without it, a call that
   * need not wait is not touched at all. Default true.
   */
  readonly useTime?: boolean | undefined;
  /** Makes spans of dials and waits, under the span in which the caller called; where that has none, none. Default true. */
  readonly spans?: boolean | undefined;
}

const optionNames = ["meterProvider", "tracerProvider", "keyAttributes", "useTime", "spans"];

/** What `instrument` returns: a pool is watched until it is stopped, or disposed of by `using`. */
export interface Instrumentation extends Disposable {
  /** Takes all listeners off the pool, and the pool off the meter. Idempotent. */
  readonly stop: () => void;
}

/** The scope under which meter and tracer stand. */
const scope = "rpc-conn-pool";

/** Pools that are watched: twice would count twice. */
const watched = new WeakSet<object>();

/**
 * Watches a pool: `rpc.client.connection.*`, which mirrors OpenTelemetry's `db.client.connection.*`, with the pool's name in
 * `rpc.client.connection.pool.name` (so give each pool its own), and spans for dials and waits. It uses the pool's public
 * events and `stats()`, which is read when metrics are collected.
 *
 * @throws PoolTypeError for wrong options, and for a pool that is watched already.
 */
export function instrument<K, C extends PoolConn>(
  pool: Pool<K, C>,
  options: InstrumentOptions<K> = {},
): Instrumentation {
  checkOptions("instrument's options", options, optionNames);
  const { keyAttributes, useTime = true, spans = true } = options;
  checkObject("meterProvider", options.meterProvider);
  checkObject("tracerProvider", options.tracerProvider);
  checkFunction("keyAttributes", keyAttributes);
  checkBoolean("useTime", useTime);
  checkBoolean("spans", spans);
  if (watched.has(pool)) {
    throw new PoolTypeError(`the pool ${JSON.stringify(pool.name)} is instrumented already: stop that first`);
  }
  watched.add(pool);
  const meter = (options.meterProvider ?? metrics.getMeterProvider()).getMeter(scope);
  const tracer = (options.tracerProvider ?? trace.getTracerProvider()).getTracer(scope);
  const instruments = new Instruments(meter);
  const own: Attributes = { [names.pool]: pool.name };
  if (keyAttributes === undefined) instruments.timeouts.add(0, own); // so that the first is seen as a change
  const stops = [
    observe(pool, meter, own, keyAttributes),
    ...listen(pool, instruments, spans ? new Spans(tracer) : undefined, useTime, (key) =>
      keyAttributes === undefined ? own : { ...keyAttributes(key), ...own },
    ),
  ];
  const stop = (): void => {
    for (const one of stops.splice(0)) one();
    watched.delete(pool);
  };
  return { stop, [Symbol.dispose]: stop };
}

/** The one set of listeners. Returns what takes each off. */
function listen<K, C extends PoolConn>(
  pool: Pool<K, C>,
  instruments: Instruments,
  spans: Spans | undefined,
  useTime: boolean,
  attributesOf: (key: K) => Attributes,
): (() => void)[] {
  const { createTime, waitTime, timeouts, duration, disconnections } = instruments;
  type KeyEnd = End & { readonly key: K };
  const dialed = (event: KeyEnd): void => {
    const attributes = attributesOf(event.key);
    createTime.record(event.ms / 1000, failing(attributes, event));
    spans?.dialed(event, attributes);
  };
  const waited = (event: KeyEnd): void => {
    const attributes = attributesOf(event.key);
    waitTime.record(event.ms / 1000, failing(attributes, event));
    spans?.waited(event, attributes);
  };
  const stops = [
    pool.on("dialed", dialed),
    pool.on("dialFailed", dialed),
    pool.on("served", waited),
    pool.on("refused", waited),
    pool.on("aborted", waited),
    pool.on("failed", waited),
    pool.on("timedOut", (event) => {
      waited(event);
      timeouts.add(1, attributesOf(event.key));
    }),
    pool.on("closed", ({ key, conn, reason, ageMs, cause }) => {
      const attributes = attributesOf(key);
      duration.record(ageMs / 1000, attributes);
      disconnections.add(1, {
        ...attributes,
        [names.reason]: reason,
        [names.disconnectError]: disconnectError(conn, reason, cause),
      });
    }),
  ];
  if (useTime) {
    stops.push(
      pool.on("released", ({ key, ms }) => {
        if (ms !== undefined) instruments.useTime.record(ms / 1000, attributesOf(key));
      }),
    );
  }
  if (spans !== undefined) {
    stops.push(
      pool.on("waiting", () => {}), // with a listener, events carry their caller
      pool.on("abandoned", (event) => spans.abandoned(event, attributesOf(event.key))),
    );
  }
  return stops;
}

/** With the kind of error, where there is one. */
function failing(attributes: Attributes, event: End): Attributes {
  return "error" in event ? { ...attributes, [names.errorType]: errorType(event.error) } : attributes;
}
