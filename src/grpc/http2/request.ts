import type { OutgoingHttpHeaders } from "node:http2";
import { type Metadata, status } from "@grpc/grpc-js";
import { GrpcError } from "../status.ts";

/** What Node takes for a header's name; at another one it would end the session. */
const token = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;

/**
 * The headers of a request. As with grpc-js, what the protocol itself says goes before what metadata say.
 *
 * @throws GrpcError (INTERNAL) for a name that HTTP/2 cannot carry; other such names Node refuses itself.
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
 */
export function requestHeaders(
  { scheme, userAgent }: { readonly scheme: string; readonly userAgent: string },
  path: string,
  authority: string,
  encoding: string,
  metadata: Metadata,
): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {
    ":method": "POST",
    ":scheme": scheme,
    ":authority": authority,
    ":path": path,
    te: "trailers",
    "content-type": "application/grpc",
    "user-agent": userAgent,
    "grpc-accept-encoding": "identity,deflate,gzip",
    "accept-encoding": "identity",
  };
  if (encoding !== "identity") headers["grpc-encoding"] = encoding;
  const given = metadata.toHttp2Headers();
  for (const name in given) {
    if (name in headers || name === "grpc-encoding" || name === "__proto__") continue;
    const value = given[name];
    if (!token.test(name)) throw new GrpcError(status.INTERNAL, `Metadata key "${name}" is no name of an HTTP header`);
    if (value !== undefined) headers[name] = value;
  }
  return headers;
}

const units = [
  ["m", 1],
  ["S", 1_000],
  ["M", 60_000],
  ["H", 3_600_000],
] as const;

/** `timeoutMs` as a `grpc-timeout`, of eight digits at most, never shorter than it is. */
export function grpcTimeout(timeoutMs: number): string {
  for (const [unit, ms] of units) {
    const amount = Math.ceil(Math.max(timeoutMs, 0) / ms);
    if (amount < 1e8) return `${amount}${unit}`;
  }
  return "99999999H";
}
