import type { CloseReason } from "./contract.ts";
import { type Budget, type Hold, reached } from "./explanation.ts";

/** Stable codes of everything that the pool throws. */
export type PoolErrorCode =
  | "ERR_POOL_ARGUMENT"
  | "ERR_POOL_CLOSED"
  | "ERR_POOL_CONN_CLOSED"
  | "ERR_POOL_DIAL"
  | "ERR_POOL_DIAL_TIMEOUT"
  | "ERR_POOL_WAIT_TIMEOUT"
  | "ERR_POOL_QUEUE_FULL"
  | "ERR_POOL_NO_CONN"
  | "ERR_POOL_NO_MATCH"
  | "ERR_POOL_BUG";

/** Survives two copies of the package in one process, which `instanceof` does not. */
const brand = Symbol.for("rpc-conn-pool.error");

/** Whether `error` is one of the pool's own, whichever copy of the package made it. */
export function isPoolError(error: unknown): error is PoolError {
  return typeof error === "object" && error !== null && brand in error;
}

/** What an error of the pool tells beside its message. */
export interface PoolErrorOptions {
  readonly cause?: unknown;
  /** Where the time of the call went. */
  readonly budget?: Budget | undefined;
  /** What held it back. */
  readonly heldBackBy?: Hold | undefined;
}

/**
 * Every error of the pool has a stable `code`. One that ends a call which asked for a lease tells where its time went, too:
 * `waitedMs = slotMs + dialMs + blockedMs`, in milliseconds, undefined in other errors.
 */
export class PoolError extends Error implements Partial<Budget> {
  readonly code: PoolErrorCode;
  /** What the call was given: `timeoutMs`, the time until `deadline`, or `waitTimeoutMs`. Undefined: no limit. */
  declare readonly askedMs?: number | undefined;
  /** How long it waited for a lease. */
  declare readonly waitedMs?: number;
  /** Of that, while every conn of its key was in use, or something held it back. */
  declare readonly slotMs?: number;
  /** Of that, while a dial of its key was in flight. */
  declare readonly dialMs?: number;
  /** Of that, while no dial was in flight and a conn of its key was blocked or suspect. */
  declare readonly blockedMs?: number;
  /** How long it ran on a conn, before it asked for another. */
  declare readonly ranMs?: number;
  /** What held it back when it failed. Undefined: nothing did, or the call had not asked for a lease. */
  declare readonly heldBackBy?: Hold;

  constructor(code: PoolErrorCode, message: string, options?: PoolErrorOptions) {
    super(message, options);
    this.code = code;
    if (options?.budget !== undefined) Object.assign(this, options.budget);
    if (options?.heldBackBy !== undefined) Object.assign(this, { heldBackBy: options.heldBackBy });
  }
}

/** A `TypeError` with the code `ERR_POOL_ARGUMENT`: an option or argument of the wrong kind. */
export class PoolTypeError extends TypeError {
  readonly code = "ERR_POOL_ARGUMENT";
}

/** A `RangeError` with the code `ERR_POOL_ARGUMENT`: an option or argument out of bounds. */
export class PoolRangeError extends RangeError {
  readonly code = "ERR_POOL_ARGUMENT";
}

/** The pool is closed, or was closed while the caller waited. */
export class PoolClosedError extends PoolError {
  constructor(message = "the pool is closed: make a new one to dial again", options?: PoolErrorOptions) {
    super("ERR_POOL_CLOSED", message, options);
  }
}

/** The conn (or the handle) that the RPC ran on is closed. */
export class ConnClosedError extends PoolError {
  /** Why it was closed; `"handle"`: the caller closed the handle. */
  readonly reason: CloseReason | "handle";
  /** Whether the request can have reached the peer. False: it is safe to send it again. */
  readonly sent: boolean;

  constructor(reason: CloseReason | "handle", sent: boolean, message?: string, options?: { cause?: unknown }) {
    super(
      "ERR_POOL_CONN_CLOSED",
      message ??
        (reason === "handle"
          ? "this handle is closed: get another one from the pool"
          : `the conn is closed (${reason}); ${reached(sent)}`),
      options,
    );
    this.reason = reason;
    this.sent = sent;
  }
}

/** A dial failed. `cause` is what the dial function threw, unchanged. */
export class DialError extends PoolError {
  /** True: the dial said that trying again is useless (its error carried `final: true`). */
  readonly final: boolean;

  constructor(message: string, options?: PoolErrorOptions & { final?: boolean; code?: PoolErrorCode }) {
    super(options?.code ?? "ERR_POOL_DIAL", message, options);
    this.final = options?.final ?? false;
  }
}

/** A dial was not done within `dialTimeoutMs`. */
export class DialTimeoutError extends DialError {
  constructor(message: string, options?: PoolErrorOptions) {
    super(message, { ...options, code: "ERR_POOL_DIAL_TIMEOUT" });
  }
}

/** No lease in time, dialing included. `cause` is the key's last dial failure, if there was one. */
export class WaitTimeoutError extends PoolError {
  constructor(message: string, options?: PoolErrorOptions) {
    super("ERR_POOL_WAIT_TIMEOUT", message, options);
  }
}

/** `maxWaiters` callers wait for this key already. */
export class QueueFullError extends PoolError {
  constructor(message: string, options?: PoolErrorOptions) {
    super("ERR_POOL_QUEUE_FULL", message, options);
  }
}

/** The key has no conn, and there is no dial function to open one. */
export class NoConnError extends PoolError {
  constructor(message: string, options?: PoolErrorOptions) {
    super("ERR_POOL_NO_CONN", message, options);
  }
}

/** The key has conns, but none passes the filter, and no dial brought one that does. `cause` is what the filter threw. */
export class NoMatchError extends PoolError {
  constructor(message: string, options?: PoolErrorOptions) {
    super("ERR_POOL_NO_MATCH", message, options);
  }
}

/** Called where the code cannot come unless the pool itself is wrong. */
export function bug(what: string): never {
  throw new PoolError("ERR_POOL_BUG", `bug in rpc-conn-pool: ${what}; please report it`);
}

// Names and the brand stand on the prototypes, so that no error carries own properties for them.
const types = {
  PoolError,
  PoolTypeError,
  PoolRangeError,
  PoolClosedError,
  ConnClosedError,
  DialError,
  DialTimeoutError,
  WaitTimeoutError,
  QueueFullError,
  NoConnError,
  NoMatchError,
};
for (const [name, { prototype }] of Object.entries(types)) {
  Object.defineProperty(prototype, "name", { value: name, configurable: true, writable: true });
  Object.defineProperty(prototype, brand, { value: true });
}
