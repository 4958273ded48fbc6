// HTTP/2 without any RPC protocol: sessions are pooled, and a second one is opened when the peer's limit of streams is reached.
import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { Pool } from "rpc-conn-pool";
import { dialHttp2, type Http2Conn } from "rpc-conn-pool/http2";

const server = createServer({ settings: { maxConcurrentStreams: 10 } });
const held: (() => void)[] = [];
server.on("stream", (stream, headers) => {
  stream.respond({ ":status": 200 });
  const answer = () => stream.end(`you asked for ${headers[":path"]}`);
  if (headers[":path"] === "/hello") answer();
  else if (held.push(answer) === 40) for (const each of held) each(); // all of them run at once
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

const pool = new Pool({ dial: dialHttp2(), maxKeyConns: 4 });

async function get(path: string): Promise<string> {
  return pool.use(origin, async (conn: Http2Conn) => {
    let body = "";
    for await (const chunk of conn.request({ ":path": path })) body += String(chunk);
    return body;
  });
}

console.log(await get("/hello"));
await Promise.all(Array.from({ length: 40 }, (_, i) => get(`/${i}`)));
console.log(`40 requests at once: ${pool.stats().open} sessions of 10 streams`);
await pool.close();
server.close();

// you asked for /hello
// 40 requests at once: 4 sessions of 10 streams
