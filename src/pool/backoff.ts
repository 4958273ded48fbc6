import type { BackoffRule } from "./config.ts";

/**
 * How long to pause after so many failed dials in a row: exponential, with full jitter, so that those who failed
 * together do not come back together. https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function pauseMs(rule: BackoffRule, failures: number, random: () => number = Math.random): number {
  return random() * Math.min(rule.maxMs, rule.baseMs * 2 ** (failures - 1));
}
