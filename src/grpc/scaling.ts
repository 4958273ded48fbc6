import type { ChannelOptions } from "@grpc/grpc-js";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { messageOf } from "./status.ts";

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
