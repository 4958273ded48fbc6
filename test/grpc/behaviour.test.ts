import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  type CallOptions,
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientOptions,
  connectivityState,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
  propagate,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceError,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import { dialGrpc, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool.ts";
import { type Answer, type Ask, type EchoServer, echoService, startEcho, until } from "../support/echo-service.ts";
import { local } from "../support/grpc-certs.ts";

/** What a behaviour did, to be compared: events, codes, details, metadata, in order. */
type Log = (event: string, ...details: unknown[]) => void;

interface Bench {
  readonly client: Client;
  readonly address: string;
  readonly echo: EchoServer;
  /** A client of an address that refuses connections. */
  readonly refused: Client;
  readonly log: Log;
}

const { unary, collect, repeat, chat } = echoService;

function shown(metadata: Metadata): string {
  const entries = Object.entries(metadata.getMap()).filter(([key]) => !["date", "content-type"].includes(key));
  return JSON.stringify(entries.sort());
}

/** A unary call, to its very end. */
function call(
  { client, log }: Pick<Bench, "client" | "log">,
  ask: Ask,
  options: CallOptions = {},
  { metadata = new Metadata(), rpc = unary, touch = (_: { cancel(): void }): void => {} } = {},
): Promise<void> {
  const { path, requestSerialize, responseDeserialize } = rpc;
  return new Promise((resolve) => {
    let left = 2;
    const done = (): void => {
      if (--left === 0) resolve();
    };
    const ran = client.makeUnaryRequest<Ask, Answer>(
      path,
      requestSerialize,
      responseDeserialize,
      ask,
      metadata,
      options,
      (error, answer) => {
        if (error) log("error", error.code, error.code === status.DEADLINE_EXCEEDED ? "" : error.details);
        else log("answer", answer?.text);
        done();
      },
    );
    ran.on("metadata", (received: Metadata) => log("metadata", shown(received)));
    ran.on("status", ({ code, metadata: trailers }) => {
      log("status", code, shown(trailers));
      done();
    });
    touch(ran);
  });
}

function record(stream: NodeJS.EventEmitter, log: Log): Promise<void> {
  stream.on("metadata", (metadata: Metadata) => log("metadata", shown(metadata)));
  stream.on("data", (answer: Answer) => log("data", answer.text));
  stream.on("end", () => log("end"));
  stream.on("error", (error: ServiceError) => log("error", error.code, error.details));
  return new Promise((resolve) =>
    stream.on("status", ({ code, metadata }: { code: status; metadata: Metadata }) => {
      log("status", code, shown(metadata));
      setImmediate(resolve);
    }),
  );
}

function bidi(client: Client) {
  return client.makeBidiStreamRequest<Ask, Answer>(chat.path, chat.requestSerialize, chat.responseDeserialize);
}

function metadataOf(entries: Record<string, string | Buffer>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(entries)) metadata.set(key, value);
  return metadata;
}

const behaviours: Record<string, (bench: Bench) => Promise<void> | void> = {
  "a unary call": (bench) => call(bench, { text: "hello" }),
  "metadata both ways, bytes included": (bench) =>
    call(bench, { text: "m" }, {}, { metadata: metadataOf({ "x-a": "1", "x-bytes-bin": Buffer.of(1, 255) }) }),
  "an error's code, details and trailers": (bench) => call(bench, { text: "e", fail: status.ALREADY_EXISTS }),
  "an unknown method": (bench) => call(bench, { text: "u" }, {}, { rpc: { ...unary, path: "/test.Echo/None" } }),
  "a deadline": (bench) => call(bench, { text: "d", delayMs: -1 }, { deadline: Date.now() + 30 }),
  "a deadline given as a Date": (bench) =>
    call(bench, { text: "d", delayMs: -1 }, { deadline: new Date(Date.now() + 30) }),
  "a deadline that is over": (bench) => call(bench, { text: "d" }, { deadline: Date.now() - 1 }),
  "a deadline far away": (bench) => call(bench, { text: "d" }, { deadline: Date.now() + 1e9 }),
  "a cancel at once": (bench) => call(bench, { text: "c" }, {}, { touch: (ran) => ran.cancel() }),
  "a cancel while it runs": async (bench) => {
    const handled = bench.echo.handled;
    await call(
      bench,
      { text: "c", delayMs: -1 },
      {},
      {
        touch: (ran) => void until(() => bench.echo.handled > handled, "it runs").then(() => ran.cancel()),
      },
    );
  },
  "a request that cannot be encoded": (bench) =>
    call(
      bench,
      { text: "s" },
      {},
      {
        rpc: {
          ...unary,
          requestSerialize: () => {
            throw new Error("no bytes");
          },
        },
      },
    ),
  "a response that cannot be decoded": (bench) =>
    call(
      bench,
      { text: "s" },
      {},
      {
        rpc: {
          ...unary,
          responseDeserialize: () => {
            throw new Error("no answer");
          },
        },
      },
    ),
  "a message over the limit": (bench) => call(bench, { text: "x".repeat(5 << 20) }),
  "call credentials": (bench) => {
    const withToken = credentials.createFromMetadataGenerator((_, done) => {
      setTimeout(() => done(null, metadataOf({ "x-token": "t" })), 5);
    });
    return call(bench, { text: "k" }, { credentials: withToken });
  },
  "call credentials that fail": (bench) => {
    const failing = credentials.createFromMetadataGenerator((_, done) => done(new Error("no token")));
    return call(bench, { text: "k" }, { credentials: failing });
  },
  "retries by service config": (bench) =>
    call(bench, { text: "r", fail: status.ABORTED, failFirst: true }, {}, { metadata: metadataOf({ "x-a": "1" }) }),
  "an interceptor that changes everything": (bench) => {
    const interceptor: Interceptor = (options, next) =>
      new InterceptingCall(next(options), {
        start(metadata, _listener, start) {
          metadata.set("x-intercepted", "yes");
          start(metadata, {
            onReceiveMetadata: (received, pass) => {
              bench.log("intercepted metadata");
              pass(received);
            },
            onReceiveMessage: (message, pass) => pass({ ...message, text: `${message.text}!` }),
            onReceiveStatus: (result, pass) => {
              bench.log("intercepted status");
              pass(result);
            },
          });
        },
        sendMessage: (message, pass) => pass({ ...message, text: `${message.text}?` }),
      });
    return call(bench, { text: "i" }, { interceptors: [interceptor] });
  },
  "an interceptor that swallows the call": async (bench) => {
    const interceptor: Interceptor = (options, next) => new InterceptingCall(next(options), { start() {} });
    const never = call(bench, { text: "i" }, { interceptors: [interceptor] });
    await Promise.race([never, new Promise((resolve) => setTimeout(resolve, 20))]);
  },
  "server streaming": async (bench) => {
    const { path, requestSerialize, responseDeserialize } = repeat;
    const ask: Ask = { text: "n", count: 30 };
    await record(bench.client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, ask), bench.log);
  },
  "server streaming that fails": async (bench) => {
    const { path, requestSerialize, responseDeserialize } = repeat;
    const ask: Ask = { text: "n", count: 3, fail: status.DATA_LOSS, delayMs: 10 };
    await record(bench.client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, ask), bench.log);
  },
  "client streaming": async ({ client, log }) => {
    const { path, requestSerialize, responseDeserialize } = collect;
    await new Promise<void>((resolve) => {
      const stream = client.makeClientStreamRequest<Ask, Answer>(
        path,
        requestSerialize,
        responseDeserialize,
        (error, answer) => {
          log("callback", error?.code, answer?.text);
          resolve();
        },
      );
      for (let i = 0; i < 30; i++) stream.write({ text: String(i) });
      stream.end();
    });
  },
  "bidirectional streaming, written at once": async ({ client, log }) => {
    const stream = bidi(client);
    const recorded = record(stream, log);
    for (let i = 0; i < 30; i++) stream.write({ text: String(i) });
    stream.end();
    await recorded;
  },
  "bidirectional streaming, one by one": async ({ client, log }) => {
    const stream = bidi(client);
    const recorded = record(stream, log);
    let next = 0;
    stream.on("data", () => (next++ < 5 ? stream.write({ text: `t${next}` }) : stream.end()));
    stream.write({ text: "t0" });
    await recorded;
  },
  "a stream that is cancelled": async ({ client, log }) => {
    const stream = bidi(client);
    const recorded = record(stream, log);
    stream.once("data", () => stream.cancel());
    stream.write({ text: "x" });
    await recorded;
  },
  "the peer's address": async ({ client, log, address }) => {
    const stream = bidi(client);
    stream.on("error", () => {});
    await new Promise((resolve) => {
      stream.once("data", resolve);
      stream.write({ text: "x" });
    });
    log("peer", stream.getPeer().replace(address, "the server"));
    log("auth", typeof stream.getAuthContext());
    stream.end();
    await record(stream.resume(), () => {});
  },
  "the target": ({ client, log }) => log("target", client.getChannel().getTarget()),
  "wait for ready": async ({ client, log }) => {
    await new Promise<void>((resolve) =>
      client.waitForReady(Date.now() + 2_000, (error) => {
        log("ready", error?.message);
        resolve();
      }),
    );
    log("state", connectivityState[client.getChannel().getConnectivityState(false)]);
  },
  "a watch whose deadline passes": async ({ client, log }) => {
    await call({ client, log }, { text: "x" });
    await new Promise<void>((resolve) =>
      client.getChannel().watchConnectivityState(connectivityState.READY, Date.now() + 20, (error) => {
        log("watched", error?.message);
        resolve();
      }),
    );
  },
  "a refused connection": ({ refused, log }) => call({ client: refused, log }, { text: "x" }),
  "a refused connection, with wait for ready": ({ refused, log }) => {
    const metadata = new Metadata({ waitForReady: true });
    return call({ client: refused, log }, { text: "x" }, { deadline: Date.now() + 50 }, { metadata });
  },
  "wait for ready of a refused connection": async ({ refused, log }) => {
    await new Promise<void>((resolve) =>
      refused.waitForReady(Date.now() + 50, (error) => {
        log("ready", error?.message);
        resolve();
      }),
    );
    log("state", connectivityState[refused.getChannel().getConnectivityState(false)]);
  },
  "a client that is closed": async ({ client, log }) => {
    const states: string[] = [];
    await call({ client, log }, { text: "x" });
    client.getChannel().watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, (error) => {
      states.push(`changed ${error?.message}`);
    });
    const last = call({ client, log }, { text: "last", delayMs: 10 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    client.close();
    await last;
    log("states", states, connectivityState[client.getChannel().getConnectivityState(false)]);
    assert.throws(() => bidi(client), { message: "Channel has been shut down" });
    assert.throws(() => client.getChannel().watchConnectivityState(connectivityState.READY, 0, () => {}), {
      message: "Channel has been shut down",
    });
  },
  "a parent call that is cancelled, or out of time": async ({ client, log }) => {
    await asChildOf(client, log, { cancel: true });
    // Otherwise the parent's end may cancel the child before the child's own time is up.
    await asChildOf(client, log, { timeoutMs: 200, flags: propagate.DEADLINE });
  },
};

/** Makes a call in a server's handler, as the child of the call that the handler serves. */
async function asChildOf(
  client: Client,
  log: Log,
  { cancel = false, timeoutMs = Number.POSITIVE_INFINITY, flags = propagate.DEFAULTS },
): Promise<void> {
  const server = new Server();
  const child = new Promise<void>((resolve) => {
    const handler = (parent: ServerUnaryCall<Ask, Answer>, _: sendUnaryData<Answer>): void => {
      void call({ client, log }, { text: "child", delayMs: -1 }, { parent, propagate_flags: flags }).then(resolve);
      if (cancel) setTimeout(() => outer.cancel(), 10);
    };
    server.addService(echoService, { unary: handler, collect: () => {}, repeat: () => {}, chat: () => {} });
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const caller = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = unary;
  const deadline = Date.now() + timeoutMs;
  const outer = caller.makeUnaryRequest(
    path,
    requestSerialize,
    responseDeserialize,
    { text: "" },
    { deadline },
    () => {},
  );
  await child;
  caller.close();
  server.forceShutdown();
}

const retry = {
  methodConfig: [
    {
      name: [{ service: "test.Echo" }],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: "0.01s",
        maxBackoff: "0.01s",
        backoffMultiplier: 1,
        retryableStatusCodes: ["ABORTED"],
      },
    },
  ],
};
const channelOptions: ChannelOptions = {
  "grpc.service_config": JSON.stringify(retry),
  "grpc.default_compression_algorithm": 2,
  "grpc.use_local_subchannel_pool": 1,
};

for (const [kind, server, client] of [
  ["plain text", ServerCredentials.createInsecure(), credentials.createInsecure()],
  [
    "TLS",
    ServerCredentials.createSsl(null, [
      { private_key: Buffer.from(local.key), cert_chain: Buffer.from(local.certificate) },
    ]),
    credentials.createSsl(Buffer.from(local.certificate)),
  ],
] as const) {
  describe(`row 43: a pooled channel behaves as a plain one over ${kind}`, () => {
    let echo: EchoServer;
    before(async () => {
      echo = await startEcho(server);
    });
    after(() => echo[Symbol.asyncDispose]());
    for (const [name, behaviour] of Object.entries(behaviours)) {
      test(`in ${name}`, { timeout: 10_000 }, async () => {
        assert.deepEqual(await throughPool(behaviour, echo, client), await plainly(behaviour, echo, client));
      });
    }
  });
}

type Behaviour = (bench: Bench) => Promise<void> | void;
const nobody = "127.0.0.1:1";

async function logged(behaviour: Behaviour, bench: Omit<Bench, "log">): Promise<string[]> {
  const lines: string[] = [];
  await behaviour({ ...bench, log: (...event) => lines.push(JSON.stringify(event.map((part) => part ?? null))) });
  bench.client.close();
  bench.refused.close();
  // When a connection failed is part of grpc-js' text.
  return lines.map((line) => line.replace(/\(\d{4}-[^)]*\)/g, "(then)"));
}

function plainly(behaviour: Behaviour, echo: EchoServer, using: ChannelCredentials): Promise<string[]> {
  const address = `localhost:${echo.port}`;
  const client = new Client(address, using, channelOptions);
  return logged(behaviour, { client, echo, address, refused: new Client(nobody, using, channelOptions) });
}

/** Behaves, on a pool without conns, and leaves no slot taken. */
async function throughPool(behaviour: Behaviour, echo: EchoServer, using: ChannelCredentials): Promise<string[]> {
  await using pool = new Pool({ dial: dialGrpc(using, channelOptions) });
  const over = (key: string): Client => {
    const options: ClientOptions = { channelOverride: pooledChannel(pool, key) };
    return new Client("not used", credentials.createInsecure(), options);
  };
  const address = `localhost:${echo.port}`;
  const log = await logged(behaviour, { client: over(address), echo, address, refused: over(nobody) });
  await until(() => pool.stats().streams === 0 && pool.stats().waiting === 0, "all slots are free");
  return log;
}
