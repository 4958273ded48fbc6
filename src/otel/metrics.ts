import type { Counter, Histogram, Meter } from "@opentelemetry/api";

/** The names of attributes. */
export const names = {
  pool: "rpc.client.connection.pool.name",
  state: "rpc.client.connection.state",
  outcome: "rpc.client.connection.request.outcome",
  reason: "rpc.client.connection.close.reason",
  disconnectError: "grpc.disconnect_error",
  errorType: "error.type",
} as const;

/** Bounds of histograms of what should be short, as OpenTelemetry advises for calls; in seconds. */
const short = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];

/** Bounds for the lives of connections, as .NET has them, and a longer one. */
const long = [0.01, 0.1, 1, 5, 10, 30, 60, 120, 300, 900, 3600];

/**
 * What is measured when it happens.
 *
 * @see https://opentelemetry.io/docs/specs/semconv/database/database-metrics/#connection-pools
 */
export class Instruments {
  readonly createTime: Histogram;
  readonly waitTime: Histogram;
  readonly useTime: Histogram;
  readonly duration: Histogram;
  readonly timeouts: Counter;
  readonly disconnections: Counter;

  constructor(meter: Meter) {
    const seconds = (name: string, description: string, explicitBucketBoundaries: number[]): Histogram =>
      meter.createHistogram(name, { unit: "s", description, advice: { explicitBucketBoundaries } });
    this.createTime = seconds("rpc.client.connection.create_time", "The time a dial took, or took to fail.", short);
    this.waitTime = seconds(
      "rpc.client.connection.wait_time",
      "The time a request waited for a connection that did not get one at once.",
      short,
    );
    this.useTime = seconds("rpc.client.connection.use_time", "The time a request used its connection.", short);
    this.duration = seconds("rpc.client.connection.duration", "The time a connection was open.", long);
    this.timeouts = meter.createCounter("rpc.client.connection.timeouts", {
      unit: "{timeout}",
      description: "Requests that got no connection in time.",
    });
    this.disconnections = meter.createCounter("rpc.client.connection.disconnections", {
      unit: "{disconnection}",
      description: "Connections that were closed, by the reason that was seen first.",
    });
  }
}
