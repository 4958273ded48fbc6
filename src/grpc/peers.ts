import { type Channel, type ChannelCredentials, type ChannelOptions, status } from "@grpc/grpc-js";
import type { Dial } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import type { Pool } from "../pool/pool.ts";
import type { GrpcConn } from "./conn.ts";
import { dialGrpc, type GrpcDialOptions } from "./dial.ts";
import { checkChannelOptions, checkPool, PooledChannel, type PooledChannelOptions } from "./pooled-channel.ts";
import { GrpcError, messageOf } from "./status.ts";

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
    dial: Object.assign(dial, { maxStreams: options.maxStreams }),
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
      if (conn.credentials === credentials || !(conn.credentials._isSecure() || credentials._isSecure())) return;
      const details = "the pool's hashKey does not take in the credentials: make it with grpcPeers()";
      throw new GrpcError(status.FAILED_PRECONDITION, details);
    });
  };
}

/** A105's limit on what a service config may ask for. */
const cap = 10;

/** Limits of a pool, as `connectionScaling` finds them: both, or none. */
export interface ConnectionScaling {
  readonly maxKeyConns?: number;
  readonly maxKeyDials?: number;
}

/**
 * The limits that a service config asks for, in the words of gRPC's proposal A105, for a pool's options:
 * `new Pool({ dial: dialGrpc(credentials, channelOptions), ...connectionScaling(channelOptions) })`. Of
 * `{ connectionScaling: { maxConnectionsPerSubchannel: n } }` under `grpc.service_config` it makes `maxKeyConns: n`, at
 * most 10 (a `maxKeyConns` behind it raises that), and as many dials at once as A105 allows: one. Of channel options that
 * do not speak of it, nothing.
 *
 * What A105 leaves for later has names of the pool's own. Headroom: `minIdle: 1` keeps one more conn ready than the calls
 * need, and a `maxStreams` below the peer's limit leaves some of its streams free. A minimum: `minIdle`, too. Shrinking:
 * `expirationMs` with `selection: "newest"`, which keeps to few conns, so that the others go idle and expire
 * (`"oldest"` takes idle conns in turn, which keeps them all).
 *
 * Throws a `PoolTypeError` or `PoolRangeError` for a service config that is wrong.
 *
 * @see https://github.com/grpc/proposal/blob/master/A105-max-concurrent-streams-connection-scaling.md
 */
export function connectionScaling(channelOptions: ChannelOptions): ConnectionScaling {
  const config = channelOptions["grpc.service_config"];
  if (config === undefined) return {};
  const asked = Object(Object(parse(config)).connectionScaling).maxConnectionsPerSubchannel;
  if (asked === undefined) return {};
  if (!Number.isSafeInteger(asked) || asked < 1) {
    throw new PoolRangeError(`Expected \`maxConnectionsPerSubchannel\` to be an integer of at least 1, got ${asked}`);
  }
  return { maxKeyConns: Math.min(asked, cap), maxKeyDials: 1 };
}

function parse(config: string): unknown {
  try {
    return JSON.parse(config);
  } catch (cause) {
    throw new PoolTypeError(`Expected \`grpc.service_config\` to be JSON: ${messageOf(cause)}`, { cause });
  }
}
