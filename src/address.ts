import { isIP } from "node:net";
import { DialError } from "./errors.ts";

/** Where to connect. `host` is also the name that a certificate has to carry. */
export type Address = { readonly host: string; readonly port: number } | { readonly path: string };

/**
 * Reads `host:port`, `[v6]:port` or `unix:path`.
 *
 * @throws DialError with `final: true` for anything else: dialing it again is useless.
 */
export function parseAddress(key: string): Address {
  if (typeof key !== "string") throw unusable(String(key), `Expected a string, got ${typeof key}`);
  if (key.startsWith("unix:")) {
    const path = key.slice("unix:".length);
    if (path === "") throw unusable(key, "there is no path after `unix:`");
    return { path };
  }
  const [, v6, name, digits] = /^(?:\[([^\]]*)\]|([^:[\]\s/]+)):(\d{1,5})$/.exec(key) ?? [];
  const host = v6 ?? name;
  const port = Number(digits);
  if (host === undefined) throw unusable(key, "expected `host:port`, `[v6]:port` or `unix:path`");
  if (v6 !== undefined && isIP(v6) !== 6) throw unusable(key, "there is no IPv6 address in the brackets");
  if (port < 1 || port > 65535) throw unusable(key, "the port must be from 1 to 65535");
  return { host, port };
}

function unusable(key: string, why: string): DialError {
  return new DialError(`cannot dial ${JSON.stringify(key)}: ${why}`, { final: true });
}
