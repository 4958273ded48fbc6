import type { Attributes } from "@opentelemetry/api";
import { type Histogram, MeterProvider, MetricReader } from "@opentelemetry/sdk-metrics";

/** Collects when it is asked to. */
class Reader extends MetricReader {
  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** A point: the attributes without the pool's name, as text, and the value; of histograms the sum and how many. */
export type Points = Readonly<Record<string, number | readonly [sum: number, count: number]>>;

/** OpenTelemetry's own SDK, and what it has when asked. */
export class Telemetry {
  readonly #reader: Reader = new Reader();
  readonly meterProvider: MeterProvider = new MeterProvider({ readers: [this.#reader] });

  /** The points of each metric, by its name without `rpc.client.connection.`; of one pool, where one is named. */
  async collect(pool?: string): Promise<Record<string, Points>> {
    const { resourceMetrics, errors } = await this.#reader.collect();
    if (errors.length > 0) throw new AggregateError(errors);
    const found: Record<string, Points> = {};
    for (const { metrics } of resourceMetrics.scopeMetrics) {
      for (const { descriptor, dataPoints } of metrics) {
        const points = [...dataPoints]
          .filter(({ attributes }) => pool === undefined || attributes["rpc.client.connection.pool.name"] === pool)
          .map(({ attributes, value }) => [show(attributes), measured(value)] as const);
        found[descriptor.name.replace("rpc.client.connection.", "")] = Object.fromEntries(points);
      }
    }
    return found;
  }
}

function measured(
  value: number | Histogram | { readonly sum?: number | undefined; readonly count: number },
): Points[string] {
  return typeof value === "number" ? value : [value.sum ?? 0, value.count];
}

function show({ "rpc.client.connection.pool.name": _pool, ...others }: Attributes): string {
  return Object.entries(others)
    .map(([name, value]) => `${name.replace("rpc.client.connection.", "")}=${String(value)}`)
    .sort()
    .join(" ");
}
