/**
 * What a pool does, as OpenTelemetry's metrics and spans: `using watching = instrument(pool)`.
 *
 * @module
 */
export { type Instrumentation, type InstrumentOptions, instrument } from "./instrument.ts";
