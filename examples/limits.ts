// At most two connections, at most three callers in line: the others are refused at once.
import { setTimeout as sleep } from "node:timers/promises";
import { Pool, QueueFullError } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

const asIs = (bytes: Buffer) => bytes;
const service = {
  work: {
    path: "/example.Worker/Work",
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  },
} as const;
const server = new DrpcServer().add(service, { work: (request) => sleep(100, request) });
const address = await server.listen({ host: "127.0.0.1" });

const pool = new Pool<string>({ dial: dialDrpc(), maxKeyConns: 2, maxWaiters: 3 });
const conn = pool.get(address);

async function tenAtOnce(): Promise<string> {
  const calls = Array.from({ length: 10 }, () => conn.invoke(service.work, Buffer.from("job")));
  const results = await Promise.allSettled(calls);
  const refused = results.filter((call) => call.status === "rejected" && call.reason instanceof QueueFullError);
  return `${10 - refused.length} served, ${refused.length} refused, ${pool.stats().open} conns`;
}

console.log(await tenAtOnce());
pool.configure({ maxKeyConns: 5, maxWaiters: 0 }); // while it runs; 0: any number may wait
console.log(await tenAtOnce());
await Promise.all([pool.close(), server.close()]);

// 5 served, 5 refused, 2 conns
// 10 served, 0 refused, 5 conns
