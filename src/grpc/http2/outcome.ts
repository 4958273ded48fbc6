import { constants, type IncomingHttpHeaders } from "node:http2";
import { Metadata, type StatusObject, status } from "@grpc/grpc-js";

/** https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md */
const byHttpStatus: Readonly<Record<number, status>> = {
  400: status.INTERNAL,
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.UNIMPLEMENTED,
  429: status.UNAVAILABLE,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.UNAVAILABLE,
};

const {
  NGHTTP2_NO_ERROR,
  NGHTTP2_CANCEL,
  NGHTTP2_REFUSED_STREAM,
  NGHTTP2_ENHANCE_YOUR_CALM,
  NGHTTP2_INADEQUATE_SECURITY,
} = constants;

/** Those that are not INTERNAL: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors */
const byResetCode: Readonly<Record<number, readonly [code: status, details: string]>> = {
  [NGHTTP2_CANCEL]: [status.CANCELLED, "Call cancelled"],
  [NGHTTP2_REFUSED_STREAM]: [status.UNAVAILABLE, "Stream refused by server"],
  [NGHTTP2_ENHANCE_YOUR_CALM]: [status.RESOURCE_EXHAUSTED, "Bandwidth exhausted or memory limit exceeded"],
  [NGHTTP2_INADEQUATE_SECURITY]: [status.PERMISSION_DENIED, "Protocol not secure enough"],
};

export function statusOf(code: status, details: string, metadata: Metadata = new Metadata()): StatusObject {
  return { code, details, metadata };
}

/** What a response stands for that is none of gRPC; `undefined` for one that may be. */
export function statusOfForeign(headers: IncomingHttpHeaders): StatusObject | undefined {
  const type = headers["content-type"];
  if (type?.startsWith("application/grpc") && !type.startsWith("application/grpc-web")) return undefined;
  if (Number(headers[":status"]) !== 200) return statusOfHttp(headers);
  const details = `Expected content-type application/grpc, got ${type === undefined ? "none" : JSON.stringify(type)}`;
  return statusOf(status.UNKNOWN, details, metadataOf(headers));
}

/** What a response without a gRPC status stands for. */
export function statusOfHttp(headers: IncomingHttpHeaders): StatusObject {
  const http = Number(headers[":status"]);
  const metadata = metadataOf(headers);
  if (http === 200) return statusOf(status.UNKNOWN, "No status information received", metadata);
  return statusOf(byHttpStatus[http] ?? status.UNKNOWN, `Received HTTP status code ${http}`, metadata);
}

/** The status in a block of trailers; `undefined` where there is none. */
export function statusOfTrailers(trailers: IncomingHttpHeaders): StatusObject | undefined {
  const given = trailers["grpc-status"];
  if (given === undefined) return undefined;
  const code = /^\d{1,9}$/.test(String(given)) ? Number(given) : -1;
  const message = trailers["grpc-message"];
  const details = message === undefined ? "" : percentDecoded(String(message));
  const known = status[code] !== undefined;
  return statusOf(
    known ? code : status.UNKNOWN,
    known ? details : `grpc-status ${String(given)}: ${details}`,
    metadataOf(trailers),
  );
}

/** What a stream stands for that was reset with `code`, or that ended without a status. */
export function statusOfReset(code: number): StatusObject {
  const known = byResetCode[code];
  if (known !== undefined) return statusOf(...known);
  const why = code === NGHTTP2_NO_ERROR ? " (Call ended without gRPC status)" : "";
  return statusOf(status.INTERNAL, `Received RST_STREAM with code ${code}${why}`);
}

/** Of the headers that the transport reads itself, the user sees none. */
const ownHeaders = new Set(["grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding"]);

/** The metadata in a block of headers: what is not of the transport. */
export function metadataOf(headers: IncomingHttpHeaders): Metadata {
  // Most trailers have nothing but a status.
  let any = false;
  for (const name in headers) any ||= !(ownHeaders.has(name) || name.startsWith(":"));
  if (!any) return new Metadata();
  const metadata = Metadata.fromHttp2Headers(headers);
  for (const name of ownHeaders) metadata.remove(name);
  return metadata;
}

/** As the gRPC spec has it, what is no valid escape stays as it came. */
function percentDecoded(message: string): string {
  if (!message.includes("%")) return message;
  try {
    return decodeURIComponent(message);
  } catch {
    const bytes = message.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
    return Buffer.from(bytes, "latin1").toString();
  }
}
