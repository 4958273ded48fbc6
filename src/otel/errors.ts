import type { CloseReason } from "../contract.ts";
import { attempt } from "../runtime/guard.ts";

/** The kind of an error, of which there are few: the code of its cause, its own, its name. */
export function errorType(error: unknown): string {
  return codeOf(property(error, "cause")) ?? codeOf(error) ?? (error instanceof Error ? error.name : "_OTHER");
}

function codeOf(error: unknown): string | undefined {
  const code = property(error, "code");
  return typeof code === "string" ? code : undefined;
}

/** A property of what a caller made, which may throw. */
function property(of: unknown, name: string): unknown {
  return attempt(() => (of as Record<string, unknown> | undefined)?.[name]);
}

/** By their numbers: https://www.rfc-editor.org/rfc/rfc9113#section-7 */
const http2Codes = [
  "NO_ERROR",
  "PROTOCOL_ERROR",
  "INTERNAL_ERROR",
  "FLOW_CONTROL_ERROR",
  "SETTINGS_TIMEOUT",
  "STREAM_CLOSED",
  "FRAME_SIZE_ERROR",
  "REFUSED_STREAM",
  "CANCEL",
  "COMPRESSION_ERROR",
  "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM",
  "INADEQUATE_SECURITY",
  "HTTP_1_1_REQUIRED",
];

/** What a lost connection is called. */
const socketErrors: Readonly<Record<string, string>> = {
  ECONNRESET: "connection reset",
  ETIMEDOUT: "connection timed out",
  ECONNABORTED: "connection aborted",
};

/**
 * Why a conn was closed, in gRPC's words: the first reason that was seen, with the code of a GOAWAY. What the pool itself
 * decided is a shutdown.
 *
 * @see https://github.com/grpc/proposal/blob/master/A94-subchannel-otel-metrics.md
 */
export function disconnectError(conn: unknown, reason: CloseReason, cause: unknown): string {
  switch (reason) {
    case "goaway":
    case "died": {
      const code = property(property(conn, "goaway"), "code");
      if (typeof code === "number") return `GOAWAY ${http2Codes[code] ?? code}`;
      return reason === "goaway" ? "unknown" : lost(property(property(conn, "socket"), "errored"));
    }
    case "silent":
      return "connection timed out";
    case "discarded":
      return cause === undefined ? "unknown" : lost(cause);
    default:
      return "subchannel shutdown";
  }
}

function lost(error: unknown): string {
  return socketErrors[codeOf(error) ?? ""] ?? "socket error";
}
