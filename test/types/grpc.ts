/** The first program that anybody writes: a service definition as generators make them, a pool, a call. */
import { credentials, type MethodDefinition, type ServiceDefinition } from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { dialGrpc, type GrpcConn, pooledChannel } from "rpc-conn-pool/grpc";

interface HelloRequest {
  name: string;
}
interface HelloReply {
  message: string;
}
declare const greeterService: ServiceDefinition & { sayHello: MethodDefinition<HelloRequest, HelloReply> };
declare const maybeSignal: AbortSignal | undefined;

const pool = new Pool();
const greeter = pool.get("host:1", dialGrpc(credentials.createInsecure()));
const { sayHello } = greeterService;

const reply: HelloReply = await greeter.invoke(sayHello, { name: "world" });
const other = await greeter.invoke(sayHello, { name: "world" }, { signal: maybeSignal, timeoutMs: 100 });
export const text: string = reply.message + other.message;

// @ts-expect-error a wrong request is refused
await greeter.invoke(sayHello, { nmae: "world" });
// @ts-expect-error a wrong reply is too
export const wrong: { count: number } = await greeter.invoke(sayHello, { name: "world" });

const stream = await greeter.newStream(sayHello, { metadata: { "x-token": "secret", "x-bin": Buffer.of(1) } });
await stream.send({ name: "world" });
await stream.closeSend({ name: "last" });
for await (const { message } of stream) console.log(message satisfies string);
// @ts-expect-error a wrong message is refused
await stream.send({ name: 1 });

/** A pool of gRPC conns, with the pool's own dial. */
const own = new Pool<string, GrpcConn>({ dial: dialGrpc(credentials.createSsl(), {}, { maxStreams: 50 }) });
await own.get("host:1").invoke(sayHello, { name: "world" });
using lease = await own.acquire("host:1");
console.log(lease.conn.channel.getTarget() satisfies string);
export const channel = pooledChannel(own, "host:1");
