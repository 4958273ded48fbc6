// SIGTERM: the HTTP server stops taking requests and answers those that it has; then the pool closes.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const slowService = {
  answer: {
    path: "/example.Slow/Answer",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;

// A backend whose answer comes only after the signal.
const signalled = once(process, "SIGTERM");
const backend = new DrpcServer().add(slowService, {
  answer: async (text) => {
    await signalled;
    return `${text}, at last`;
  },
});
const address = await backend.listen({ host: "127.0.0.1" });

const pool = new Pool<string>({ dial: dialDrpc() });
const web = createServer((_, response) => {
  const call = pool.get(address).invoke(slowService.answer, "answered", { timeoutMs: 5000 });
  call.then((text) => response.end(text)).catch(() => response.writeHead(503).end());
}).listen(0, "127.0.0.1");
await once(web, "listening");

const closed = signalled.then(async () => {
  web.close(); // no new requests; those that run are answered
  await once(web, "close");
  const running = pool.stats().streams;
  await pool.close({ graceMs: 10_000 }); // what still runs has ten seconds; then the conns are closed
  return `the web server closed, then the pool: ${running} calls ran by then, ${pool.stats().open} conns are open`;
});

const request = fetch(`http://127.0.0.1:${(web.address() as AddressInfo).port}/`, { headers: { connection: "close" } });
while (pool.stats().streams === 0) await new Promise((resolve) => setTimeout(resolve, 5)); // until the call runs
process.kill(process.pid, "SIGTERM"); // what Kubernetes or systemd would send
console.log(await (await request).text());
console.log(await closed);
await backend.close();

// answered, at last
// the web server closed, then the pool: 0 calls ran by then, 0 conns are open
