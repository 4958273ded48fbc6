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

  constructor(code: status, details: string, metadata: Metadata = new Metadata(), options?: ErrorOptions) {
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

/** The text of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
