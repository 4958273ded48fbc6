import { isIPv4, isIPv6 } from "node:net";
import { show } from "../../argument.ts";
import { PoolRangeError, PoolTypeError } from "../../errors.ts";
import type { Address } from "../../net/address.ts";

/** A grpc-js target, read. */
export interface Target {
  readonly uri: { readonly scheme: string; readonly path: string };
  /** To be tried in turn. */
  readonly addresses: readonly Address[];
  /** What requests name as their server, unless an option says otherwise. */
  readonly authority: string;
}

const usualPort = 443;

/**
 * Reads `host:port`, `dns:host:port`, `dns:///host:port`, `ipv4:1.2.3.4:port,…`, `ipv6:[::1]:port,…`, `unix:path` and
 * `unix:///path`. Without a port: 443.
 *
 * @throws PoolTypeError or PoolRangeError, both `final`, for anything else.
 * @see https://github.com/grpc/grpc/blob/master/doc/naming.md
 */
export function parseTarget(key: unknown): Target {
  try {
    return parse(key);
  } catch (error) {
    throw Object.assign(Object(error), { final: true });
  }
}

function parse(key: unknown): Target {
  if (typeof key !== "string") throw new PoolTypeError(`Expected the key to be a target, got ${show(key)}`);
  const [, scheme = "dns", authority, rest = ""] =
    /^(?:(dns|ipv4|ipv6|unix):)?(?:\/\/([^/]*)\/)?(.*)$/s.exec(key) ?? [];
  if (scheme === "unix") {
    const path = authority === undefined ? rest : `/${rest}`;
    if (path === "" || authority) throw new PoolTypeError(`Expected a path behind \`unix:\`, got ${show(key)}`);
    return { uri: { scheme, path }, addresses: [{ path }], authority: "localhost" };
  }
  if (authority) {
    throw new PoolTypeError(`A DNS server of a target's own (${show(key)}) is not for dialGrpcHttp2: take dialGrpc`);
  }
  if (/^(?:xds|google-c2p|unix-abstract|vsock):/.test(key)) {
    throw new PoolTypeError(`Targets such as ${show(key)} are not for dialGrpcHttp2: take dialGrpc`);
  }
  const names = scheme === "dns" ? [rest] : rest.split(",");
  return {
    uri: { scheme, path: rest },
    addresses: names.map((name) => parseAddress(key, scheme, name)),
    authority: names[0] ?? rest,
  };
}

function parseAddress(key: string, scheme: string, name: string): Address {
  const [, v6, plain, digits] = /^(?:\[([^\s[\]]+)\]|([^\s:/[\]]+))(?::(\d+))?$/.exec(name) ?? [];
  const host = v6 ?? plain ?? (isIPv6(name) ? name : undefined);
  const fits = scheme === "ipv4" ? isIPv4 : scheme === "ipv6" || v6 !== undefined ? isIPv6 : () => true;
  if (host === undefined || !fits(host)) {
    throw new PoolTypeError(`Expected the key to be a target such as "host:port", got ${show(key)}`);
  }
  const port = Number(digits ?? usualPort);
  if (port < 1 || port > 65_535) throw new PoolRangeError(`Expected a port from 1 to 65535, got ${show(key)}`);
  return { host, port };
}
