// A client of hundreds of storage nodes, which sign their certificates themselves: it pins the hash of each one's key.
import { createHash, X509Certificate } from "node:crypto";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { localhost, other, stranger } from "../test/support/certs.ts";

const storage = {
  download: {
    path: "/storage.Node/Download",
    requestStream: false,
    responseStream: false,
    requestSerialize: (piece: string) => Buffer.from(piece),
    requestDeserialize: (bytes: Buffer) => bytes.toString(),
    responseSerialize: (bytes: Buffer) => bytes,
    responseDeserialize: (bytes: Buffer) => bytes,
  },
} as const;
const nodeId = (certificate: X509Certificate) =>
  createHash("sha256")
    .update(certificate.publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");

// 300 nodes, which for the example share a process and three identities.
const nodes = new DrpcServer().add(storage, { download: (piece) => Buffer.from(`the bytes of ${piece}`) });
const pins = new Map<string, string>();
for (let i = 0; i < 300; i++) {
  const identity = [localhost, other, stranger][i % 3] ?? localhost;
  pins.set(await nodes.listen({ host: "127.0.0.1", tls: identity }), nodeId(new X509Certificate(identity.cert)));
}

const dial = dialDrpc({
  tls: { rejectUnauthorized: false }, // no authority signs nodes: the pin decides
  checkPeer: (peer, key) => {
    const certificate = peer.getPeerX509Certificate();
    return certificate !== undefined && nodeId(certificate) === pins.get(key);
  },
});
const pool = new Pool<string>({ dial, maxConns: 100, capacity: 100, keyCapacity: 5, expirationMs: 120_000 });
const download = (key: string) => pool.get(key).invoke(storage.download, "piece 7", { timeoutMs: 10_000 });

const pieces = await Promise.all([...pins.keys()].map(download));
const { dials, open } = pool.stats();
console.log(`${pieces.length} pieces, ${dials} dials, ${open} conns open`);
const [impostor = ""] = pins.keys();
pins.set(impostor, "somebody else's id");
await download(impostor).catch((error) => console.log(error.cause.message.replace(impostor, "the impostor")));
await Promise.all([pool.close(), nodes.close()]);

// 300 pieces, 300 dials, 100 conns open
// `checkPeer` refused the impostor
