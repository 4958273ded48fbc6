// The tests of dialGrpc, once more, with dialGrpcHttp2 in its place.
import { register } from "node:module";

register("../support/over-http2/hooks.js", import.meta.url);

const files = [
  "clients",
  "connectivity",
  "dial",
  "drain",
  "evidence",
  "growth",
  "invoke",
  "limit",
  "peers",
  "proxy",
  "refusals",
  "resend",
  "scaling",
  "stream",
  "ts-proto",
];

for (const file of files) await import(`../grpc/${file}.test.js?over=http2`);
