// How calls end early: by an AbortSignal, or because their time is up, while they run or while they wait for a conn.
import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const naps = {
  nap: {
    path: "/example.Naps/Nap",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;
const server = new DrpcServer().add(naps, {
  async nap(ms, { signal }) {
    await sleep(Number(ms), undefined, { signal }); // ends when the caller cancels
    return "rested";
  },
});
const address = await server.listen({ host: "127.0.0.1" });

const pool = new Pool<string>({ dial: dialDrpc(), maxKeyConns: 1 });
const conn = pool.get(address);
await conn.invoke(naps.nap, "1");

const user = new AbortController();
const aborted = conn.invoke(naps.nap, "60000", { signal: user.signal }).catch((error) => error);
await sleep(50);
user.abort(new Error("the user has left"));
console.log((await aborted).message); // the signal's reason, untouched

const late = await conn.invoke(naps.nap, "60000", { timeoutMs: 200 }).catch((error) => error);
console.log(late.name);

const running = conn.invoke(naps.nap, "500");
const waited = await conn.invoke(naps.nap, "1", { timeoutMs: 50 }).catch((error) => error); // the only conn is taken
console.log(waited.name, waited.code);
console.log(await running, pool.stats().waiting);
await Promise.all([pool.close(), server.close()]);

// the user has left
// DrpcTimeoutError
// WaitTimeoutError ERR_POOL_WAIT_TIMEOUT
// rested 0
