// A process of its own, so that what is measured in the other one is the client.
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from "@grpc/grpc-js";
import { type Addresses, type Ask, answer } from "./answerer.ts";

const answers = new Map<number, Buffer>();

function handle({ request: { delayMs, bytes } }: ServerUnaryCall<Ask, Buffer>, reply: sendUnaryData<Buffer>): void {
  const made = answers.get(bytes) ?? Buffer.alloc(bytes);
  answers.set(bytes, made);
  if (delayMs === 0) reply(null, made);
  else setTimeout(reply, delayMs, null, made);
}

async function start(server: Server): Promise<string> {
  server.addService({ answer }, { answer: handle });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  return `127.0.0.1:${port}`;
}

process.on("disconnect", () => process.exit());
const addresses: Addresses = {
  limited: await start(new Server({ "grpc.max_concurrent_streams": 100 })),
  unlimited: await start(new Server()),
};
process.send?.(addresses);
