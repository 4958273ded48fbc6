// A warm start: connections are there, and have carried a first call, before the service says that it is ready.

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { GreeterService } from "./gen/greeter.ts";

let calls = 0;
const sayHello = ({ name }: { name: string }) => ({ message: `hello, ${name}, call ${++calls}` });
const backend = new DrpcServer().add(GreeterService, { sayHello });
const address = await backend.listen({ host: "127.0.0.1" });

const pool = new Pool({
  dial: dialDrpc(),
  prime: (conn, { signal }) => conn.invoke(GreeterService.sayHello, { name: "nobody" }, { signal }), // no caller meets cold caches
  minIdle: 2, // and it stays so while the key is in use
});

let ready = false;
const web = createServer((request, response) => {
  if (request.url === "/ready") return void response.writeHead(ready ? 200 : 503).end();
  const call = pool.get(address).invoke(GreeterService.sayHello, { name: "Ada" }, { timeoutMs: 5_000 });
  call.then(({ message }) => response.end(message)).catch(() => response.writeHead(503).end());
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
