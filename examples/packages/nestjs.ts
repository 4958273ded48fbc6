// NestJS: a gRPC client takes the pool's channel through `channelOptions`, and Nest's end of life closes the pool.
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { NestFactory } from "@nestjs/core";
import { type ClientGrpc, ClientsModule, Transport } from "@nestjs/microservices";
import { Pool } from "rpc-conn-pool";
import { dialGrpc, type GrpcConn, pooledChannel } from "rpc-conn-pool/grpc";
import { firstValueFrom, type Observable } from "rxjs";

const protoPath = fileURLToPath(new URL("../gen/greeter.proto", import.meta.url));

// A server that allows ten calls per connection, and answers when twenty have come.
const replies: (() => void)[] = [];
const server = new grpc.Server({ "grpc.max_concurrent_streams": 10 });
server.addService(loadSync(protoPath)["demo.Greeter"] as grpc.ServiceDefinition, {
  sayHello({ request }: { request: Request }, reply: (error: null, answer: Reply) => void) {
    if (replies.push(() => reply(null, { message: `hello, ${request.name}` })) === 20)
      for (const answer of replies) answer();
  },
});
interface Request {
  name: string;
}
interface Reply {
  message: string;
}
const port = await promisify(server.bindAsync.bind(server))("127.0.0.1:0", grpc.ServerCredentials.createInsecure());
const url = `127.0.0.1:${port}`;

/** What the application injects where the pool is asked for, by its class. */
class Backends extends Pool<string, GrpcConn> {
  onApplicationShutdown = () => this.close({ graceMs: 10_000 });
}
const pool = new Backends({ dial: dialGrpc(grpc.credentials.createInsecure()), maxKeyConns: 4 });
const channelOptions = { channelOverride: pooledChannel(pool, url) }; // the one line
const greeter = {
  name: "GREETER",
  transport: Transport.GRPC as const,
  options: { url, package: "demo", protoPath, channelOptions },
};
class App {}
const app = await NestFactory.createApplicationContext(
  {
    module: App,
    imports: [ClientsModule.register([greeter])],
    providers: [{ provide: Backends, useValue: pool }],
  },
  { logger: ["error"] },
);

const client = app.get<ClientGrpc>("GREETER").getService<{ sayHello(request: Request): Observable<Reply> }>("Greeter");
const calls = Array.from({ length: 20 }, (_, i) => firstValueFrom(client.sayHello({ name: `caller ${i}` })));
console.log(`${(await Promise.all(calls)).at(-1)?.message}; ${pool.stats().open} connections`);
await app.close();
console.log(`${pool.stats().open} connections`);
server.forceShutdown();

// hello, caller 19; 2 connections
// 0 connections
