// What a pool does, as OpenTelemetry's metrics, scraped by Prometheus. examples/grafana.json is a dashboard for it.
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { PrometheusExporter } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";
import { dialSocket, Pool } from "rpc-conn-pool";
import { instrument } from "rpc-conn-pool/otel";

// Programs that use @opentelemetry/sdk-node need none of this: `instrument(pool)` finds the SDK that was started.
const exporter = new PrometheusExporter({ preventServerStart: true });
const meterProvider = new MeterProvider({ readers: [exporter] });
const metrics = createServer((request, response) => exporter.getMetricsRequestHandler(request, response)).listen(0);

const echo = createTcpServer((socket) => void socket.pipe(socket)).listen(0, "localhost");
await once(echo, "listening");
const key = `localhost:${(echo.address() as AddressInfo).port}`;

const pool = new Pool({ name: "backends", dial: dialSocket(), maxKeyConns: 2 });
const watching = instrument(pool, { meterProvider });
await pool.warm(key, 2);
await Promise.all(
  ["one", "two", "three"].map((word) =>
    pool.use(key, async ({ socket }) => {
      socket.write(word);
      await once(socket, "data");
    }),
  ),
);

const scraped = await fetch(`http://localhost:${(metrics.address() as AddressInfo).port}/metrics`);
const lines = (await scraped.text()).split("\n");
for (const line of lines.filter((one) => one.startsWith("rpc_client_connection_count{"))) console.log(line);

watching.stop();
await pool.close();
await meterProvider.shutdown();
metrics.close();
echo.close();

// rpc_client_connection_count{rpc_client_connection_pool_name="backends",rpc_client_connection_state="idle",otel_scope_name="rpc-conn-pool"} 2
// rpc_client_connection_count{rpc_client_connection_pool_name="backends",rpc_client_connection_state="used",otel_scope_name="rpc-conn-pool"} 0
// rpc_client_connection_count{rpc_client_connection_pool_name="backends",rpc_client_connection_state="draining",otel_scope_name="rpc-conn-pool"} 0
// rpc_client_connection_count{rpc_client_connection_pool_name="backends",rpc_client_connection_state="dialing",otel_scope_name="rpc-conn-pool"} 0
