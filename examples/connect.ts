// A Connect client over a pool: the server allows ten streams per connection, and forty calls run at once on four.
import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { Pool } from "rpc-conn-pool";
import { dialHttp2, pooledSession } from "rpc-conn-pool/connect";
import { Greeter } from "./gen/greeter_pb.ts"; // buf generate, with protoc-gen-es: opt: target=ts,import_extension=ts

const replies: (() => void)[] = [];
const sayHello = async ({ name }: { name: string }) => {
  await new Promise<void>((resolve) => {
    if (replies.push(resolve) === 40) for (const reply of replies) reply(); // not before all have come
  });
  return { message: `hello, ${name}` };
};
const routes = connectNodeAdapter({ routes: (router) => router.service(Greeter, { sayHello }) });
const server = createServer({ settings: { maxConcurrentStreams: 10 } }, routes).listen(0, "127.0.0.1");
await once(server, "listening");
const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

const pool = new Pool({ dial: dialHttp2(), maxKeyConns: 4 });
const sessionManager = pooledSession(pool, baseUrl);
// The interceptor tells the pool of each call's signal, so that a call may leave the queue.
const transport = createGrpcTransport({ baseUrl, sessionManager, interceptors: [sessionManager.interceptor] });
const client = createClient(Greeter, transport);

const calls = Array.from({ length: 40 }, (_, i) => client.sayHello({ name: `caller ${i}` }, { timeoutMs: 10_000 }));
const impatient = client.sayHello({ name: "nobody" }, { signal: AbortSignal.abort(new Error("I have to go")) });
console.log(await impatient.catch((error) => error.message));
console.log(`${(await Promise.all(calls)).at(-1)?.message}; ${pool.stats().open} connections`);
await pool.close();
server.close();

// [canceled] I have to go
// hello, caller 39; 4 connections
