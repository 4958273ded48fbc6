// The tests of dialGrpc against Go, once more, with dialGrpcHttp2 in its place.
import { register } from "node:module";

register("../support/over-http2/hooks.js", import.meta.url);

const file = "../interop/grpc.test.js?over=http2";
await import(file);
