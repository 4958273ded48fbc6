/**
 * What a pool does, as OpenTelemetry's metrics and spans.
 *
 * @example
 * ```ts
 * import { Pool } from "rpc-conn-pool";
 * import { instrument } from "rpc-conn-pool/otel";
 *
 * const pool = new Pool<string>({ name: "backends" });
 * using watching = instrument(pool, { keyAttributes: (address) => ({ "server.address": address }) });
 * ```
 *
 * @module
 */
export { type Instrumentation, type InstrumentOptions, instrument } from "./instrument.ts";
