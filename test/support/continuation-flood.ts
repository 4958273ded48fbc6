/** A process that calls a peer which answers with a header block without end: it is to survive. */

import { createServer, type Socket } from "node:net";
import { credentials } from "@grpc/grpc-js";
import { dialGrpcHttp2 } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FrameType, frameBytes, headerBlock } from "./hostile-http2.ts";

const rpc = {
  path: "/a/b",
  requestSerialize: (text: string) => Buffer.from(text),
  responseDeserialize: (bytes: Buffer) => String(bytes),
};

function flood(socket: Socket): void {
  const bytes = frameBytes(FrameType.continuation, 0, 1, headerBlock({ "x-a": "b" }));
  const pump = (): void => {
    if (socket.destroyed) return;
    for (let i = 0; i < 200; i++) if (!socket.write(bytes)) return void socket.once("drain", pump);
    setImmediate(pump);
  };
  socket.write(frameBytes(FrameType.headers, 0, 1, headerBlock({ ":status": "200" })));
  pump();
}

const server = createServer((socket) => {
  socket.on("error", () => {});
  socket.write(frameBytes(FrameType.settings, 0, 0));
  let asked = false;
  socket.on("data", (bytes) => {
    if (asked || bytes.length < 60) return; // its preface
    asked = true;
    flood(socket);
  });
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
const address = server.address();
if (typeof address !== "object" || address === null) throw new Error("it listens");

let failed = 0;
for (let round = 0; round < 60; round++) {
  await using pool = new Pool<string>({ dial: dialGrpcHttp2(credentials.createInsecure()) });
  const handle = pool.get(`127.0.0.1:${address.port}`);
  const calls = Array.from({ length: 3 }, () => handle.invoke(rpc, "x", { timeoutMs: 20 + (round % 20) }));
  for (const { status } of await Promise.allSettled(calls)) if (status === "rejected") failed++;
  await pool.close({ graceMs: 0 });
}
// Young-generation collections, which are what can find a session before its streams.
for (let i = 0; i < 50; i++) {
  Array.from({ length: 50_000 }, () => ({}));
  await new Promise((resolve) => setTimeout(resolve, 5));
}
console.log(`failed: ${failed}`);
process.exit(0);
