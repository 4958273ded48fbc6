// A process of its own: three gRPC servers, one of them with TLS, that count the connections they hold. It ends
// when the process that started it has gone.
import { createServer } from "node:net";
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from "@grpc/grpc-js";
import { localhost } from "./certificate.ts";
import { type Count, echo, type Peer, serverMs, streamLimit } from "./service.ts";

let accepted = 0;
let open = 0;
let peak = 0;

function handle({ request }: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>): void {
  setTimeout(reply, serverMs, null, request);
}

async function start(tls: boolean): Promise<Peer> {
  const server = new Server({ "grpc.max_concurrent_streams": streamLimit });
  server.addService({ echo }, { echo: handle });
  const pair = { private_key: Buffer.from(localhost.key), cert_chain: Buffer.from(localhost.certificate) };
  const credentials = tls ? ServerCredentials.createSsl(null, [pair]) : ServerCredentials.createInsecure();
  // The sockets pass through here on their way to grpc-js, so that they can be counted.
  const grpc = server.createConnectionInjector(credentials);
  const listener = createServer((socket) => {
    accepted++;
    open++;
    peak = Math.max(peak, open);
    socket.on("close", () => open--).on("error", () => {});
    grpc.injectConnection(socket);
  });
  await new Promise<void>((resolve) => listener.listen({ port: 0, host: "localhost", backlog: 1_000 }, resolve));
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return { address: `localhost:${address.port}`, tls };
}

process.on("disconnect", () => process.exit());
process.on("message", (request) => {
  if (request === "reset") {
    accepted = open;
    peak = open;
  }
  const count: Count = { accepted, peak, open };
  process.send?.(count);
});
process.send?.(await Promise.all([start(false), start(false), start(true)]));
