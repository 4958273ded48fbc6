import { type ClientSessionOptions, connect } from "node:http2";
import type { LookupFunction, Socket } from "node:net";
import { checkAtLeastOne, checkFunction, checkObject, checkOptions, show } from "../argument.ts";
import type { Dial } from "../contract.ts";
import { DialError, PoolTypeError } from "../errors.ts";
import { type Address, parseAddress, type TlsOptions, withContext } from "./address.ts";
import { connectSocket, type DialLimits, raceDial } from "./dial.ts";
import { Http2Conn, type Http2ConnOptions, usualMaxStreams } from "./http2.ts";

/** Options of `dialHttp2`; all are optional, unknown names are refused. */
export interface Http2DialOptions extends Http2ConnOptions {
  /** Options of Node's `tls.connect` that say whom to trust and who to be, for `https:` keys. */
  readonly tls?: TlsOptions | undefined;
  /** Options of Node's `http2.connect`. */
  readonly session?: ClientSessionOptions | undefined;
  /** Finds the addresses of a name. Default: Node's `dns.lookup`. */
  readonly lookup?: LookupFunction | undefined;
}

/**
 * A dial function for HTTP/2 peers: the keys are origins, `http://host:port` or `https://host:port`, or `unix:path` for
 * HTTP/2 without TLS over a Unix socket. TLS offers `h2` by ALPN; an IP address is never sent as the server's name. It
 * resolves when the peer's settings have come, and rejects with what the socket or the session failed with. For another
 * key it rejects with an error that is `final`.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function dialHttp2(options: Http2DialOptions = {}): Dial<string, Http2Conn> {
  checkOptions("dialHttp2's options", options, ["tls", "session", "maxStreams", "tags", "lookup"]);
  const { tls, session, maxStreams, tags, lookup } = options;
  checkObject("tls", tls);
  checkObject("session", session);
  checkAtLeastOne("maxStreams", maxStreams);
  checkObject("tags", tags);
  checkFunction("lookup", lookup);
  const secure = withAlpn(withContext(tls ?? {}));
  const dial = async (key: string, { signal }: { signal: AbortSignal }): Promise<Http2Conn> => {
    const { address, encrypted, authority } = parseKey(key);
    signal.throwIfAborted();
    const socket = connectSocket(address, { tls: encrypted ? secure : undefined, lookup });
    return openHttp2(socket, { key, signal, authority, session, maxStreams, tags });
  };
  return Object.assign(dial, { maxStreams: maxStreams ?? usualMaxStreams });
}

/** How to open a session on a socket. */
export interface Http2OpenOptions extends Http2ConnOptions, DialLimits {
  /** `http://host:port` or `https://host:port`: whom the streams ask, unless their headers say otherwise. */
  readonly authority: string;
  /** Options of Node's `http2.connect`. */
  readonly session?: ClientSessionOptions | undefined;
}

/**
 * Opens an HTTP/2 session on a socket that is connected or still connects, and resolves when the peer's settings have
 * come: until then Node shows a placeholder of 100 streams. What fails destroys the socket.
 */
export function openHttp2(socket: Socket, options: Http2OpenOptions): Promise<Http2Conn> {
  const { authority, session: sessionOptions } = options;
  return raceDial(socket, options, ({ done, failed }) => {
    const session = connect(authority, {
      ...sessionOptions,
      // Nobody would read what a peer pushes.
      settings: { enablePush: false, ...sessionOptions?.settings },
      createConnection: () => socket,
    });
    // In the event itself: what the peer sends right behind its settings (a GOAWAY, say) must find the conn listening.
    session.once("remoteSettings", () => done(new Http2Conn(session, socket, options)));
    session.on("error", failed);
    session.once("close", () => failed(new DialError(`${options.key} hung up before it spoke HTTP/2`)));
  });
}

/** TLS for HTTP/2: offers nothing else. */
export function withAlpn(tls: TlsOptions): TlsOptions {
  return { ...tls, ALPNProtocols: ["h2"] };
}

interface Destination {
  readonly address: Address;
  readonly encrypted: boolean;
  readonly authority: string;
}

function parseKey(key: string): Destination {
  if (typeof key === "string" && key.startsWith("unix:")) {
    return { address: parseAddress(key), encrypted: false, authority: "http://localhost" };
  }
  const { protocol, hostname, port, origin } = parseOrigin(key);
  const encrypted = protocol === "https:";
  const host = hostname.replace(/^\[|\]$/g, "");
  return { address: { host, port: Number(port || (encrypted ? 443 : 80)) }, encrypted, authority: origin };
}

/**
 * Reads `http://host:port` or `https://host:port`.
 *
 * @throws PoolTypeError with `final: true` for anything else: dialing it again is useless.
 */
export function parseOrigin(key: string): URL {
  const url = URL.canParse(key) ? new URL(key) : undefined;
  if (url?.protocol === "http:" || url?.protocol === "https:") return url;
  const expected = "expected an origin such as `https://host:port`";
  throw Object.assign(new PoolTypeError(`${expected}, got ${show(key)}`), { final: true });
}
