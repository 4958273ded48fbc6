import assert from "node:assert/strict";
import { constants, type ServerHttp2Stream } from "node:http2";
import { describe, test } from "node:test";
import { credentials, Metadata, status } from "@grpc/grpc-js";
import { dialGrpcHttp2, type GrpcHttp2Conn } from "../../src/grpc/index.ts";
import { echoService } from "../support/echo-service.ts";
import { rejection } from "../support/outcome.ts";
import { frame, startRaw } from "../support/raw-grpc.ts";

const { unary } = echoService;
const grpc = { ":status": 200, "content-type": "application/grpc+json" };

function open(address: string): Promise<GrpcHttp2Conn> {
  return Promise.resolve(
    dialGrpcHttp2(credentials.createInsecure())(address, { signal: new AbortController().signal }),
  );
}

/** Answers with a message, and ends with these trailers. */
function trailers(fields: Record<string, string | string[]>, header: Record<string, string | number> = grpc) {
  return (stream: ServerHttp2Stream): void => {
    stream.respond(header, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers(fields));
    stream.end(frame('{"text":"x"}'));
  };
}

function only(fields: Record<string, string | number>) {
  return (stream: ServerHttp2Stream): void => stream.respond(fields, { endStream: true });
}

type Outcome = readonly [answer: (stream: ServerHttp2Stream) => void, code: status, details: string | RegExp];

const outcomes: Record<string, Outcome> = {
  "trailers with a status": [trailers({ "grpc-status": "5", "grpc-message": "gone" }), status.NOT_FOUND, "gone"],
  "a message in percent encoding": [
    trailers({ "grpc-status": "3", "grpc-message": "%23 caf%C3%A9 %E4%BD%A0 100%25" }),
    status.INVALID_ARGUMENT,
    "# café 你 100%",
  ],
  "a message whose encoding is broken": [
    trailers({ "grpc-status": "3", "grpc-message": "100% %zz caf%C3%A9" }),
    status.INVALID_ARGUMENT,
    "100% %zz café",
  ],
  "a status that is no number": [trailers({ "grpc-status": "five" }), status.UNKNOWN, /five/],
  "a status that nobody knows": [trailers({ "grpc-status": "77", "grpc-message": "?" }), status.UNKNOWN, /77/],
  "trailers without a status": [trailers({ "x-a": "b" }), status.UNKNOWN, /No status/],
  "nothing but trailers": [
    only({ ...grpc, "grpc-status": "16", "grpc-message": "who" }),
    status.UNAUTHENTICATED,
    "who",
  ],
  "nothing but a header": [only(grpc), status.UNKNOWN, /No status/],
  "an OK without a message": [only({ ...grpc, "grpc-status": "0" }), status.UNIMPLEMENTED, /No message/],
  "a page of HTML": [
    (stream) => {
      stream.respond({ ":status": 200, "content-type": "text/html" });
      stream.end("<html>");
    },
    status.UNKNOWN,
    'Expected content-type application/grpc, got "text/html"',
  ],
  "no content-type": [(stream) => stream.respond({ ":status": 200 }), status.UNKNOWN, /got none/],
  "a gRPC status behind an HTTP error": [
    trailers({ "grpc-status": "7", "grpc-message": "no" }, { ...grpc, ":status": 500 }),
    status.PERMISSION_DENIED,
    "no",
  ],
  "a stream that ends without trailers": [
    (stream) => {
      stream.respond(grpc);
      stream.end(frame('{"text":"x"}'));
    },
    status.INTERNAL,
    /Call ended without gRPC status/,
  ],
  "a stream that ends inside a message": [
    (stream) => {
      stream.respond(grpc, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(frame('{"text":"x"}').subarray(0, 9));
    },
    status.INTERNAL,
    /inside a message/,
  ],
  "two messages for one": [
    (stream) => {
      stream.respond(grpc, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(Buffer.concat([frame('{"text":"x"}'), frame('{"text":"y"}')]));
    },
    status.UNIMPLEMENTED,
    /Too many/,
  ],
};

// https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
for (const [http, code] of [
  [400, status.INTERNAL],
  [401, status.UNAUTHENTICATED],
  [403, status.PERMISSION_DENIED],
  [404, status.UNIMPLEMENTED],
  [429, status.UNAVAILABLE],
  [500, status.UNKNOWN],
  [502, status.UNAVAILABLE],
  [503, status.UNAVAILABLE],
  [504, status.UNAVAILABLE],
] as const) {
  outcomes[`HTTP status ${http}`] = [only({ ":status": http }), code, `Received HTTP status code ${http}`];
  outcomes[`HTTP status ${http}, with a body that never ends`] = [
    (stream) => {
      stream.respond({ ":status": http, "content-type": "text/plain" });
      stream.write("sorry");
    },
    code,
    `Received HTTP status code ${http}`,
  ];
}

describe("how a call ends", () => {
  for (const [name, [answer, code, details]] of Object.entries(outcomes)) {
    test(`by ${name}: ${status[code]}`, { timeout: 60_000 }, async () => {
      await using raw = await startRaw(answer);
      const conn = await open(raw.address);
      const error = Object(await rejection(conn.invoke(unary, { text: "x" })));
      assert.equal(status[error.code], status[code], error.message);
      if (typeof details === "string") assert.equal(error.details, details);
      else assert.match(error.details, details);
      assert.equal(conn.draining, false);
      await conn.close();
    });
  }
});

test("trailers come without what the transport reads itself, bytes decoded and repeated keys kept", async () => {
  await using raw = await startRaw(
    trailers({ "grpc-status": "9", "grpc-message": "m", "x-b-bin": "AQI=,/w", "x-c": ["1", "2"], "x-d": "é" }),
  );
  const conn = await open(raw.address);
  const { metadata } = Object(await rejection(conn.invoke(unary, { text: "x" })));
  assert.deepEqual(metadata.get("x-b-bin"), [Buffer.of(1, 2), Buffer.of(255)]);
  assert.equal(metadata.get("x-c").join(), "1, 2");
  assert.deepEqual(metadata.get("grpc-status"), []);
  await conn.close();
});

test("a stream that the peer cancels once the deadline is over has exceeded it, whichever is heard of first", async (t) => {
  await using raw = await startRaw((stream) => {
    const look = (): unknown => (Date.now() > deadline ? stream.close(constants.NGHTTP2_CANCEL) : setImmediate(look));
    look();
  });
  const conn = await open(raw.address);
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const deadline = Date.now() + 20;
  const call = conn.createCall(unary.path, deadline, null, null, undefined);
  const ended = new Promise<number>((resolve) => {
    call.start(new Metadata(), {
      onReceiveMetadata() {},
      onReceiveMessage() {},
      onReceiveStatus: ({ code }) => resolve(code),
    });
  });
  assert.equal(await ended, status.DEADLINE_EXCEEDED);
  t.mock.timers.reset();
  await conn.close();
});
