// A rotation of client certificates: `clear(key, { withinMs })` replaces conns one by one, the new one first, while calls go on.
import { setTimeout as sleep } from "node:timers/promises";
import type { TLSSocket } from "node:tls";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { ca, localhost, other } from "./gen/certs.ts";

const encode = (text: string) => Buffer.from(text);
const decode = (bytes: Buffer) => bytes.toString();
const who = {
  amI: {
    path: "/example.Who/AmI",
    requestStream: false,
    responseStream: false,
    requestSerialize: encode,
    requestDeserialize: decode,
    responseSerialize: encode,
    responseDeserialize: decode,
  },
} as const;

// A server that tells each caller whose certificate came with the connection.
const server = new DrpcServer().add(who, {
  amI: async (_, { duplex }) => sleep(2, String((duplex as TLSSocket).getPeerCertificate().subject.CN)),
});
const tls = { ...localhost, ca, requestCert: true, rejectUnauthorized: true };
const address = await server.listen({ host: "127.0.0.1", tls });

let identity = { ...localhost, ca }; // of this client; the next one comes from a file, or a vault
const pool = new Pool({ dial: dialDrpc({ tls: () => identity }), maxKeyConns: 8 });
const call = () => pool.get(address).invoke(who.amI, "");

const answers: string[] = [];
let going = true;
const callers = Array.from({ length: 4 }, async () => {
  while (going) answers.push(await call());
});
while (pool.stats().idle + pool.stats().leased < 4) await sleep(1);
console.log(`calls run as ${[...new Set(answers)].join()}`);

identity = { ...other, ca };
pool.clear(address, { withinMs: 200 }); // in earnest: minutes
while (answers.slice(-20).some((name) => name !== "other")) await sleep(5);
going = false;
await Promise.all(callers); // none has failed
console.log(`all of them were answered, the last as ${answers.at(-1)}`);
await Promise.all([pool.close(), server.close()]);

// calls run as localhost
// all of them were answered, the last as other
