// A warm start: connections are there, and have carried a first call, before the service says that it is ready.

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const greeter = {
  sayHello: {
    path: "/example.Greeter/SayHello",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;

let calls = 0;
const backend = new DrpcServer().add(greeter, { sayHello: (name) => `hello, ${name}, call ${++calls}` });
const address = await backend.listen({ host: "127.0.0.1" });

const pool = new Pool({
  dial: dialDrpc(),
  prime: (conn, { signal }) => conn.invoke(greeter.sayHello, "nobody", { signal }), // no caller meets cold caches
  minIdle: 2, // and it stays so while the key is in use
});

let ready = false;
const web = createServer((request, response) => {
  if (request.url === "/ready") return void response.writeHead(ready ? 200 : 503).end();
  const call = pool.get(address).invoke(greeter.sayHello, "Ada", { timeoutMs: 5_000 });
  call.then((answer) => response.end(answer)).catch(() => response.writeHead(503).end());
}).listen(0, "127.0.0.1");
await once(web, "listening");
const get = (path: string) => fetch(`http://127.0.0.1:${(web.address() as AddressInfo).port}${path}`);

console.log("ready:", (await get("/ready")).status);
// A backend that cannot be reached does not keep the service from starting; it starts cold, and says so.
await pool.warm(address, 2, { timeoutMs: 5_000 }).catch((error) => console.error("starting cold:", error.message));
ready = true;
const { dials, idle } = pool.stats();
console.log("ready:", (await get("/ready")).status, `${idle} conns, ${calls} calls`);

console.log(await (await get("/")).text(), `${pool.stats().misses} calls waited, ${dials} dials before`);
web.close();
web.closeAllConnections();
await Promise.all([pool.close(), backend.close()]);

// ready: 503
// ready: 200 2 conns, 2 calls
// hello, Ada, call 3 0 calls waited, 2 dials before
