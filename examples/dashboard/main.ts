// A live page over a pool: four HTTP/2 servers under a load that swells and falls. One of them tells its clients to go now and
// then, and one is down. Runs until it is interrupted: `npm run -s compile && node .build/examples/dashboard/main.js`
import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { Pool } from "rpc-conn-pool";
import { dialHttp2 } from "rpc-conn-pool/http2";
import { serveDashboard } from "./serve.ts";
import { view } from "./view.ts";

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

/** Starts a server that takes so long for a request. */
async function start(ms: number): Promise<{ key: string; sessions: Set<ServerHttp2Session> }> {
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer({ settings: { maxConcurrentStreams: 10 } });
  server.on("session", (session) => {
    sessions.add(session.on("error", () => {}).on("close", () => sessions.delete(session)));
  });
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    setTimeout(
      () => !stream.destroyed && stream.respond({ ":status": 204 }, { endStream: true }),
      ms * (0.5 + Math.random()),
    );
  });
  await once(server.listen(0, "localhost"), "listening");
  server.unref();
  return { key: `http://localhost:${(server.address() as AddressInfo).port}`, sessions };
}

const servers = await Promise.all([20, 40, 80, 160].map(start));
const keys = [...servers.map(({ key }) => key), "http://localhost:1"];
const pool = new Pool({
  name: "demo",
  dial: dialHttp2(),
  maxKeyConns: 6,
  maxConns: 22,
  expirationMs: 5_000,
  waitTimeoutMs: 2_000,
});

async function call(key: string): Promise<void> {
  await pool.use(key, async (conn) => {
    const stream = conn.request({ ":path": "/" });
    stream.resume();
    await once(stream, "close");
  });
}

/** One caller: the higher its number, the seldomer it calls. */
async function caller(number: number): Promise<void> {
  for (;;) {
    const swell = 1 + Math.sin(performance.now() / 7_000 + number / 40);
    await sleep(Math.random() * (20 + number * swell));
    const key = keys[Math.random() < 0.002 ? 4 : number % 4] ?? "";
    await call(key).catch(() => {});
  }
}

for (let number = 0; number < 240; number++) void caller(number);
setInterval(() => {
  for (const session of servers[2]?.sessions ?? []) session.goaway(0);
}, 11_000).unref();

const { url } = await serveDashboard([view(pool)], { port: Number(process.argv[2] ?? 0) });
console.log(`${url}\nin a terminal: npx rpc-conn-pool top ${url}`);
