import { time } from "../explanation.ts";
import type { Uint64 } from "./wire.ts";

/** Codes of a `DrpcError`. DRPC itself knows 0 and 12; the others are gRPC's numbers, as 12 is. */
export const DrpcCode = {
  /** None: Go's plain errors come with it. */
  none: 0,
  /** Cancelled, by either side. Never on the wire, where cancelling has a packet of its own. */
  cancelled: 1,
  /** `timeoutMs` is over. */
  timeout: 4,
  /** The server has no such RPC. */
  unimplemented: 12,
} as const;

/**
 * The error of an RPC. It crosses the wire both ways: what a handler throws, the caller gets, with `message` and
 * `code`. Any error with a `code` that is a whole number from 0 to 2**64-1 keeps that code; of others only the message
 * is sent.
 */
export class DrpcError extends Error {
  /** A number where that is exact (up to `Number.MAX_SAFE_INTEGER`), a bigint only above. 0: none. */
  readonly code: Uint64;

  constructor(message: string, code: Uint64 = DrpcCode.none, options?: { cause?: unknown }) {
    super(message, options);
    this.code = typeof code === "bigint" && code <= Number.MAX_SAFE_INTEGER ? Number(code) : code;
  }
}

/** An RPC was not over within its `timeoutMs`, or by its `deadline`. If it had begun, it has been cancelled. */
export class DrpcTimeoutError extends DrpcError {
  /** Milliseconds that the caller gave it; undefined, where that was a `deadline`. */
  readonly askedMs: number | undefined;
  /** Of them, those that it waited for a conn of its pool. */
  readonly waitedMs: number;
  /** Of them, those that it ran. 0: it did not begin. */
  readonly ranMs: number;

  /**
   * @param limit what the caller asked for: milliseconds, or a deadline.
   * @param ranMs how long it ran.
   * @param waitedMs how long it waited for a conn before.
   */
  constructor(limit: number | Date, ranMs = 0, waitedMs = 0) {
    super(`the RPC was not over ${limitText(limit)}: ${where(waitedMs, ranMs)}`, DrpcCode.timeout);
    this.askedMs = limit instanceof Date ? undefined : limit;
    this.waitedMs = waitedMs;
    this.ranMs = ranMs;
  }
}

function where(waitedMs: number, ranMs: number): string {
  if (waitedMs < 1 && ranMs === 0) return "its time was over before it began";
  const ran = `ran for ${ranMs < 1 ? `${ranMs} ms` : time(ranMs)}`;
  const spent = waitedMs < 1 ? `it ${ran}` : `it waited ${time(waitedMs)} for a conn, and ${ran}`;
  const why = waitedMs > ranMs ? "why the pool had none for it" : "why the peer takes so long";
  return `${spent}; see ${why}, or give it more time`;
}

function limitText(limit: number | Date): string {
  if (limit instanceof Date) return `by its deadline${Number.isNaN(limit.getTime()) ? "" : `, ${limit.toISOString()}`}`;
  return `within ${limit < 1 ? limit : Math.round(limit)} ms`;
}

/** A DRPC conn runs one RPC at a time, and this one runs one: a pool opens more. */
export class DrpcBusyError extends DrpcError {
  constructor() {
    super("this conn runs an RPC already, and DRPC runs one at a time: call through a pool");
  }
}

/** The peer broke the protocol: its connection is closed. Stands in the `cause` of the `ConnClosedError` of an RPC. */
export class DrpcProtocolError extends Error {}

for (const type of [DrpcError, DrpcTimeoutError, DrpcBusyError, DrpcProtocolError]) {
  Object.defineProperty(type.prototype, "name", { value: type.name, configurable: true, writable: true });
}
