import { once } from "node:events";
import { connect } from "node:http2";
import type { ClientReadableStream, ClientUnaryCall } from "@grpc/grpc-js";
import { type ChannelOptions, Client } from "@grpc/grpc-js";
import { dialGrpcHttp2, type GrpcHttp2Conn, pooledChannel } from "../../src/grpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { GoGrpcPeer, goService, noGo } from "../interop/grpcpeer.ts";
import { insecure, ownConnection } from "./answerer.ts";
import { Duel, type Fighter, type Plan, type Ratio } from "./duel.ts";
import { heapUsed } from "./memory.ts";
import { atLeast, atMost, type Line, type Pace, type Section, type Target } from "./row.ts";

/** grpc-js at its best: what is not needed is off, and a window that stops nothing. */
const tuning: ChannelOptions = {
  ...ownConnection,
  "grpc.enable_channelz": 0,
  "grpc.enable_retries": 0,
  "grpc-node.flow_control_window": 16 << 20,
};

/** More than there are callers: one connection for each contender. */
const plenty = { maxStreams: 10_000 };

type Done = (error: unknown) => void;

/** A call as a generated client makes it, to its end. */
type ClientCall = (client: Client, done: Done) => unknown;

function unary(bytes: number): ClientCall {
  const { path, requestSerialize, responseDeserialize } = goService.echo;
  const request = Buffer.alloc(bytes, 1);
  return (client, done): ClientUnaryCall =>
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, done);
}

function stream(count: number, bytes: number): ClientCall {
  const { path, requestSerialize, responseDeserialize } = goService.flood;
  const request = Buffer.alloc(8);
  request.writeUInt32LE(count);
  request.writeUInt32LE(bytes, 4);
  return (client, done): ClientReadableStream<Buffer> => {
    let left = count;
    return client
      .makeServerStreamRequest(path, requestSerialize, responseDeserialize, request)
      .on("data", () => left--)
      .on("end", () => done(left === 0 ? null : new Error(`${left} messages did not come`)))
      .on("error", done);
  };
}

function plain(address: string, call: ClientCall, options: ChannelOptions = ownConnection): Fighter {
  const client = new Client(address, insecure, options);
  return { call: (done) => void call(client, done), close: () => client.close() };
}

/** The same client on a pool of the new conns. */
function generated(address: string, call: ClientCall): Fighter {
  const pool = new Pool({ dial: dialGrpcHttp2(insecure, {}, plenty), maxKeyConns: 1 });
  const client = new Client(address, insecure, { channelOverride: pooledChannel(pool, address) });
  return { call: (done) => void call(client, done), close: () => pool.close() };
}

/** Without grpc-js' client. */
async function direct(address: string, bytes: number): Promise<Fighter> {
  const conn: GrpcHttp2Conn = await dialGrpcHttp2(insecure)(address, { signal: new AbortController().signal });
  const request = Buffer.alloc(bytes, 1);
  return {
    call: (done) => {
      conn.invoke(goService.echo, request).then(() => done(null), done);
    },
    close: () => conn.close(),
  };
}

/** The least that a call can cost on `node:http2`: no metadata, no status, no check, one request after another in one session. */
async function floor(address: string, bytes: number): Promise<Fighter> {
  const session = connect(`http://${address}`);
  await once(session, "connect");
  const message = Buffer.alloc(5 + bytes, 1);
  message.writeUIntBE(bytes, 0, 5);
  const headers = {
    ":method": "POST",
    ":path": goService.echo.path,
    te: "trailers",
    "content-type": "application/grpc",
  };
  return {
    call: (done) => {
      const stream = session.request(headers, { endStream: false });
      stream.on("data", () => {}).on("end", () => done(null));
      stream.on("error", done).end(message);
    },
    close: () => session.destroy(),
  };
}

function planOf(pace: Pace, callers: number): Plan {
  const long = pace.name === "long";
  const pieces = callers > 100 ? 1 : 2;
  return { callers, pieces, rounds: long ? 60 : 10, sliceMs: long ? 200 : 100, warmMs: long ? 1500 : 500 };
}

function noteOf({ mean, lower, pairs }: Ratio): string {
  return `${pairs} pairs: mean ${mean.toFixed(2)}, lower 95 % bound ${lower.toFixed(2)}`;
}

const named = {
  generated: "a generated client over it",
  direct: "conn.invoke",
  tuned: "grpc-js, tuned",
  floor: "a bare session.request, the floor",
} as const;

function* compare<N extends keyof typeof named>(
  what: string,
  duel: Duel<N | "plain">,
  names: readonly N[],
  targets: Partial<Record<N, number>>,
): Generator<Line, void, undefined> {
  yield { name: `${what}: grpc-js' channel`, value: duel.of("plain", "calls/s"), unit: "calls/s", ratio: 1 };
  for (const name of names) {
    const ratio = duel.ratio(name, "plain", "calls/s");
    const cpu = duel.ratio(name, "plain", "µs").median;
    const limit = targets[name];
    yield {
      name: `  ${named[name]}`,
      value: duel.of(name, "calls/s"),
      unit: "calls/s",
      ratio: ratio.median,
      ...targetOf(limit, ratio.median),
      note: `${noteOf(ratio)}; processor time of the client for a call ${cpu.toFixed(2)} x`,
    };
  }
}

function targetOf(limit: number | undefined, median: number): { target?: Target } {
  return limit === undefined ? {} : { target: atLeast(limit, median) };
}

/** One call after another, and many at once. */
async function* unaries(address: string, bytes: number, pace: Pace): AsyncGenerator<Line, void, undefined> {
  const goals: Record<number, { generated: number; direct: number; beside: number }> =
    bytes > 16
      ? {}
      : {
          1: { generated: 1.25, direct: 1.4, beside: 1 },
          100: { generated: 1.7, direct: 2.3, beside: 1.5 },
          1000: { generated: 1.7, direct: 2.3, beside: 1.5 },
        };
  for (const callers of bytes > 16 ? [1, 100] : [1, 10, 100, 1000]) {
    const duel = await Duel.fight(
      {
        plain: plain(address, unary(bytes)),
        tuned: plain(address, unary(bytes), tuning),
        generated: generated(address, unary(bytes)),
        direct: await direct(address, bytes),
        floor: await floor(address, bytes),
      },
      planOf(pace, callers),
    );
    const goal = goals[callers];
    const what = `${bytes.toLocaleString("en")} bytes, ${callers.toLocaleString("en")} at once`;
    yield* compare(what, duel, ["tuned", "generated", "direct", "floor"], goal ?? {});
    const beside = duel.ratio("generated", "tuned", "calls/s");
    yield {
      name: "  a generated client over it",
      value: duel.of("generated", "calls/s"),
      unit: "calls/s",
      ratio: beside.median,
      of: "grpc-js, tuned",
      ...targetOf(goal?.beside, beside.median),
      note: noteOf(beside),
    };
  }
}

async function* streams(address: string, pace: Pace): AsyncGenerator<Line, void, undefined> {
  for (const [what, call, callers, goal] of [
    ["streams of 1,000 messages of 16 bytes, 10 at once", stream(1_000, 16), 10, 1.5],
    ["streams of 64 MiB in messages of 64 KiB, one by one", stream(1_024, 64 << 10), 1, 1],
  ] as const) {
    const contenders = {
      plain: plain(address, call),
      tuned: plain(address, call, tuning),
      generated: generated(address, call),
    };
    const duel = await Duel.fight(contenders, planOf(pace, callers));
    yield* compare(what, duel, ["tuned", "generated"], { generated: goal });
  }
}

/** Calls that wait for their answer at once, and how long they wait. */
const held = { calls: 1_000, delayMs: 1_500 };

/** A call that the server holds. */
function waiting(client: Client, done: Done): ClientUnaryCall {
  const { path, requestSerialize, responseDeserialize } = goService.unary;
  return client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { id: "", delayMs: held.delayMs }, done);
}

/** Heap of a call that waits for its answer, garbage not counted. */
async function heapOf(fighter: Fighter): Promise<number> {
  const begin = () =>
    Promise.all(Array.from({ length: held.calls }, () => new Promise<unknown>((done) => fighter.call(done))));
  await begin();
  const before = await heapUsed();
  const running = begin();
  await new Promise((resolve) => setTimeout(resolve, held.delayMs / 3));
  const bytes = (await heapUsed()) - before;
  await running;
  await fighter.close();
  return bytes / held.calls;
}

async function* memory(address: string): AsyncGenerator<Line, void, undefined> {
  const base = await heapOf(plain(address, waiting));
  yield { name: "a call that waits, of 1,000: grpc-js' channel", value: base, unit: "bytes", ratio: 1 };
  const bytes = await heapOf(generated(address, waiting));
  const ratio = bytes / base;
  yield { name: `  ${named.generated}`, value: bytes, unit: "bytes", ratio, target: atMost(1, ratio) };
}

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  if (noGo) {
    yield { name: "gRPC on node:http2", skipped: "there is no `go` here to be the server" };
    return;
  }
  using go = new GoGrpcPeer();
  // One processor answers several times what a Node client asks, and leaves the other one of a small machine to it.
  const { plain: address } = await go.serve({ processors: 1 });
  yield* unaries(address, 16, pace);
  yield* unaries(address, 10 << 10, pace);
  yield* streams(address, pace);
  yield* memory(address);
}

export const grpcHttp2: Section = {
  name: "grpc-http2",
  title: "dialGrpcHttp2 beside grpc-js' channel, to a Go server in another process",
  run,
};
