// libp2p: a pool over its connections (TCP, Noise, Yamux). Where two nodes dial each other at once, both keep the same one.

import { setTimeout as sleep } from "node:timers/promises";
import { noise } from "@chainsafe/libp2p-noise";
import { yamux } from "@chainsafe/libp2p-yamux";
import type { Connection, Stream } from "@libp2p/interface";
import { tcp } from "@libp2p/tcp";
import { createLibp2p } from "libp2p";
import { Pool, type PoolConn, type PoolOptions } from "rpc-conn-pool";

const protocol = "/example/echo/1.0.0";
const maxStreams = 64; // as many of one protocol as libp2p opens on a connection; it takes fewer unless told otherwise

/** A libp2p connection as a pool holds it. */
class PeerConn implements PoolConn {
  readonly maxStreams = maxStreams;
  readonly closed: Promise<unknown>;
  readonly connection: Connection;
  #isClosing = false;

  constructor(connection: Connection) {
    this.connection = connection;
    this.closed = new Promise((resolve) => connection.addEventListener("close", resolve, { once: true }));
  }
  get draining(): boolean {
    return this.#isClosing || this.connection.status !== "open";
  }
  /** Calls of the peer: while they run, the connection does not expire. */
  get peerStreams(): number {
    return this.connection.streams.filter((stream) => stream.direction === "inbound" && stream.protocol === protocol)
      .length;
  }
  async close(): Promise<void> {
    this.#isClosing = true;
    await this.connection.close().catch((error) => this.connection.abort(error));
  }
  async echo(text: string): Promise<string> {
    const stream = await this.connection.newStream(protocol);
    stream.send(Buffer.from(text));
    await stream.close(); // for writing
    let answer = "";
    for await (const chunk of stream) answer += Buffer.from(chunk.subarray()).toString();
    return answer;
  }
}

async function startNode(options: PoolOptions<string, PeerConn> = {}) {
  const listen = ["/ip4/127.0.0.1/tcp/0"];
  const node = await createLibp2p({
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux({ maxEarlyStreams: maxStreams })], // those that come while the connection is being opened; 10 unless set
    connectionManager: { inboundConnectionThreshold: 1000 }, // per second; 5 unless set
  });
  const echoed = async (stream: Stream) => {
    for await (const chunk of stream) stream.send(chunk);
    await stream.close();
  };
  // The next stream may come before the last one has gone, so some more than the other side opens; 32 unless set.
  await node.handle(protocol, echoed, { maxInboundStreams: 2 * maxStreams });
  const book = new Map<string, ReturnType<typeof node.getMultiaddrs>>();
  const pool = new Pool<string, PeerConn>({
    dial: async (peer, { signal }) => new PeerConn(await node.dial(book.get(peer) ?? [], { signal, force: true })),
    ...options,
  });
  const id = node.peerId.toString();
  node.addEventListener("connection:open", ({ detail: connection }) => {
    const peer = connection.remotePeer.toString();
    if (connection.direction === "inbound")
      pool.put(peer, new PeerConn(connection), { prefer: id < peer ? "this" : "dialed" });
  });
  const echo = (peer: string, text: string) => pool.use(peer, (conn) => conn.echo(text), { timeoutMs: 10_000 });
  return { node, id, book, pool, echo };
}

for (const options of [{}, { maxKeyConns: 1 }]) {
  const [a, b] = await Promise.all([startNode(options), startNode(options)]);
  a.book.set(b.id, b.node.getMultiaddrs());
  b.book.set(a.id, a.node.getMultiaddrs());
  let rounds = 0;
  for (; rounds < 20; rounds++) {
    const answers = await Promise.all([a.echo(b.id, "from a"), b.echo(a.id, "from b")]); // both dial
    if (answers.join() !== "from a,from b") throw new Error(answers.join());
    const connections = () => [...a.node.getConnections(), ...b.node.getConnections()];
    while (connections().length !== 2) await sleep(2); // until the conn that was dialed in vain has gone
    if (connections()[0]?.direction === connections()[1]?.direction) throw new Error("each has its own");
    if (a.pool.stats().open !== 1 || b.pool.stats().open !== 1) throw new Error("a pool does not have it");
    a.pool.clear();
    b.pool.clear();
    while (connections().length > 0) await sleep(2);
  }
  await Promise.all(Array.from({ length: 100 }, (_, i) => a.echo(b.id, `call ${i}`)));
  console.log(`${rounds} times, with ${JSON.stringify(options)}, both nodes kept the same connection`);
  await Promise.all([a.pool.close(), b.pool.close()]);
  await Promise.all([a.node.stop(), b.node.stop()]);
}

// 20 times, with {}, both nodes kept the same connection
// 20 times, with {"maxKeyConns":1}, both nodes kept the same connection
