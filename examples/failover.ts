// A failover: what runs on the old server finishes there, what begins after `clear` runs on the new one.
import { setTimeout as sleep } from "node:timers/promises";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const database = {
  query: {
    path: "/example.Database/Query",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;
const start = async (name: string) => {
  const server = new DrpcServer().add(database, { query: (ms) => sleep(Number(ms), `answered by the ${name}`) });
  return { server, address: await server.listen({ host: "127.0.0.1" }) };
};
const [primary, standby] = await Promise.all([start("primary"), start("standby")]);

let active = primary.address; // in earnest: from a registry
const dial = dialDrpc();
const pool = new Pool<string>({ dial: (_key, options) => dial(active, options) });
const conn = pool.get("database");

const slow = conn.invoke(database.query, "300");
await conn.invoke(database.query, "0");

active = standby.address;
pool.clear("database");
console.log(await conn.invoke(database.query, "0"));
console.log(await slow);
console.log(`${pool.stats().closed.cleared} conns cleared, ${pool.stats().open} open`);
await Promise.all([pool.close(), primary.server.close(), standby.server.close()]);

// answered by the standby
// answered by the primary
// 2 conns cleared, 1 open
