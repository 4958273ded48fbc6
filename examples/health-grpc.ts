// Before a gRPC connection is used again, its server is asked by grpc.health.v1 whether it still serves.
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { dialGrpc, type GrpcConn } from "rpc-conn-pool/grpc";
import { GreeterService } from "./gen/greeter.ts";

// message HealthCheckRequest { string service = 1; }  message HealthCheckResponse { ServingStatus status = 1; }  SERVING = 1
const check = {
  path: "/grpc.health.v1.Health/Check",
  requestSerialize: (service: string) => Buffer.from([0x0a, Buffer.byteLength(service), ...Buffer.from(service)]),
  responseDeserialize: (bytes: Buffer) => bytes[1] === 1,
};
const serves = (conn: GrpcConn, { signal }: { signal: AbortSignal }) => conn.invoke(check, "demo.Greeter", { signal });

async function startServer(name: string) {
  const status = { serving: true };
  const server = new grpc.Server();
  server.addService(GreeterService, { sayHello: (_: unknown, reply: Reply) => reply(null, { message: name }) });
  const health = { ...check, requestStream: false, responseStream: false, requestDeserialize: String };
  const responseSerialize = (serving: boolean) => Buffer.from([0x08, serving ? 1 : 2]);
  const asked = (_: unknown, reply: Reply) => reply(null, status.serving);
  server.addService({ check: { ...health, responseSerialize } }, { check: asked });
  const port = await promisify(server.bindAsync.bind(server))("127.0.0.1:0", grpc.ServerCredentials.createInsecure());
  return { server, status, address: `127.0.0.1:${port}` };
}
type Reply = (error: null, answer: unknown) => void;
const [first, second] = await Promise.all([startServer("the first"), startServer("the second")]);

const dial = dialGrpc(grpc.credentials.createInsecure());
const pool = new Pool<string, GrpcConn>({
  dial: (_, options) => dial(first.status.serving ? first.address : second.address, options),
  validate: serves,
  validateAfterMs: 0, // before each reuse; the default spares conns that were used within 500 ms
});
const ask = async () => (await pool.get("greeter").invoke(GreeterService.sayHello, { name: "Ada" })).message;

console.log(await ask(), "and again", await ask());
first.status.serving = false; // it will be stopped soon, and says so
console.log(await ask(), `and ${pool.stats().closed.invalid} conn was refused`);
await pool.close();
for (const { server } of [first, second]) server.forceShutdown();

// the first and again the first
// the second and 1 conn was refused
