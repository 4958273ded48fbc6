import type { AsyncResource } from "node:async_hooks";
import { type Attributes, context, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api";
import { errorType } from "./errors.ts";
import { names } from "./metrics.ts";

/** What the end of a dial, or of a wait, tells. */
export interface End {
  readonly ms: number;
  readonly caller?: AsyncResource | undefined;
  readonly error?: unknown;
}

/**
 * A span for each dial and each wait, made when it has ended: the pool tells how long it took. It stands under the span in
 * which the caller called; without one there is none, so that nothing begins a trace of its own.
 */
export class Spans {
  readonly #tracer: Tracer;

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  dialed(end: End, attributes: Attributes): void {
    this.#add("rpc.client.connection.dial", end, attributes);
  }

  waited(end: End, attributes: Attributes): void {
    this.#add("rpc.client.connection.wait", end, attributes);
  }

  abandoned({ why, ...end }: End & { readonly why: string }, attributes: Attributes): void {
    this.#add("rpc.client.connection.dial", end, { ...attributes, "rpc.client.connection.abandoned": why });
  }

  #add(name: string, end: End, attributes: Attributes): void {
    const { ms, caller } = end;
    const parent = caller?.runInAsyncScope(() => context.active());
    if (parent === undefined || trace.getSpan(parent) === undefined) return;
    const now = Date.now();
    const span = this.#tracer.startSpan(name, { startTime: now - ms, attributes }, parent);
    if ("error" in end) {
      const { error } = end;
      span.setAttribute(names.errorType, errorType(error));
      span.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.message : String(error) });
    }
    span.end(now);
  }
}
