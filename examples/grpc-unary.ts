// A unary gRPC call through a pool: metadata both ways, a status that comes back as it is, and one connection for all.
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { dialGrpc } from "rpc-conn-pool/grpc";

// What protobuf generators for grpc-js emit; here the messages are text.
const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const coders = {
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
};
const greet = { path: "/example.Greeter/Greet", requestStream: false, responseStream: false, ...coders };

const server = new grpc.Server();
server.addService(
  { greet },
  {
    greet({ request, metadata }: grpc.ServerUnaryCall<string, string>, reply: grpc.sendUnaryData<string>) {
      const trailer = new grpc.Metadata();
      trailer.set("served-by", "node 7");
      if (request === "nobody") reply({ code: grpc.status.INVALID_ARGUMENT, details: "whom shall I greet?" });
      else reply(null, `${metadata.get("language")[0] === "fr" ? "bonjour" : "hello"}, ${request}`, trailer);
    },
  },
);
const bind = promisify(server.bindAsync.bind(server));
const port = await bind("127.0.0.1:0", grpc.ServerCredentials.createInsecure());

const pool = new Pool({ dial: dialGrpc(grpc.credentials.createInsecure()), expirationMs: 60_000 });
const greeter = pool.get(`127.0.0.1:${port}`);
const onTrailer = (trailer: object) => console.log(trailer);
console.log(await greeter.invoke(greet, "Ada", { timeoutMs: 5_000, metadata: { language: "fr" }, onTrailer }));
await greeter.invoke(greet, "nobody").catch((error) => console.log(error.code, error.details));
console.log(`${pool.stats().dials} dial, ${pool.stats().hits} hit`);
await pool.close();
server.forceShutdown();

// { 'served-by': 'node 7' }
// bonjour, Ada
// 3 whom shall I greet?
// 1 dial, 1 hit
