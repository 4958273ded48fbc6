import type { TestContext } from "node:test";
import type { PoolConn } from "../../src/contract.ts";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { until } from "./clock.ts";
import {
  ErrorCode,
  FrameType,
  grpcMessage,
  type HostileConn,
  HostileHttp2,
  type Manners,
  responseHeaders,
} from "./hostile-http2.ts";

/** What a hostile server does to each of its connections; `index` counts them from 0. */
export type Hostility = (conn: HostileConn, index: number) => void;

/** Options of the pool, and the manners of the server that it faces. */
export type FacingOptions<C extends PoolConn> = PoolOptions<string, C> & { readonly manners?: Manners };

/** A hostile server, and a pool that calls it; both are closed when the test ends. */
export async function hostilePool<C extends PoolConn>(
  t: TestContext,
  hostility: Hostility,
  { manners, ...options }: FacingOptions<C>,
) {
  const server = await HostileHttp2.start(hostility, manners);
  const pool = new Pool<string, C>(options);
  t.after(async () => {
    await pool.close({ graceMs: 0 });
    await server[Symbol.asyncDispose]();
  });
  const free = () => until(() => pool.stats().streams === 0 && pool.stats().waiting === 0, "all slots are free");
  return { server, pool, free };
}

/** Answers each call properly. */
export const wellBehaved: Hostility = (conn) => {
  conn.onRequest = (stream) => void conn.respond(stream);
};

/**
 * The negative cases of gRPC's interoperability tests.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/negative-http2-interop-test-descriptions.md
 */
export const negative = {
  /** GOAWAY behind the first answer: the next call needs another connection. */
  goaway: (conn: HostileConn) => {
    conn.onRequest = (stream) => void conn.together(() => conn.respond(stream).goaway(stream));
  },
  /** The stream is reset behind the headers. */
  rstAfterHeader: (conn: HostileConn) => {
    conn.onRequest = (stream) => {
      conn.together(() => conn.headers(stream, responseHeaders).rst(stream, ErrorCode.noError));
    };
  },
  /** The stream is reset in the middle of a message. */
  rstDuringData: (conn: HostileConn) => {
    conn.onRequest = (stream) => {
      const half = grpcMessage("half a message").subarray(0, 9);
      conn.together(() => conn.headers(stream, responseHeaders).data(stream, half).rst(stream, ErrorCode.noError));
    };
  },
  /** The stream is reset behind the whole message, without a status. */
  rstAfterData: (conn: HostileConn) => {
    conn.onRequest = (stream) => {
      const whole = grpcMessage("whole");
      conn.together(() => conn.headers(stream, responseHeaders).data(stream, whole).rst(stream, ErrorCode.noError));
    };
  },
  /** A PING before and behind each frame; the client has to answer them. */
  ping: (conn: HostileConn) => {
    conn.onRequest = (stream) => {
      conn.ping().headers(stream, responseHeaders).ping().data(stream, grpcMessage("")).ping();
      conn.headers(stream, { "grpc-status": "0" }, { end: true }).ping();
    };
  },
  /** After the first answer, one stream at a time. */
  maxStreams: (conn: HostileConn) => {
    conn.onRequest = (stream) => {
      const first = stream === 1;
      // A call of the second wave is held for a while: a client that does not obey would open another meanwhile.
      if (first) conn.together(() => conn.settings({ maxConcurrentStreams: 1 }).respond(stream));
      else setTimeout(() => conn.respond(stream), 5);
    };
  },
  /**
   * DATA with padding, as much as fits and none: the client counts it for flow control and drops it. The message is a
   * protobuf one, with a text in its field 1.
   */
  padding: (conn: HostileConn) => {
    let padding = 0;
    conn.onRequest = (stream) => {
      conn.respond(stream, ["\n\u0006padded"], 0, padding);
      padding = (padding + 51) % 256;
    };
  },
} satisfies Record<string, Hostility>;

/** Answers calls until `count` of them have come; says GOAWAY then, and never sees those above the one in the middle. */
export function goawayInMidBurst(count: number): Hostility {
  return (conn, index) => {
    if (index > 0) return wellBehaved(conn, index);
    const streams: number[] = [];
    conn.onRequest = (stream) => {
      if (streams.push(stream) !== count) return;
      const last = streams[Math.floor(count / 2)] ?? 0;
      conn.together(() => {
        conn.goaway(last);
        for (const each of streams) if (each <= last) conn.respond(each);
      });
    };
  };
}

/** Refuses streams, and serves only each `nth`. */
export function refusesAllBut(nth: number): Hostility {
  let count = 0;
  return (conn) => {
    conn.onRequest = (stream) => {
      if (++count % nth === 0) conn.respond(stream);
      else conn.rst(stream, ErrorCode.refusedStream);
    };
  };
}

/** Allows no stream at first (give it `noStreams` as manners), and `limit` after `ms`. */
export function raisesFromZero(limit: number, ms: number): Hostility {
  return (conn) => {
    wellBehaved(conn, 0);
    setTimeout(() => conn.settings({ maxConcurrentStreams: limit }), ms);
  };
}

export const noStreams: Manners = { settings: { maxConcurrentStreams: 0 } };

/** Lowers its limit by one with each answer, down to `least`; each answer takes `ms`. */
export function shrinks(from: number, least: number, ms: number): Hostility {
  return (conn) => {
    let limit = from;
    conn.settings({ maxConcurrentStreams: limit });
    conn.onRequest = (stream) => {
      setTimeout(() => {
        if (limit > least) conn.settings({ maxConcurrentStreams: --limit });
        conn.respond(stream);
      }, ms);
    };
  };
}

/** Resets each stream as soon as it opens, and once more when it is over. */
export const resetsAll: Hostility = (conn) => {
  conn.onHeaders = (stream) => {
    conn.together(() => conn.rst(stream, ErrorCode.cancel).rst(stream, ErrorCode.cancel));
  };
};

/** Leaves after each `calls` calls: the orderly way (GOAWAY, then the end) or by cutting the connection. */
export function leavesAfter(calls: number, how: "goaway" | "cut"): Hostility {
  return (conn) => {
    let count = 0;
    conn.onRequest = (stream) => {
      conn.respond(stream);
      if (++count < calls) return;
      if (how === "goaway") conn.goaway(stream);
      conn.socket.end();
    };
  };
}

/** Sends DATA on a stream that it has ended. */
export const dataAfterEnd: Hostility = (conn) => {
  conn.onRequest = (stream) => {
    conn.together(() => conn.respond(stream).data(stream, grpcMessage("late"), { end: true }));
  };
};

/** Sends something other than HTTP/2 in the middle of a response. */
export const garbage: Hostility = (conn) => {
  conn.onRequest = (stream) => {
    conn.together(() => conn.headers(stream, responseHeaders).frame(FrameType.data, 0, 0, Buffer.from("of no stream")));
  };
};
