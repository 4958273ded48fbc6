import { checkBoolean, checkFunction, checkOptions, checkSignal, checkTimeout } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import type { AcquireOptions } from "../options.ts";

const acquireOptionNames = ["dial", "signal", "timeoutMs", "filter", "waitForReady"];

/** Whether `options`, of the method `what`, say how to get a lease. Throws the reason of a signal that has aborted. */
export function checkAcquire<K, C extends PoolConn>(what: string, options: AcquireOptions<K, C>): void {
  checkOptions(`${what}'s options`, options, acquireOptionNames);
  checkRequest(options);
  checkFunction("dial", options.dial);
  if (options.timeoutMs !== undefined) checkTimeout("timeoutMs", options.timeoutMs);
  options.signal?.throwIfAborted();
}

export function checkRequest(options: { signal?: unknown; filter?: unknown; waitForReady?: unknown }): void {
  checkSignal("signal", options.signal);
  checkFunction("filter", options.filter);
  checkBoolean("waitForReady", options.waitForReady);
}
