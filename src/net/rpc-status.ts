import type { PoolErrorCode } from "../errors.ts";

/**
 * The status with which a call fails that got no conn, by the code of the pool's error, which is the `cause` of what the
 * caller gets. The numbers are gRPC's; Connect's codes are the same.
 *
 * | the pool's error | status |
 * |---|---|
 * | `DialError` | what the dial itself failed with, if that has a status; else UNAVAILABLE |
 * | `DialTimeoutError`, `PoolClosedError`, `ConnClosedError`, `NoConnError`, `NoMatchError` | UNAVAILABLE |
 * | `WaitTimeoutError` | DEADLINE_EXCEEDED |
 * | `QueueFullError` | RESOURCE_EXHAUSTED |
 * | a wrong option or argument | INVALID_ARGUMENT |
 * | a bug of the pool | INTERNAL |
 *
 * @see https://grpc.io/docs/guides/status-codes/
 */
export const statusOfPoolError: Readonly<Record<PoolErrorCode, number>> = {
  ERR_POOL_ARGUMENT: 3,
  ERR_POOL_WAIT_TIMEOUT: 4,
  ERR_POOL_QUEUE_FULL: 8,
  ERR_POOL_BUG: 13,
  ERR_POOL_CLOSED: 14,
  ERR_POOL_CONN_CLOSED: 14,
  ERR_POOL_DIAL: 14,
  ERR_POOL_DIAL_TIMEOUT: 14,
  ERR_POOL_NO_CONN: 14,
  ERR_POOL_NO_MATCH: 14,
};
