// Fastify: where the caller of a request goes away, its backend call ends, or leaves the pool's queue.
import { setTimeout as sleep } from "node:timers/promises";
import fastify, { type FastifyReply } from "fastify";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const slowly = {
  path: "/example.Greeter/Slowly",
  requestStream: false,
  responseStream: false,
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
} as const;
const cancelled: string[] = [];
const backend = new DrpcServer().add(
  { slowly },
  {
    slowly: async (name, { signal }) => {
      if (name === "Ada") return "hello, Ada";
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      cancelled.push(name);
      return "nobody reads this";
    },
  },
);
const address = await backend.listen({ host: "127.0.0.1" });
const pool = new Pool<string>({ dial: dialDrpc(), maxKeyConns: 10 });

/** Aborts when the answer can no longer be delivered. Not `request.raw`: that closes as soon as the request has been read. */
function gone({ raw }: FastifyReply): AbortSignal {
  const caller = new AbortController();
  raw.once("close", () => raw.writableFinished || caller.abort());
  return caller.signal;
}

const app = fastify();
app.addHook("onClose", () => pool.close({ graceMs: 10_000 })); // after the last request
app.post<{ Body: { name: string } }>("/hello", ({ body }, reply) =>
  pool.get(address).invoke(slowly, body.name, { signal: gone(reply), timeoutMs: 5_000 }),
);
const url = `${await app.listen({ host: "127.0.0.1", port: 0 })}/hello`;

const post = (name: string, signal = AbortSignal.timeout(30_000)) =>
  fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name }),
    signal,
  });
console.log(await (await post("Ada")).text());
const impatient = new AbortController();
const asked = post("Bob", impatient.signal).catch((error: Error) => error.name);
while (pool.stats().streams === 0) await sleep(5);
impatient.abort();
console.log(await asked);
while (cancelled.length === 0) await sleep(5);
console.log(`the backend no longer works for ${cancelled[0]}`);
await app.close();
await backend.close();

// hello, Ada
// AbortError
// the backend no longer works for Bob
