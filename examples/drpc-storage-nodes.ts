// A client of hundreds of storage nodes that sign their certificates themselves. Keys are node URLs, `id@host:port`.
import { createHash, X509Certificate } from "node:crypto";
import { Pool } from "rpc-conn-pool";
import { DrpcServer, dialDrpc } from "rpc-conn-pool/drpc";
import { localhost, other, stranger } from "./gen/certs.ts";

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
const urls: string[] = [];
for (let i = 0; i < 300; i++) {
  const identity = [localhost, other, stranger][i % 3] ?? localhost;
  const address = await nodes.listen({ host: "127.0.0.1", tls: identity });
  urls.push(`${nodeId(new X509Certificate(identity.cert))}@${address}`);
}

const dial = dialDrpc({
  address: (url) => url.split("@")[1] ?? "",
  tls: { rejectUnauthorized: false }, // no authority signs nodes: the id decides
  checkPeer: (peer, url) => {
    const certificate = peer.getPeerX509Certificate();
    return certificate !== undefined && nodeId(certificate) === url.split("@")[0];
  },
});
const pool = new Pool<string>({ dial, maxConns: 100, capacity: 100, keyCapacity: 5, expirationMs: 120_000 });
const download = (url: string) => pool.get(url).invoke(storage.download, "piece 7", { timeoutMs: 30_000 });

const pieces = await Promise.all(urls.map(download));
console.log(`${pieces.length} pieces, ${pool.stats().dials} dials, ${pool.stats().open} conns open`);
const impostor = (urls[0] ?? "").replace(/\w+@/, "impostor@");
await download(impostor).catch((error) => console.log(error.cause.message.replace(/@.*/, "")));
await Promise.all([pool.close(), nodes.close()]);

// 300 pieces, 300 dials, 100 conns open
// `checkPeer` refused impostor
