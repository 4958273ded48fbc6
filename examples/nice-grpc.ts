// nice-grpc over a pool. One call at a time here, so that the second waits in the pool's queue, and leaves it by its signal.
import { setTimeout as sleep } from "node:timers/promises";
import { credentials } from "@grpc/grpc-js";
import { createClient, createServer } from "nice-grpc";
import { Pool } from "rpc-conn-pool";
import { dialGrpc, pooledChannel } from "rpc-conn-pool/grpc";
import { GreeterService } from "./gen/greeter.ts"; // ts-proto, outputServices=grpc-js; nice-grpc's own definitions do as well

const server = createServer();
server.add(GreeterService, { sayHello: async ({ name }) => ({ message: await sleep(50, `hello, ${name}`) }) });
const address = `127.0.0.1:${await server.listen("127.0.0.1:0")}`;

const pool = new Pool({ dial: dialGrpc(credentials.createInsecure()), maxKeyConns: 1, maxStreams: 1 });
const client = createClient(GreeterService, pooledChannel(pool, address)); // instead of createChannel(address)

const patient = client.sayHello({ name: "Ada" });
const impatient = client.sayHello({ name: "Bob" }, { signal: AbortSignal.timeout(10) });
console.log(await impatient.catch((error: Error) => error.name));
console.log((await patient).message);
console.log(`${pool.stats().aborted} left the queue, ${pool.stats().dials} dial`);
await pool.close();
await server.shutdown();

// TimeoutError
// hello, Ada
// 1 left the queue, 1 dial
