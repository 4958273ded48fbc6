import { DrpcError, type DrpcHandlers } from "../../src/drpc/index.ts";

/** A method whose messages are bytes, with the literal types that generated code has. */
function bytesMethod<Q extends boolean, S extends boolean>(name: string, requestStream: Q, responseStream: S) {
  const same = (bytes: Uint8Array): Uint8Array => bytes;
  return {
    path: `/test.Peer/${name}`,
    requestStream,
    responseStream,
    requestSerialize: same,
    requestDeserialize: (bytes: Buffer): Buffer => bytes,
    responseSerialize: same,
    responseDeserialize: (bytes: Buffer): Buffer => bytes,
  };
}

/** What the Go peer of the interop tests serves, too. */
export const peer = {
  echo: bytesMethod("Echo", false, false),
  /** Responds with the metadata as JSON. */
  metadata: bytesMethod("Metadata", false, false),
  /** Fails. Request: code, space, message. */
  fail: bytesMethod("Fail", false, false),
  /** Request: how many responses. */
  count: bytesMethod("Count", false, true),
  /** Responds with all requests joined. */
  collect: bytesMethod("CollectStream", true, false),
  /** Responds to each request with the same. */
  chat: bytesMethod("ChatStream", true, true),
  /** Responds once, then waits until it is cancelled. */
  hang: bytesMethod("Hang", false, true),
  /** How many `hang`s have been cancelled. */
  cancelled: bytesMethod("Cancelled", false, false),
};

export function peerHandlers(): DrpcHandlers<typeof peer> {
  let cancelled = 0;
  return {
    echo: (request) => request,
    metadata: (_, { metadata }) => Buffer.from(JSON.stringify(metadata)),
    fail: (request) => {
      const [code = "", message] = request.toString().split(/ (.*)/);
      throw new DrpcError(message ?? "", BigInt(code));
    },
    count: async function* (request) {
      for (let i = 0; i < Number(request); i++) yield Buffer.from(String(i));
    },
    collect: async (requests) => {
      const all: Buffer[] = [];
      for await (const request of requests) all.push(request);
      return Buffer.concat(all);
    },
    chat: (requests) => requests,
    hang: async function* (_, { signal }) {
      try {
        yield Buffer.from("hanging");
        if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      } finally {
        cancelled++;
      }
    },
    cancelled: () => Buffer.from(String(cancelled)),
  };
}
