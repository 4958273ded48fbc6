import { type CallCredentials, type Metadata, status } from "@grpc/grpc-js";
import { GrpcError, messageOf } from "../status.ts";

/**
 * Adds to `metadata` what call credentials say of a call.
 *
 * @throws GrpcError when they fail, or would be sent without TLS.
 */
export async function authorize(
  metadata: Metadata,
  credentials: CallCredentials,
  scheme: "http" | "https",
  authority: string,
  path: string,
): Promise<void> {
  if (scheme !== "https") throw new GrpcError(status.UNAUTHENTICATED, "Call credentials are sent over TLS only");
  const url = `https://${authority.replace(/:\d+$/, "")}/${path.split("/")[1] ?? ""}`;
  metadata.merge(await credentials.generateMetadata({ method_name: path, service_url: url }).catch(refuse));
  if (metadata.get("authorization").length > 1) {
    throw new GrpcError(status.INTERNAL, '"authorization" metadata cannot have multiple values');
  }
}

function refuse(error: unknown): never {
  const given = Object(error).code;
  const details = `Getting metadata from plugin failed with error: ${messageOf(error)}`;
  const code: status = typeof given === "number" ? given : status.UNKNOWN;
  if (!dataPlaneOnly.has(code)) throw new GrpcError(code, details);
  throw new GrpcError(status.INTERNAL, `Invalid status from control plane: ${code} ${status[code]} ${details}`);
}

/** https://github.com/grpc/proposal/blob/master/A54-restrict-control-plane-status-codes.md */
const dataPlaneOnly: ReadonlySet<status> = new Set([
  status.OK,
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.FAILED_PRECONDITION,
  status.ABORTED,
  status.OUT_OF_RANGE,
  status.DATA_LOSS,
]);
