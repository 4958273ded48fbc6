import { createHash } from "node:crypto";
import { isUint8Array } from "node:util/types";
import type { Dial } from "../contract.ts";
import type { TlsOptions } from "./address.ts";
import type { Http2Conn } from "./http2.ts";
import { dialHttp2, type Http2DialOptions, parseOrigin } from "./http2-dial.ts";

/** A key that says all that decides who is on the other end, and who it takes this side for. */
export interface Http2Peer {
  /** `http://host:port` or `https://host:port`. */
  readonly origin: string;
  /** Whom to trust and who to be: `ca`, `cert`, `key`…. Read once for each object. Default: what `http2Peers` was told. */
  readonly tls?: TlsOptions | undefined;
}

/** The options that a pool of `Http2Peer`s needs. */
export interface Http2Peers {
  readonly hashKey: (peer: Http2Peer) => string;
  readonly dial: Dial<Http2Peer, Http2Conn>;
}

/**
 * What makes a pool one of `Http2Peer`s: `new Pool({ ...http2Peers(), maxKeyConns: 10 })`. Peers share conns where origin
 * and TLS options are the same. TLS options are the same when they are one object, or when each of them is: texts, bytes,
 * numbers and lists by what they contain, everything else by being one object. No key shows a certificate: a digest stands
 * for the options.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function http2Peers(options: Http2DialOptions = {}): Http2Peers {
  const shared = dialHttp2(options);
  const digests = new WeakMap<TlsOptions, string>();
  const dials = new WeakMap<TlsOptions, Dial<string, Http2Conn>>();
  const identities = new Identities();

  const dialOf = (tls: TlsOptions | undefined): Dial<string, Http2Conn> => {
    if (tls === undefined) return shared;
    const dial = dials.get(tls) ?? dialHttp2({ ...options, tls: { ...options.tls, ...tls } });
    dials.set(tls, dial);
    return dial;
  };
  const dial: Dial<Http2Peer, Http2Conn> = async ({ origin, tls }, context) => dialOf(tls)(origin, context);
  return {
    hashKey({ origin, tls }) {
      const { protocol, origin: name } = parseOrigin(origin);
      if (tls === undefined || protocol === "http:") return name;
      const digest = digests.get(tls) ?? identities.digest(tls);
      digests.set(tls, digest);
      return `${name} as ${digest}`;
    },
    dial: Object.assign(dial, { maxStreams: shared.maxStreams }),
  };
}

/** Tells values apart: by what they contain where that says all, else by being one object. */
class Identities {
  readonly #numbers = new WeakMap<object, number>();
  #last = 0;

  digest(tls: TlsOptions): string {
    const named = Object.entries(tls)
      .filter(([, value]) => value !== undefined)
      .sort(([one], [other]) => (one < other ? -1 : 1));
    const hash = createHash("sha256");
    for (const [name, value] of named) hash.update(`${name.length}:${name}`).update(this.#describe(value));
    return hash.digest("base64url");
  }

  /** No two different values have the same text: each says its kind and its length. */
  #describe(value: unknown): string {
    if (typeof value === "string") return `text ${value.length}:${value}`;
    if (isUint8Array(value)) return `bytes ${value.length}:${Buffer.from(value).toString("base64")}`;
    if (Array.isArray(value)) return `list ${value.length}:${value.map((each) => this.#describe(each)).join("")}`;
    if ((typeof value === "object" && value !== null) || typeof value === "function") {
      const number = this.#numbers.get(value) ?? ++this.#last;
      this.#numbers.set(value, number);
      return `object ${number};`;
    }
    if (typeof value === "symbol") return `symbol ${++this.#last};`; // unknown means different
    return `${typeof value} ${Object.is(value, -0) ? "-0" : String(value)};`;
  }
}
