export * from "../../../src/grpc/index.ts";
export { dialGrpcHttp2 as dialGrpc } from "../../../src/grpc/index.ts";
