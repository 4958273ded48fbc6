import { isIP, type Socket } from "node:net";
import { type ConnectionOptions, createSecureContext } from "node:tls";
import { DialError } from "../errors.ts";

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

/** Options of Node's `tls.connect` that say whom to trust and who to be. Where to connect, the key says. */
export type TlsOptions = Omit<
  ConnectionOptions,
  "host" | "port" | "path" | "socket" | "lookup" | "timeout" | "allowHalfOpen" | "pskCallback"
>;

/** As Go's net.Dialer: so long after the last byte the first probe asks whether the peer is still there. */
const keepAliveMs = 15_000;

/** Reads certificates and keys once, so that bad ones show at once and no dial pays for it. */
export function withContext(tls: TlsOptions): TlsOptions {
  return tls.secureContext === undefined ? { ...tls, secureContext: createSecureContext(tls) } : tls;
}

/** The server name of TLS must not be an IP address; Node then compares the certificate with `host`. */
export function withName(address: Address, { servername }: TlsOptions): Address & { servername?: string } {
  if (servername !== undefined || "path" in address || isIP(address.host) !== 0) return address;
  return { ...address, servername: address.host };
}

/** What is sent goes at once, and a peer that has vanished is noticed. */
export function tune(socket: Socket, address: Address): void {
  if ("port" in address) socket.setNoDelay(true).setKeepAlive(true, keepAliveMs);
}
