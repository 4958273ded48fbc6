import { isPoolError, type PoolErrorCode } from "../errors.ts";

/** Status codes: https://connectrpc.com/docs/protocol#error-codes */
const statuses = {
  deadlineExceeded: { code: 4, name: "deadline_exceeded" },
  resourceExhausted: { code: 8, name: "resource_exhausted" },
  failedPrecondition: { code: 9, name: "failed_precondition" },
  internal: { code: 13, name: "internal" },
  unavailable: { code: 14, name: "unavailable" },
} as const;

type Status = (typeof statuses)[keyof typeof statuses];

/** What each refusal of the pool means to a caller of Connect. */
const statusOf: Readonly<Record<PoolErrorCode, Status>> = {
  ERR_POOL_ARGUMENT: statuses.internal,
  ERR_POOL_CLOSED: statuses.unavailable,
  ERR_POOL_CONN_CLOSED: statuses.unavailable,
  ERR_POOL_DIAL: statuses.unavailable,
  ERR_POOL_DIAL_TIMEOUT: statuses.unavailable,
  ERR_POOL_WAIT_TIMEOUT: statuses.deadlineExceeded,
  ERR_POOL_QUEUE_FULL: statuses.resourceExhausted,
  ERR_POOL_NO_CONN: statuses.failedPrecondition,
  ERR_POOL_NO_MATCH: statuses.failedPrecondition,
  ERR_POOL_BUG: statuses.internal,
};

/**
 * A `ConnectError` without importing Connect: its `instanceof` takes any error of this shape for one, as it does with two
 * copies of Connect in one process.
 */
class RefusedError extends Error {
  override readonly name = "ConnectError";
  readonly code: number;
  readonly rawMessage: string;
  readonly metadata: Headers = new Headers();
  readonly details: readonly never[] = [];
  override readonly cause: unknown;

  constructor({ code, name }: Status, message: string, cause: unknown) {
    super(`[${name}] ${message}`);
    this.code = code;
    this.rawMessage = message;
    this.cause = cause;
  }

  findDetails(): never[] {
    return [];
  }
}

/** What a call rejects with when the pool refused it: a `ConnectError` with the pool's error as `cause`. */
export function refusalOf(error: unknown): unknown {
  if (!isPoolError(error)) return error;
  // The code of a newer copy of this package may be one that this copy does not know.
  return new RefusedError(statusOf[error.code] ?? statuses.unavailable, error.message, error);
}
