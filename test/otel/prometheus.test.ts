import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { PrometheusExporter } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { instrument } from "../../src/otel/index.ts";
import { settle } from "../support/clock.ts";
import { scriptedDial } from "../support/conn.ts";
import { nothingUnheard, rejection } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

nothingUnheard();

/** What Prometheus gets over HTTP after a pool has done everything that is measured: series by their name. */
async function scrape(t: TestContext): Promise<Map<string, string[]>> {
  const exporter = new PrometheusExporter({ preventServerStart: true });
  const meterProvider = new MeterProvider({ readers: [exporter] });
  const server = createServer((request, response) => exporter.getMetricsRequestHandler(request, response));
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(async () => {
    server.close();
    await meterProvider.shutdown();
  });
  const { pool, clock } = pooled(t, { name: "backends", maxConns: 2, capacity: 1 });
  t.after(instrument(pool, { meterProvider }).stop);
  const dial = scriptedDial({}, { manual: true });
  const failed = rejection(pool.acquire("k", { dial }));
  dial.pending[0]?.fail(new Error("nobody there"));
  await failed;
  const late = rejection(pool.acquire("k", { dial, timeoutMs: 100 }));
  await clock.advance(100);
  await late;
  const lease = pool.acquire("k", { dial });
  await clock.advance(10);
  dial.pending.at(-1)?.arrive();
  (await lease).release();
  pool.clear();
  await settle();
  const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`);
  assert.match(response.headers.get("content-type") ?? "", /^text\/plain/);
  const series = new Map<string, string[]>();
  for (const line of (await response.text()).replaceAll(/,otel_scope_name="rpc-conn-pool"/g, "").split("\n")) {
    const [, name] = /^(rpc_\w+)\{/.exec(line) ?? [];
    if (name !== undefined) series.set(name, [...(series.get(name) ?? []), line]);
  }
  return series;
}

test("Prometheus scrapes the metrics in its text format", async (t) => {
  const series = await scrape(t);
  const pool = 'rpc_client_connection_pool_name="backends"';
  const lines = [...series.values()].flat();
  for (const line of [
    `rpc_client_connection_count{${pool},rpc_client_connection_state="idle"} 0`,
    `rpc_client_connection_max{${pool}} 2`,
    `rpc_client_connection_timeouts_total{${pool}} 1`,
    `rpc_client_connection_requests_total{${pool},rpc_client_connection_request_outcome="served"} 1`,
    `rpc_client_connection_create_time_count{${pool},error_type="ERR_POOL_DIAL"} 1`,
    `rpc_client_connection_wait_time_bucket{${pool},le="0.01"} 1`,
    `rpc_client_connection_use_time_count{${pool}} 1`,
    `rpc_client_connection_disconnections_total{${pool},rpc_client_connection_close_reason="cleared",grpc_disconnect_error="subchannel shutdown"} 1`,
  ])
    assert.ok(lines.includes(line), `${line}\nis not in\n${lines.join("\n")}`);
});

test("each metric and each label that the Grafana dashboard asks for is there", async (t) => {
  const series = await scrape(t);
  const dashboard: {
    panels: { title: string; targets: { expr: string; legendFormat: string }[] }[];
    templating: { list: { query: string }[] };
  } = JSON.parse(readFileSync(new URL("../../../examples/grafana.json", import.meta.url), "utf8"));
  const asked = dashboard.panels.flatMap(({ targets }) => targets);
  assert.ok(asked.length >= 10);
  const labelsOf = (lines: readonly string[]) =>
    new Set(lines.flatMap((line) => [...line.matchAll(/(\w+)="/g)].map(([, label]) => label)));
  const seen = new Set<string>();
  for (const { expr, legendFormat } of asked) {
    const pattern = /__name__=~"([^"]+)"/.exec(expr)?.[1] ?? /rpc_\w+(?=\{)/.exec(expr)?.[0];
    const found = [...series.keys()].filter((name) => new RegExp(`^(?:${pattern})$`).test(name));
    assert.equal(found.length, 1, `${pattern} is not among ${[...series.keys()].join(", ")}`);
    const [name = ""] = found;
    seen.add(name.replace(/_(bucket|count)$/, ""));
    const labels = labelsOf(series.get(name) ?? []);
    const used = [
      ...[...expr.matchAll(/(\w+)!?="/g)].map(([, label]) => label),
      ...[...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list = ""]) => list.split(", ")),
      ...[...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label),
    ];
    for (const label of used) assert.ok(labels.has(label), `${name} has no label ${label}: ${[...labels].join(", ")}`);
  }
  for (const { query } of dashboard.templating.list) {
    const [, name, label] = /^label_values\((\w+), (\w+)\)$/.exec(query) ?? [];
    if (name !== undefined) assert.ok(labelsOf(series.get(name) ?? []).has(label), query);
  }
  const shown = [...series.keys()].map((name) => name.replace(/_(bucket|count|sum)$/, ""));
  const left = shown.filter((name) => !seen.has(name) && name !== "rpc_client_connection");
  assert.deepEqual([...new Set(left)].sort(), ["rpc_client_connection_idle_max", "rpc_client_connection_idle_min"]);
});
