// A generated grpc-js client over a pool. The server allows ten calls per connection; a hundred run at once on ten.

import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { dialGrpc, pooledChannel } from "rpc-conn-pool/grpc";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const coders = {
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
};
const greet = { path: "/example.Greeter/Greet", requestStream: false, responseStream: false, ...coders };
const GreeterClient = grpc.makeClientConstructor({ greet }, "example.Greeter"); // what generated code does

const server = new grpc.Server({ "grpc.max_concurrent_streams": 10 });
const replies: (() => void)[] = [];
server.addService(
  { greet },
  {
    greet({ request }: grpc.ServerUnaryCall<string, string>, reply: grpc.sendUnaryData<string>) {
      replies.push(() => reply(null, `hello, ${request}`));
      if (replies.length === 100) for (const answer of replies) answer(); // not before all have come
    },
  },
);
const bind = promisify(server.bindAsync.bind(server));
const port = await bind("127.0.0.1:0", grpc.ServerCredentials.createInsecure());

const address = `127.0.0.1:${port}`;
const insecure = grpc.credentials.createInsecure();
const pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams: 10 }), maxKeyConns: 10 });

const client = new GreeterClient(address, insecure, { channelOverride: pooledChannel(pool, address) }); // the one line
const call = (name: string) =>
  new Promise<string>((resolve, reject) => {
    const done = (error: Error | null, answer: string) => (error === null ? resolve(answer) : reject(error));
    client["greet"]?.(name, { deadline: Date.now() + 10_000 }, done);
  });

const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => call(`caller ${i}`)));
console.log(`${answers.at(-1)}; ${pool.stats().open} connections`);
client.close(); // this client's view only
await pool.close();
server.forceShutdown();

// hello, caller 99; 10 connections
