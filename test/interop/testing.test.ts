// The cases of gRPC's interoperability tests that need no account anywhere:
// https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md
import assert from "node:assert/strict";
import type { Readable } from "node:stream";
import { after, before, describe, test } from "node:test";
import {
  type CallOptions,
  type ChannelCredentials,
  type ChannelInterface,
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import { type ChannelConn, dialGrpc, dialGrpcHttp2, pooledChannel } from "../../src/grpc/index.ts";
import { Pool, type PoolStats } from "../../src/index.ts";
import { ca } from "../support/certs.ts";
import { noGo } from "./grpcpeer.ts";
import {
  initialKey,
  type Message,
  type Method,
  methodsOf,
  startGo,
  startGrpcJs,
  type TestingServer,
  trailingKey,
} from "./testing.ts";

const sizes = [31_415, 9, 2_653, 58_979];
const requestSizes = [27_182, 8, 1_828, 45_904];

const bytes = (size: number): Message => ({ payload: { body: Buffer.alloc(size) } });
const asking = (...sizes: number[]): Message => ({ response_parameters: sizes.map((size) => ({ size })) });
const large: Message = { ...bytes(271_828), response_size: 314_159 };
const echo = { code: 2, message: "test status message" };

function method(name: string, service = "TestService"): Method {
  const found = methodsOf(service)[name];
  assert.ok(found, name);
  return found;
}

interface Outcome {
  readonly answers: readonly Message[];
  readonly header: Metadata;
  readonly end: StatusObject;
}

/** Waits for the end of a call, whose answers it collects; `each` hears of them. */
function ended(call: Readable, each?: (count: number) => void): Promise<Outcome> {
  return new Promise((resolve) => {
    const answers: Message[] = [];
    let header = new Metadata();
    call.on("metadata", (metadata: Metadata) => {
      header = metadata;
    });
    call.on("data", (answer: Message) => {
      answers.push(answer);
      each?.(answers.length);
    });
    call.on("error", () => {});
    call.on("status", (end: StatusObject) => resolve({ answers, header, end }));
  });
}

class Caller {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** The answer and all that is around it, whether the call went well or not. */
  unary(name: Method, request: Message, metadata = new Metadata(), options: CallOptions = {}): Promise<Outcome> {
    const { path, requestSerialize, responseDeserialize } = name;
    return new Promise((resolve) => {
      const answers: Message[] = [];
      let header = new Metadata();
      this.#client
        .makeUnaryRequest(path, requestSerialize, responseDeserialize, request, metadata, options, (_, answer) => {
          if (answer !== undefined) answers.push(answer);
        })
        .on("metadata", (metadata) => {
          header = metadata;
        })
        .on("status", (end) => setImmediate(() => resolve({ answers, header, end })));
    });
  }

  output(request: Message): Promise<Outcome> {
    const { path, requestSerialize, responseDeserialize } = method("StreamingOutputCall");
    const call = this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request);
    return ended(call);
  }

  input(done: (error: Error | null, answer?: Message) => void) {
    const { path, requestSerialize, responseDeserialize } = method("StreamingInputCall");
    return this.#client.makeClientStreamRequest(path, requestSerialize, responseDeserialize, done);
  }

  duplex(metadata = new Metadata(), options: CallOptions = {}): ClientDuplexStream<Message, Message> {
    const { path, requestSerialize, responseDeserialize } = method("FullDuplexCall");
    return this.#client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata, options);
  }
}

function lengths({ answers }: Outcome): number[] {
  return answers.map(({ payload }) => payload?.body.length ?? 0);
}

async function largeUnary(caller: Caller): Promise<void> {
  const outcome = await caller.unary(method("UnaryCall"), large);
  assert.equal(outcome.end.code, status.OK);
  assert.deepEqual(lengths(outcome), [314_159]);
}

async function clientStreaming(caller: Caller): Promise<void> {
  const answer = await new Promise<Message | undefined>((resolve, reject) => {
    const call = caller.input((error, answer) => (error ? reject(error) : resolve(answer)));
    for (const size of requestSizes) call.write(bytes(size));
    call.end();
  });
  assert.equal(answer?.aggregated_payload_size, 74_922);
}

async function serverStreaming(caller: Caller): Promise<void> {
  const outcome = await caller.output(asking(...sizes));
  assert.equal(outcome.end.code, status.OK);
  assert.deepEqual(lengths(outcome), sizes);
}

const cases: Readonly<Record<string, (caller: Caller) => Promise<void>>> = {
  async empty_unary(caller) {
    const { answers, end } = await caller.unary(method("EmptyCall"), {});
    assert.equal(end.code, status.OK);
    assert.deepEqual({ ...answers[0] }, {});
  },
  large_unary: largeUnary,
  client_streaming: clientStreaming,
  server_streaming: serverStreaming,
  async ping_pong(caller) {
    const call = caller.duplex();
    const ask = (turn: number): void => {
      if (turn === sizes.length) call.end();
      else call.write({ ...asking(sizes[turn] ?? 0), ...bytes(requestSizes[turn] ?? 0) });
    };
    ask(0);
    const outcome = await ended(call, ask);
    assert.equal(outcome.end.code, status.OK);
    assert.deepEqual(lengths(outcome), sizes);
  },
  async empty_stream(caller) {
    const call = caller.duplex();
    call.end();
    const { end, answers } = await ended(call);
    assert.equal(end.code, status.OK);
    assert.deepEqual(answers, []);
  },
  async cancel_after_begin(caller) {
    const error = await new Promise<Error | null>((resolve) => caller.input(resolve).cancel());
    assert.equal(Object(error).code, status.CANCELLED);
  },
  async cancel_after_first_response(caller) {
    const call = caller.duplex();
    call.write({ ...asking(31_415), ...bytes(27_182) });
    const outcome = await ended(call, () => call.cancel());
    assert.equal(outcome.end.code, status.CANCELLED);
    assert.deepEqual(lengths(outcome), [31_415]);
  },
  async timeout_on_sleeping_server(caller) {
    const call = caller.duplex(new Metadata(), { deadline: Date.now() + 1 });
    call.write(bytes(27_182));
    assert.equal((await ended(call)).end.code, status.DEADLINE_EXCEEDED);
  },
  async custom_metadata(caller) {
    const metadata = new Metadata();
    metadata.set(initialKey, "test_initial_metadata_value");
    metadata.set(trailingKey, Buffer.of(0xab, 0xab, 0xab));
    const call = caller.duplex(metadata);
    call.end({ ...asking(314_159), ...bytes(271_828) });
    for (const outcome of await Promise.all([caller.unary(method("UnaryCall"), large, metadata), ended(call)])) {
      assert.deepEqual(lengths(outcome), [314_159]);
      assert.deepEqual(outcome.header.get(initialKey), ["test_initial_metadata_value"]);
      assert.deepEqual(outcome.end.metadata.get(trailingKey), [Buffer.of(0xab, 0xab, 0xab)]);
    }
  },
  async status_code_and_message(caller) {
    const call = caller.duplex();
    call.end({ response_status: echo });
    const unary = caller.unary(method("UnaryCall"), { response_status: echo });
    for (const { end } of await Promise.all([unary, ended(call)])) {
      assert.equal(end.code, echo.code);
      assert.equal(end.details, echo.message);
    }
  },
  async special_status_message(caller) {
    const message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    const { end } = await caller.unary(method("UnaryCall"), { response_status: { code: 2, message } });
    assert.equal(end.code, status.UNKNOWN);
    assert.equal(end.details, message);
  },
  async unimplemented_method(caller) {
    const { end } = await caller.unary(method("UnimplementedCall"), {});
    assert.equal(end.code, status.UNIMPLEMENTED);
  },
  async unimplemented_service(caller) {
    const { end } = await caller.unary(method("UnimplementedCall", "UnimplementedService"), {});
    assert.equal(end.code, status.UNIMPLEMENTED);
  },
};

/** Whether each message is compressed, Connect's conformance suite looks at. grpc-go's server here has no compression. */
const compressed: typeof cases = {
  client_compressed_unary: largeUnary,
  client_compressed_streaming: clientStreaming,
  server_compressed_unary: largeUnary,
  server_compressed_streaming: serverStreaming,
};

interface Connected {
  readonly pool: { stats(): PoolStats; close(options: { graceMs: number }): Promise<void> };
  readonly channelOverride: ChannelInterface;
}

type Connect = (address: string, secret: ChannelCredentials, options: ChannelOptions) => Connected;

function over<C extends ChannelConn>(pool: Pool<string, C>, address: string): Connected {
  return { pool, channelOverride: pooledChannel(pool, address) };
}

const transports: Readonly<Record<string, Connect>> = {
  dialGrpc: (address, secret, options) => over(new Pool({ dial: dialGrpc(secret, options) }), address),
  dialGrpcHttp2: (address, secret, options) => over(new Pool({ dial: dialGrpcHttp2(secret, options) }), address),
};

/** Each case over both transports, with and without TLS. */
function play(start: () => Promise<TestingServer>, played: typeof cases): void {
  let server: TestingServer;
  before(async () => {
    server = await start();
  });
  after(() => server[Symbol.asyncDispose]());
  const secrets: Record<"plain" | "tls", ChannelCredentials> = {
    plain: credentials.createInsecure(),
    tls: credentials.createSsl(Buffer.from(ca)),
  };
  for (const [transport, connect] of Object.entries(transports)) {
    for (const security of ["plain", "tls"] as const) {
      for (const [name, run] of Object.entries(played)) {
        test(`${name} with ${transport}, ${security}`, { timeout: 10_000 }, async (t) => {
          const options = name in compressed ? { "grpc.default_compression_algorithm": 2 } : {};
          const { pool, channelOverride } = connect(server[security], secrets[security], options);
          t.after(() => pool.close({ graceMs: 0 }));
          await run(new Caller(new Client("not used", secrets[security], { channelOverride })));
          assert.equal(pool.stats().streams, 0);
        });
      }
    }
  }
}

describe("gRPC's interoperability tests against grpc-js", () => play(startGrpcJs, { ...cases, ...compressed }));
describe("gRPC's interoperability tests against grpc-go", { skip: noGo }, () => play(startGo, cases));
