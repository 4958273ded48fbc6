import assert from "node:assert/strict";
import {
  connectivityState,
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
  propagate,
  status,
} from "@grpc/grpc-js";
import { until } from "./clock.ts";
import { type Answer, type Ask, echoService } from "./echo-service.ts";

import { asChildOf, type Behaviour, bidi, call, metadataOf, record } from "./logged.ts";

const { unary, collect, repeat } = echoService;

/** What grpc-js documents, or does, as its users see it. */
export const behaviours: Record<string, Behaviour> = {
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
      // Long enough for the first attempt to fail, on a loaded machine too.
      refused.waitForReady(Date.now() + 500, (error) => {
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
