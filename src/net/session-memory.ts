import type { ClientHttp2Session } from "node:http2";

/** Holds what it is told to until the next full garbage collection has been: nothing else refers to the targets. */
const untilCollection = new FinalizationRegistry<object>(() => {});

/**
 * Keeps Node's native part of a session for longer than those of its streams: until the first full garbage collection after
 * its end.
 *
 * A stream whose header block was not complete when it ended owns memory of its session. When Node collects the session
 * first, as a young-generation collection may, it aborts the process: "Assertion failed: (current_nghttp2_memory_) == (0)"
 * in `Http2Session::~Http2Session`. A peer brings that about at will, by a HEADERS frame that CONTINUATION frames follow
 * without end. Seen on Node 20.20.2 with `node:http2` alone.
 *
 * The native part is found among the session's own symbols, which is undocumented; where it is not, nothing is kept.
 *
 * @see https://github.com/nodejs/node/blob/v20.20.0/src/node_http2.cc (`Http2Session::~Http2Session`, `Http2Stream::AddHeader`)
 */
export function outliveStreams(session: ClientHttp2Session): void {
  const handle = handleOf(session);
  if (handle === undefined) return;
  session.once("close", () => {
    // Streams let go of their native parts in the turn after their end.
    setImmediate(() => setImmediate(() => untilCollection.register({}, handle)));
  });
}

function handleOf(session: ClientHttp2Session): object | undefined {
  const name = Object.getOwnPropertySymbols(session).find(({ description }) => description === "kHandle");
  const handle: unknown = name === undefined ? undefined : Reflect.get(session, name);
  return typeof handle === "object" && handle !== null ? handle : undefined;
}
