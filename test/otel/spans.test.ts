import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { context, SpanStatusCode, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { instrument } from "../../src/otel/index.ts";
import { settle } from "../support/clock.ts";
import { scriptedDial } from "../support/conn.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

const exporter = new InMemorySpanExporter();
const tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
const tracer = tracerProvider.getTracer("test");

before(() => void context.setGlobalContextManager(new AsyncLocalStorageContextManager()));
after(() => context.disable());

/** Runs `work` in a span of that name. */
function within<T>(name: string, work: () => Promise<T>): Promise<T> {
  return tracer.startActiveSpan(name, (span) => work().finally(() => span.end()));
}

/** The spans that have ended, but for the callers' own, as text: name, the parent's name, milliseconds, the error. */
function spans(): string[] {
  const all = exporter.getFinishedSpans();
  const names = new Map(all.map((span) => [span.spanContext().spanId, span.name]));
  const lines = all.filter(({ parentSpanContext }) => parentSpanContext !== undefined).map((span) => line(span, names));
  exporter.reset();
  return lines;
}

function line(
  { name, parentSpanContext, duration, status, attributes }: ReadableSpan,
  names: Map<string, string>,
): string {
  const ms = Math.round(duration[0] * 1000 + duration[1] / 1e6);
  const error =
    status.code === SpanStatusCode.ERROR ? `, ${String(attributes["error.type"])}: ${status.message ?? ""}` : "";
  const why = String(attributes["rpc.client.connection.abandoned"] ?? "");
  return `${name.replace("rpc.client.connection.", "")} of ${names.get(parentSpanContext?.spanId ?? "")}, ${ms} ms${error}${why}`;
}

test("a wait, and the dial that was begun for it, are spans under the caller's own; who comes later has a wait alone", async (t) => {
  const { pool, clock } = pooled(t, { maxKeyConns: 1 });
  t.after(instrument(pool, { tracerProvider }).stop);
  const dial = scriptedDial({}, { manual: true });
  const first = within("first", async () => (await pool.acquire("k", { dial })).release());
  await clock.advance(10);
  const second = within("second", async () => (await pool.acquire("k", { dial })).release());
  await clock.advance(20);
  dial.pending[0]?.arrive();
  await Promise.all([first, second]);
  await settle();
  assert.deepEqual(spans(), ["dial of first, 30 ms", "wait of first, 30 ms", "wait of second, 20 ms"]);
});

test("what fails says so: a dial with the kind of its cause, a wait with the pool's code", async (t) => {
  const { pool, clock } = pooled(t, { maxKeyConns: 1 });
  t.after(instrument(pool, { tracerProvider }).stop);
  const dial = scriptedDial({}, { manual: true });
  const failing = within("one", () => rejection(pool.acquire("k", { dial })));
  await clock.advance(5);
  dial.pending[0]?.fail(Object.assign(new Error("nobody there"), { code: "ECONNREFUSED" }));
  const { message: refused } = await failing;
  const late = within("two", () => rejection(pool.acquire("k", { dial, timeoutMs: 50 })));
  await clock.advance(50);
  const { message } = await late;
  await settle();
  assert.deepEqual(spans(), [
    'dial of one, 5 ms, ECONNREFUSED: the dial of "k" failed: nobody there',
    `wait of one, 5 ms, ECONNREFUSED: ${refused}`,
    `wait of two, 50 ms, ERR_POOL_WAIT_TIMEOUT: ${message}`,
    "dial of two, 50 msno caller waits for it any more",
  ]);
});

test("a hit has no span, nor a wait or a dial that nobody's span is around", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  t.after(instrument(pool, { tracerProvider }).stop);
  await pool.acquire("k").then((lease) => lease.release());
  await pool.warm("k", 3);
  await within("hit", async () => (await pool.acquire("k")).release());
  await settle();
  assert.deepEqual(spans(), []);
});

test("spans carry the pool's name, and the key's attributes where they are asked for", async (t) => {
  const { pool } = pooled(t, { name: "mine", dial: scriptedDial() });
  t.after(instrument(pool, { tracerProvider, keyAttributes: (key) => ({ "server.address": key }) }).stop);
  await within("caller", async () => (await pool.acquire("a.example")).release());
  await settle();
  const [dial] = exporter.getFinishedSpans();
  assert.deepEqual(dial?.attributes, { "rpc.client.connection.pool.name": "mine", "server.address": "a.example" });
  exporter.reset();
});

test("with spans: false, and after stop, there are none, and callers are not followed", async (t) => {
  const { pool } = pooled(t, { dial: scriptedDial() });
  instrument(pool, { tracerProvider }).stop();
  const watching = instrument(pool, { tracerProvider, spans: false });
  const callers: unknown[] = [];
  pool.on("served", ({ caller }) => void callers.push(caller));
  await within("caller", async () => (await pool.acquire("k")).release());
  await settle();
  watching.stop();
  assert.deepEqual([spans(), callers, trace.getActiveSpan()], [[], [undefined], undefined]);
});
