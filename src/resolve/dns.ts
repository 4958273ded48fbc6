import * as dns from "node:dns/promises";
import { isIP } from "node:net";
import { checkFunction, checkOptions } from "../argument.ts";
import { PoolRangeError } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import type { Resolve } from "./resolve.ts";

/** One of the addresses of a name, as `dns.lookup` gives it. */
export interface HostAddress {
  readonly address: string;
  readonly family: number;
}

/** Options of `hostAddresses`. */
export interface HostAddressesOptions {
  /** 4 or 6: only addresses of that family. Default 0: the family of the name's first address. */
  readonly family?: 0 | 4 | 6 | undefined;
  /** Finds the addresses of a name. Default: `dns.lookup` with `all`, which knows search domains and the hosts file. */
  readonly lookup?: ((host: string) => PromiseLike<readonly HostAddress[]>) | undefined;
}

/**
 * Resolves keys of the form `host:port` to all addresses of the host, such as those of a headless service of Kubernetes. IP
 * addresses and `unix:path` stand for themselves. One family only, since most peers that have two are one and the same.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function hostAddresses(options: HostAddressesOptions = {}): Resolve<string> {
  checkOptions("hostAddresses' options", options, ["family", "lookup"]);
  const { family = 0, lookup = (host) => dns.lookup(host, { all: true, family }) } = options;
  checkFunction("lookup", lookup);
  if (family !== 0 && family !== 4 && family !== 6)
    throw new PoolRangeError("expected `family` to be 0 (that of the first address), 4 or 6");
  return async (key) => {
    const place = parseAddress(key);
    if ("path" in place || isIP(place.host) !== 0) return [key];
    const found = await lookup(place.host);
    const wanted = family === 0 ? found[0]?.family : family;
    return found
      .filter((one) => one.family === wanted)
      .map(({ address }) => `${isIP(address) === 6 ? `[${address}]` : address}:${place.port}`);
  };
}

/** A record of DNS that names a target and its port. */
export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
}

/** Options of `srvAddresses`. */
export interface SrvAddressesOptions {
  /** Finds the SRV records of a name. Default: `dns.resolveSrv`. */
  readonly resolveSrv?: ((name: string) => PromiseLike<readonly SrvRecord[]>) | undefined;
}

/**
 * Resolves keys that are names of SRV records, such as `_grpc._tcp.greeter.example.com`, to `target:port`. Only targets of
 * the best priority; weights are not looked at.
 *
 * @see https://www.rfc-editor.org/rfc/rfc2782
 * @throws PoolTypeError for wrong options, at once.
 */
export function srvAddresses(options: SrvAddressesOptions = {}): Resolve<string> {
  checkOptions("srvAddresses' options", options, ["resolveSrv"]);
  const { resolveSrv = (name) => dns.resolveSrv(name) } = options;
  checkFunction("resolveSrv", resolveSrv);
  return async (key) => {
    const records = await resolveSrv(key);
    const best = Math.min(...records.map(({ priority }) => priority));
    return records.filter(({ priority }) => priority === best).map(({ name, port }) => `${name}:${port}`);
  };
}
