import { type Channel, type ChannelCredentials, type ChannelOptions, status } from "@grpc/grpc-js";
import type { Dial } from "../contract.ts";
import { usualMaxStreams } from "../net/http2.ts";
import type { Pool } from "../pool/pool.ts";
import type { GrpcConn } from "./conn.ts";
import { dialGrpc, type GrpcDialOptions } from "./dial.ts";
import { checkChannelOptions, checkPool, PooledChannel, type PooledChannelOptions } from "./pooled-channel.ts";
import { type ConnectionScaling, connectionScaling } from "./scaling.ts";
import { GrpcError } from "./status.ts";

/** A key that says all that decides who is on the other end. */
export interface GrpcPeer {
  /** A grpc-js target, such as `host:port`. */
  readonly address: string;
  readonly credentials: ChannelCredentials;
  readonly options?: ChannelOptions | undefined;
}

/** The options that a pool of `GrpcPeer`s needs. */
export interface GrpcPeers {
  readonly hashKey: (peer: GrpcPeer) => string;
  readonly dial: Dial<GrpcPeer, GrpcConn>;
  readonly limits: (peer: GrpcPeer) => ConnectionScaling;
}

/**
 * What makes a pool one of `GrpcPeer`s: `new Pool({ ...grpcPeers(), maxKeyConns: 10 })`. Peers share conns where
 * address, options and credentials are the same; two credentials are the same when they are one object, or both
 * insecure. What the `connectionScaling` of a peer's service config asks for goes before the pool's own limits.
 */
export function grpcPeers(options: GrpcDialOptions = {}): GrpcPeers {
  const identities = new WeakMap<ChannelCredentials, number>();
  let last = 0;
  function identity(credentials: ChannelCredentials): number {
    if (!credentials._isSecure()) return 0;
    const known = identities.get(credentials) ?? ++last;
    identities.set(credentials, known);
    return known;
  }
  const dial: Dial<GrpcPeer, GrpcConn> = (peer, context) =>
    dialGrpc(peer.credentials, peer.options, options)(peer.address, context);
  return {
    hashKey({ address, credentials, options = {} }) {
      const names = Object.keys(options).sort();
      return JSON.stringify([address, identity(credentials), names.map((name) => [name, options[name]])]);
    },
    limits: ({ options = {} }) => connectionScaling(options),
    dial: Object.assign(dial, { maxStreams: options.maxStreams ?? usualMaxStreams }),
  };
}

/**
 * A `channelFactoryOverride` for generated clients, so that address and credentials are given once:
 * `new GreeterClient(address, credentials, { channelFactoryOverride: pooledChannels(pool) })`.
 *
 * The pool's keys must take in the credentials, as those of `grpcPeers()` do: a call that would run on a connection
 * made with others fails with FAILED_PRECONDITION.
 */
export function pooledChannels(
  pool: Pool<GrpcPeer, GrpcConn>,
  options: PooledChannelOptions = {},
): (address: string, credentials: ChannelCredentials, options: ChannelOptions) => Channel {
  checkPool(pool);
  const { retryUnsent } = checkChannelOptions(options);
  return (address, credentials, channelOptions) => {
    connectionScaling(channelOptions); // throws here rather than at the first call
    const peer: GrpcPeer = { address, credentials, options: channelOptions };
    return new PooledChannel(pool, peer, address, retryUnsent, (conn) => {
      if (conn.isDialedWith(credentials)) return;
      const details = "the pool's hashKey does not take in the credentials: make it with grpcPeers()";
      throw new GrpcError(status.FAILED_PRECONDITION, details);
    });
  };
}
