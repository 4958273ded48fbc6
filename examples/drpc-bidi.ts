// A bidirectional stream over DRPC: both sides talk at will on one conn, which then serves the next call.
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

// What protobuf generators for grpc-js emit; here the messages are text.
const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const chatService = {
  talk: {
    path: "/chat.Chat/Talk",
    requestStream: true,
    responseStream: true,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;

const server = new DrpcServer().add(chatService, {
  async *talk(lines) {
    yield "hello, who are you?";
    for await (const line of lines) yield line.endsWith("?") ? "I only echo" : `${line}, you say`;
    yield "goodbye";
  },
});
const address = await server.listen({ host: "127.0.0.1" });

const pool = new Pool<string>({ dial: dialDrpc() });
const chat = pool.get(address);

const stream = await chat.newStream(chatService.talk, { timeoutMs: 10_000 });
const lines = ["a client", "and you?"];
for await (const reply of stream) {
  console.log(reply);
  const line = lines.shift();
  if (line === undefined) await stream.closeSend();
  else await stream.send(line);
}
// Leaving early cancels the RPC; the conn stays.
for await (const _ of await chat.newStream(chatService.talk)) break;
console.log(`${pool.stats().dials} dial`);
await Promise.all([pool.close(), server.close()]);

// hello, who are you?
// a client, you say
// I only echo
// goodbye
// 1 dial
