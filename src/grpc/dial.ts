import { isIPv6 } from "node:net";
import {
  Channel,
  type ChannelCredentials,
  type ChannelInterface,
  type ChannelOptions,
  connectivityState,
  Metadata,
  type StatusObject,
} from "@grpc/grpc-js";
import { checkAtLeastOne, checkOptions, show } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { type DialRace, raceDial } from "../net/dial.ts";
import { longestDelayMs } from "../runtime/clock.ts";
import { GrpcConn } from "./conn.ts";
import { SocketTracking } from "./socket-tracking.ts";
import { GrpcError, messageOf } from "./status.ts";

/** Options of `dialGrpc`. */
export interface GrpcDialOptions {
  /**
   * How many RPCs may run on one conn at once, at least 1; zero and negative numbers are refused. It caps what the peer
   * allows in its SETTINGS, which a conn knows from the beginning and follows while it lives. Default: what the peer
   * allows, and 100 where it sets no limit, as servers commonly do.
   */
  readonly maxStreams?: number | undefined;
}

/**
 * How much a peer may send of one stream before it is read. Over a link of 20 ms large messages come at 20 MB/s, at 80 with 4 MiB and
 * at 2 with Node's own 64 KiB; a hundred streams that nobody reads hold 210 MB, and 430 with 4 MiB.
 */
export const windowBytes: number = 1 << 20;

/**
 * A dial function for gRPC peers: the keys are grpc-js targets (`host:port`, `dns:host:port`, `unix:path`).
 *
 * It resolves when the connection is READY. The first failure to connect (grpc-js would try for ever) rejects with
 * a `GrpcError` that names the cause, and an abort of the dial's signal with the signal's reason. Each conn has a TCP
 * connection of its own, so `grpc.use_local_subchannel_pool` is 1 whatever `channelOptions` say; unless they set
 * `grpc.client_idle_timeout_ms`, grpc-js leaves it to the pool to close idle conns.
 *
 * `grpc-node.flow_control_window` is 1 MiB, unless `channelOptions` say otherwise: how many bytes of a stream a peer may send
 * before they are read, and so what a stream that nobody reads holds. More is faster over long links (16 MiB: ten times the
 * speed of 1 MiB for large messages over 20 ms), less saves memory where many streams lag. `grpc.enable_channelz: 0` makes
 * calls 1.0 to 1.05 times as fast, and hides the conns from channelz; it is left to you.
 *
 * For a key that is no target the dial rejects with a `PoolTypeError` or `PoolRangeError`; its `final` is true, so that no pool
 * dials that key again by itself.
 *
 * @throws PoolTypeError or PoolRangeError for wrong arguments, at once.
 * @see https://github.com/grpc/grpc/blob/master/doc/naming.md
 */
export function dialGrpc(
  credentials: ChannelCredentials,
  channelOptions: ChannelOptions = {},
  options: GrpcDialOptions = {},
): Dial<string, GrpcConn> {
  checkOptions("the options of dialGrpc", options, ["maxStreams"]);
  const { maxStreams } = options;
  checkAtLeastOne("maxStreams", maxStreams);
  if (typeof channelOptions !== "object" || channelOptions === null) {
    throw new PoolTypeError(`expected the channel options to be an object, got ${show(channelOptions)}`);
  }
  const ownOptions: ChannelOptions = {
    "grpc-node.flow_control_window": windowBytes,
    "grpc.client_idle_timeout_ms": longestDelayMs,
    ...channelOptions,
    "grpc.use_local_subchannel_pool": 1,
  };
  // grpc-js checks its arguments when a channel is made; a channel that nobody asks to connect opens nothing.
  newChannel(() => new Channel("localhost:443", credentials, ownOptions)).close();
  const dial: Dial<string, GrpcConn> = async (key, { signal }) => {
    signal.throwIfAborted();
    const sockets = new SocketTracking(credentials);
    const channel = checkKey(() => newChannel(() => new Channel(key, sockets, ownOptions)));
    try {
      checkKey(() => checkTarget(channel.getTarget()));
      await raceDial<void>(undefined, { key, signal }, (race) => connect(channel, race));
    } catch (error) {
      sockets.close(channel);
      sockets.destroySockets();
      throw error;
    }
    return new GrpcConn(channel, sockets, maxStreams);
  };
  return Object.assign(dial, { maxStreams });
}

/** Waits until a channel is READY. Fails at its first failure. */
function connect(channel: ChannelInterface, race: DialRace<void>): void {
  // Once the dial is over, the channel may be closed, and asking a closed channel to connect reopens it.
  if (race.over) return;
  const state = channel.getConnectivityState(true);
  if (state === connectivityState.READY) race.done();
  else if (state === connectivityState.TRANSIENT_FAILURE) explain(channel, race.failed);
  else channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => connect(channel, race));
}

/** grpc-js tells the cause of a failure to calls only: one that it refuses at once, and never sends. */
function explain(channel: ChannelInterface, failed: (error: GrpcError) => void): void {
  const call = channel.createCall("/", Number.POSITIVE_INFINITY, null, null, null);
  call.start(new Metadata(), {
    onReceiveMetadata: () => {},
    onReceiveMessage: () => {},
    onReceiveStatus: ({ code, details, metadata }: StatusObject) => failed(new GrpcError(code, details, metadata)),
  });
}

/** Makes a grpc-js channel; what grpc-js says is wrong with its arguments is thrown as a `PoolTypeError`. */
export function newChannel<C extends Channel>(make: () => C): C {
  try {
    return make();
  } catch (cause) {
    throw new PoolTypeError(`grpc-js cannot make a channel of these arguments: ${messageOf(cause)}`, { cause });
  }
}

/** Runs a check of a key. What it throws is marked as final: to dial that key again is useless. */
export function checkKey<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw Object.assign(error as Error, { final: true });
  }
}

/** grpc-js takes any text for a DNS target, and any port for an IP address: that it cannot use them, it says later. */
export function checkTarget(target: string): void {
  const addresses = /^(?:dns:(?:\/\/[^/]*\/)?|ipv[46]:(?:\/\/\/)?)(.*)$/.exec(target)?.[1]?.split(",") ?? [];
  for (const address of addresses) {
    if (isIPv6(address)) continue;
    const parts = /^(?:[^\s:/[\]]+|\[[^\s[\]]+\])(?::(\d+))?$/.exec(address);
    if (parts === null) throw new PoolTypeError(`Expected the key to be a target such as "host:port", got "${target}"`);
    const port = Number(parts[1] ?? 443);
    if (port < 1 || port > 65_535) throw new PoolRangeError(`Expected a port from 1 to 65535, got "${target}"`);
  }
}
