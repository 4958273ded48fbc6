export type { Clock } from "./clock.ts";
export type * from "./contract.ts";
export * from "./errors.ts";
export type * from "./options.ts";
export { Pool } from "./pool.ts";
export type { PoolStats } from "./stats.ts";
