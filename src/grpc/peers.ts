import { type Channel, type ChannelCredentials, type ChannelOptions, credentials, status } from "@grpc/grpc-js";
import { checkAtLeastOne, checkFunction, checkOptions } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import type { Backoff } from "../options.ts";
import type { Pool } from "../pool/pool.ts";
import type { GrpcConn } from "./conn.ts";
import { grpcBackoff } from "./connectivity.ts";
import { dialGrpc, type GrpcDialOptions } from "./dial.ts";
import {
  type ChannelConn,
  checkChannelOptions,
  checkPool,
  PooledChannel,
  type PooledChannelOptions,
} from "./pooled-channel.ts";
import { GrpcError, messageOf } from "./status.ts";

/** A key that says all that decides who is on the other end. */
export interface GrpcPeer {
  /** A grpc-js target, such as `host:port`. */
  readonly address: string;
  readonly credentials: ChannelCredentials;
  readonly options?: ChannelOptions | undefined;
}

/** What makes dial functions of credentials: `dialGrpc`, `dialGrpcHttp2`, or one that wraps them. */
export type GrpcDialer<C extends ChannelConn> = (
  credentials: ChannelCredentials,
  channelOptions?: ChannelOptions,
  options?: GrpcDialOptions,
) => Dial<string, C>;

/** Options of `grpcPeers`. All are optional; unknown names are refused. */
export interface GrpcPeersOptions<C extends ChannelConn = GrpcConn> extends GrpcDialOptions {
  /** Default: `dialGrpc`. */
  readonly dial?: GrpcDialer<C> | undefined;
}

/** The options that a pool of `GrpcPeer`s needs. */
export interface GrpcPeers<C extends ChannelConn = GrpcConn> {
  readonly hashKey: (peer: GrpcPeer) => string;
  readonly dial: Dial<GrpcPeer, C>;
  readonly limits: (peer: GrpcPeer) => ConnectionScaling;
  readonly backoff: Backoff;
}

/**
 * What makes a pool one of `GrpcPeer`s: `new Pool({ ...grpcPeers(), maxKeyConns: 10 })`. Peers share conns where
 * address, options and credentials are known to be the same. Two credentials are, when they are one object, or both
 * grpc-js' own insecure ones; two options, when they are the same primitive, the same plain data, or one object. What the
 * `connectionScaling` of a peer's service config asks for goes before the pool's own limits. Peers that are down
 * are dialed at gRPC's pace; a `backoff` behind it sets another.
 *
 * `grpcPeers({ dial: dialGrpcHttp2 })` makes conns without grpc-js' channels.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function grpcPeers(options?: GrpcPeersOptions): GrpcPeers;
export function grpcPeers<C extends ChannelConn>(
  options: GrpcPeersOptions<C> & { readonly dial: GrpcDialer<C> },
): GrpcPeers<C>;
export function grpcPeers({
  dial: dialer = dialGrpc,
  ...options
}: GrpcPeersOptions<ChannelConn> = {}): GrpcPeers<ChannelConn> {
  checkOptions("the options of grpcPeers", options, ["maxStreams"]);
  checkFunction("dial", dialer);
  const { maxStreams } = options;
  checkAtLeastOne("maxStreams", maxStreams);
  const identities = new Identities();
  const hashes = new WeakMap<GrpcPeer, string>();
  const dial: Dial<GrpcPeer, ChannelConn> = (peer, context) =>
    dialer(peer.credentials, peer.options, options)(peer.address, context);
  function hash({ address, credentials, options = {} }: GrpcPeer): string {
    const who = isPlainInsecure(credentials) ? "insecure" : identities.of(credentials);
    return `${JSON.stringify(address)} ${who} ${identities.of({ ...options })}`;
  }
  return {
    hashKey(peer) {
      if (!Object.isFrozen(peer) || !Object.isFrozen(peer.options)) return hash(peer);
      const known = hashes.get(peer) ?? hash(peer);
      hashes.set(peer, known);
      return known;
    },
    limits: ({ options = {} }) => connectionScaling(options),
    dial: Object.assign(dial, { maxStreams }),
    backoff: grpcBackoff,
  };
}

/** Whether these are what `credentials.createInsecure()` returns. Wrappers of it may connect in another way. */
function isPlainInsecure(given: ChannelCredentials): boolean {
  return Object.getPrototypeOf(given) === insecurePrototype && Reflect.ownKeys(given).length === 0;
}

const insecurePrototype: unknown = Object.getPrototypeOf(credentials.createInsecure());

/** So deep is plain data compared; what lies deeper counts as different. */
const deepest = 8;

/** Texts that are equal for values that are known to be the same, and differ for all others. */
class Identities {
  readonly #objects = new WeakMap<object, string>();
  readonly #symbols = new Map<symbol, string>();
  #last = 0;

  of(value: unknown, depth = 0): string {
    switch (typeof value) {
      case "string":
        return JSON.stringify(value);
      case "number":
        return Object.is(value, -0) ? "-0" : String(value);
      case "bigint":
        return `${value}n`;
      case "symbol":
        return this.#symbol(value);
      case "object":
      case "function":
        return value === null ? "null" : (this.#plain(value, depth) ?? this.#object(value));
      default:
        return String(value);
    }
  }

  #plain(value: object, depth: number): string | undefined {
    if (depth > deepest || typeof value === "function") return undefined;
    if (Array.isArray(value)) return `[${Array.from(value, (each) => this.of(each, depth + 1)).join()}]`;
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return undefined;
    const names = Object.keys(value).sort();
    const texts = names.map((name) => `${JSON.stringify(name)}:${this.of(Reflect.get(value, name), depth + 1)}`);
    return `{${texts.join()}}`;
  }

  #object(value: object): string {
    const known = this.#objects.get(value) ?? `#${++this.#last}`;
    this.#objects.set(value, known);
    return known;
  }

  #symbol(value: symbol): string {
    const known = this.#symbols.get(value) ?? `#${++this.#last}`;
    this.#symbols.set(value, known);
    return known;
  }
}

/**
 * A `channelFactoryOverride` for generated clients, so that address and credentials are given once:
 * `new GreeterClient(address, credentials, { channelFactoryOverride: pooledChannels(pool) })`.
 *
 * The pool's keys must take in the credentials, as those of `grpcPeers()` do: a call that would run on a connection
 * made with others fails with FAILED_PRECONDITION.
 */
export function pooledChannels<C extends ChannelConn>(
  pool: Pool<GrpcPeer, C>,
  options: PooledChannelOptions = {},
): (address: string, credentials: ChannelCredentials, options: ChannelOptions) => Channel {
  checkPool(pool);
  const { retryUnsent } = checkChannelOptions(options);
  return (address, given, channelOptions) => {
    connectionScaling(channelOptions); // throws here rather than at the first call
    const own = Object.freeze({ ...channelOptions });
    const peer: GrpcPeer = Object.freeze({ address, credentials: given, options: own });
    return new PooledChannel(pool, peer, address, retryUnsent, (conn) => {
      if (conn.credentials === given || (isPlainInsecure(conn.credentials) && isPlainInsecure(given))) return;
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
 * @throws PoolTypeError or PoolRangeError for a service config that is wrong.
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
