import { type ChannelCredentials, type ChannelOptions, Client, credentials } from "@grpc/grpc-js";
import { Pool } from "rpc-conn-pool";
import { dialGrpc } from "rpc-conn-pool/grpc";
import { localhost } from "./certificate.ts";
import { echo, type Peer, streamLimit } from "./service.ts";

/** One way to make the same calls. */
export interface Contestant {
  readonly name: string;
  call(peer: Peer, request: Buffer): Promise<Buffer>;
  close(): Promise<void> | void;
}

const timeoutMs = 30_000;
const insecure = credentials.createInsecure();
const secure = credentials.createSsl(Buffer.from(localhost.certificate));

function credentialsFor(peer: Peer): ChannelCredentials {
  return peer.tls ? secure : insecure;
}

/** A call as grpc-js users make it. */
function unary(client: Client, request: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const { path, requestSerialize, responseDeserialize } = echo;
    const deadline = Date.now() + timeoutMs;
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, { deadline }, (error, response) => {
      if (error !== null || response === undefined) reject(error ?? new Error("no response"));
      else resolve(response);
    });
  });
}

// Otherwise grpc-js shares one connection among all clients of an address, and a new client dials nothing.
const ownConnection: ChannelOptions = { "grpc.use_local_subchannel_pool": 1 };

export function dialPerCall(): Contestant {
  return {
    name: "a dial per call",
    async call(peer, request) {
      const client = new Client(peer.address, credentialsFor(peer), ownConnection);
      try {
        return await unary(client, request);
      } finally {
        client.close();
      }
    },
    close() {},
  };
}

export function oneChannel(peers: readonly Peer[]): Contestant {
  const clients = new Map(
    peers.map((peer) => [peer, new Client(peer.address, credentialsFor(peer), ownConnection)] as const),
  );
  return {
    name: "one channel per server",
    async call(peer, request) {
      const client = clients.get(peer);
      if (client === undefined) throw new Error(`no client for ${peer.address}`);
      return unary(client, request);
    },
    close() {
      for (const client of clients.values()) client.close();
    },
  };
}

export function pooled(): Contestant {
  const pool = new Pool({ maxKeyConns: 10 });
  const dials = {
    plain: dialGrpc(insecure, {}, { maxStreams: streamLimit }),
    tls: dialGrpc(secure, {}, { maxStreams: streamLimit }),
  };
  return {
    name: "the pool",
    call(peer, request) {
      const conn = pool.get(peer.address, peer.tls ? dials.tls : dials.plain);
      return conn.invoke(echo, request, { timeoutMs });
    },
    close: () => pool.close(),
  };
}
