import { isPoolError } from "../errors.ts";
import { statusOfPoolError } from "../net/rpc-status.ts";

/** How Connect names the codes that the pool's errors become: https://connectrpc.com/docs/protocol#error-codes */
const nameOf: Readonly<Record<number, string>> = {
  3: "invalid_argument",
  4: "deadline_exceeded",
  8: "resource_exhausted",
  13: "internal",
  14: "unavailable",
};

const unavailable = 14;

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

  constructor(code: number, message: string, cause: unknown) {
    super(`[${nameOf[code] ?? code}] ${message}`);
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
  return new RefusedError(statusOfPoolError[error.code] ?? unavailable, error.message, error);
}
