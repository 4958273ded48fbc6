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
  const addresses = /^(?:dns:(?:\/\/[^/]*\/)?|ipv[46]:)(.*)$/.exec(target)?.[1]?.split(",") ?? [];
  for (const address of addresses) {
    if (isIPv6(address)) continue;
    const parts = /^(?:[^\s:/[\]]+|\[[^\s[\]]+\])(?::(\d+))?$/.exec(address);
    if (parts === null) throw new PoolTypeError(`Expected the key to be a target such as "host:port", got "${target}"`);
    const port = Number(parts[1] ?? 443);
    if (port < 1 || port > 65_535) throw new PoolRangeError(`Expected a port from 1 to 65535, got "${target}"`);
  }
}
