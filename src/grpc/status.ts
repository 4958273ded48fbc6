import { Metadata, type ServiceError, type StatusObject, status } from "@grpc/grpc-js";

/**
 * What a gRPC call fails with: a grpc-js `ServiceError`, with its `code` (a number of grpc-js' `status`), `details`
 * and `metadata` (the trailers) as the peer, or grpc-js itself, gave them.
 *
 * @see https://grpc.io/docs/guides/status-codes/
 */
export class GrpcError extends Error implements ServiceError {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;

  constructor(code: status, details: string, metadata: Metadata = new Metadata(), options?: { cause?: unknown }) {
    super(`${code} ${status[code]}: ${details}`, options);
    this.code = code;
    this.details = details;
    this.metadata = metadata;
  }
}

Object.defineProperty(GrpcError.prototype, "name", { value: "GrpcError", configurable: true, writable: true });

/** The error that a status other than OK stands for. */
export function statusError({ code, details, metadata }: StatusObject): GrpcError {
  return new GrpcError(code, details, metadata);
}

/**
 * Whether a call was ended on this side: a deadline that passed, or a cancel. What a peer ends has a header, or trailers
 * with a content type at least.
 */
export function isGivenUp({ code, metadata }: StatusObject): boolean {
  if (code !== status.DEADLINE_EXCEEDED && code !== status.CANCELLED) return false;
  return Object.keys(metadata.getMap()).length === 0;
}

/** What a call ends with that waited so long for its connection: grpc-js counts the time of a deadline from there on. */
export function afterWait(result: StatusObject, waitedMs: number): StatusObject {
  if (waitedMs < 1 || result.code !== status.DEADLINE_EXCEEDED || !isGivenUp(result)) return result;
  const seconds = (waitedMs / 1_000).toFixed(3);
  return { ...result, details: `${result.details},after ${seconds}s of waiting for a connection` };
}

/** The text of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
