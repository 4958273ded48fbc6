// Listeners that throw, in a process of their own, since grpc-js lets what they throw go uncaught. Prints what was
// thrown, and how many slots are left taken.
import { credentials, Metadata, type StatusObject } from "@grpc/grpc-js";
import { dialGrpc, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";

const address = String(process.argv[2]);
const pool = new Pool({ dial: dialGrpc(credentials.createInsecure()) });
const channel = pooledChannel(pool, address);
/** With `--unhandled-rejections=strict` a rejection is told to both. */
const thrown = new Set<unknown>();
process.on("uncaughtException", (error) => thrown.add(error.message));
process.on("unhandledRejection", (error) => thrown.add(Object(error).message));

function call(thrower: string): Promise<void> {
  return new Promise((resolve) => {
    const throws = (where: string): void => {
      if (where === "status") setImmediate(resolve);
      if (where === thrower) throw new Error(where);
    };
    const running = channel.createCall("/test.Echo/Unary", Date.now() + 500, null, null, null);
    running.start(new Metadata(), {
      onReceiveMetadata: () => throws("metadata"),
      onReceiveMessage: () => throws("message"),
      onReceiveStatus: (_status: StatusObject) => throws("status"),
    });
    running.startRead();
    running.sendMessageWithContext({}, Buffer.from('{"text":"x"}'));
    running.halfClose();
    // One that throws in the middle may never get its status.
    setTimeout(resolve, 1_000);
  });
}

(await pool.acquire(address)).release();
for (const thrower of ["metadata", "message", "status"]) await call(thrower);
console.log([...thrown].join(" "), pool.stats().streams);
await pool.close();
