import { isIPv6 } from "node:net";
import type { Channel } from "@grpc/grpc-js";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { messageOf } from "./status.ts";

/** Makes a grpc-js channel; what grpc-js says is wrong with its arguments is thrown as a `PoolTypeError`. */
export function newChannel<C extends Channel>(make: () => C): C {
  try {
    return make();
  } catch (cause) {
    throw new PoolTypeError(`grpc-js cannot make a channel of these arguments: ${messageOf(cause)}`, { cause });
  }
}

/** grpc-js takes any text for a DNS target, and only says later that it cannot use it. */
export function checkTarget(target: string): void {
  const address = /^dns:(?:\/\/[^/]*\/)?(.*)$/.exec(target)?.[1];
  if (address === undefined || isIPv6(address)) return;
  const parts = /^(?:[^\s:/[\]]+|\[[^\s[\]]+\])(?::(\d+))?$/.exec(address);
  if (parts === null) throw new PoolTypeError(`Expected the key to be a target such as "host:port", got "${target}"`);
  const port = Number(parts[1] ?? 443);
  if (port < 1 || port > 65_535) throw new PoolRangeError(`Expected a port from 1 to 65535, got "${target}"`);
}
