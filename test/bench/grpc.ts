import { dialGrpc, type GrpcConn, pooledChannel } from "../../src/grpc/index.ts";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { type Addresses, Answerer, AnswererClient, type Ask, insecure, ownConnection } from "./answerer.ts";
import { Duel, type Fighter, type Plan, type Ratio } from "./duel.ts";
import { atLeast, atMost, type Line, type Pace, type Section } from "./row.ts";

const atOnce: Ask = { delayMs: 0, bytes: 8 };
const after20Ms: Ask = { delayMs: 20, bytes: 8 };

/** More than there are callers: the conn is never full. */
const plenty = 10_000;

type PlanOf = Pick<Plan, "rounds" | "sliceMs" | "warmMs">;

/** The long pace: so many rounds, and so long, because calls over sockets are noisy. */
const plans = {
  cost: { long: { rounds: 200, sliceMs: 150, warmMs: 2000 }, short: { rounds: 6, sliceMs: 60, warmMs: 200 } },
  limit: { long: { rounds: 10, sliceMs: 1000, warmMs: 1000 }, short: { rounds: 3, sliceMs: 200, warmMs: 200 } },
  gain: { long: { rounds: 30, sliceMs: 150, warmMs: 500 }, short: { rounds: 6, sliceMs: 60, warmMs: 100 } },
} satisfies Record<string, Record<Pace["name"], PlanOf>>;

/** A slice of many callers is too short for pieces: the first and the last calls of each have the client to themselves. */
function plan(kind: keyof typeof plans, pace: Pace, callers: number): Plan {
  return { ...plans[kind][pace.name], callers, pieces: callers > 100 ? 1 : pace.name === "long" ? 5 : 2 };
}

function plain(address: string, ask: Ask): Fighter {
  const client = new AnswererClient(address, insecure, ownConnection);
  return { call: (done) => client.answer(ask, done), close: () => client.close() };
}

/** The same client over a pool. */
function pooled(address: string, ask: Ask, options: PoolOptions<string, GrpcConn>, maxStreams?: number): Fighter {
  const pool = new Pool({ dial: dialGrpc(insecure, {}, { maxStreams }), ...options });
  const client = new AnswererClient(address, insecure, { channelOverride: pooledChannel(pool, address) });
  return { call: (done) => client.answer(ask, done), close: () => pool.close() };
}

function dialPerCall(address: string, ask: Ask): Fighter {
  return {
    call(done) {
      const client = new AnswererClient(address, insecure, ownConnection);
      client.answer(ask, (error) => {
        client.close();
        done(error);
      });
    },
    close: () => {},
  };
}

function noteOf({ median, mean, lower, pairs }: Ratio): string {
  const [middle, average, low] = [median, mean, lower].map((value) => value.toFixed(3));
  return `${pairs} pairs: median ${middle}, mean ${average}, lower 95 % bound ${low}`;
}

/** Both processes compile what all rows run. */
async function warm({ unlimited }: Addresses, pace: Pace): Promise<void> {
  const fighters = { plain: plain(unlimited, atOnce), pooled: pooled(unlimited, atOnce, {}) };
  await Duel.fight(fighters, { ...plan("cost", pace, 100), rounds: 0, warmMs: pace.name === "long" ? 3000 : 1000 });
}

/** What a pool costs where one connection would do. */
async function* cost({ unlimited }: Addresses, pace: Pace): AsyncGenerator<Line, void, undefined> {
  for (const callers of [1, 10, 100, 1000]) {
    const duel = await Duel.fight(
      {
        plain: plain(unlimited, atOnce),
        pooled: pooled(unlimited, atOnce, { maxKeyConns: 1 }, plenty),
      },
      plan("cost", pace, callers),
    );
    const rate = duel.ratio("pooled", "plain", "calls/s");
    yield {
      name: `pooledChannel on one connection, ${callers.toLocaleString("en")} at once`,
      value: duel.of("pooled", "calls/s"),
      unit: "calls/s",
      ratio: rate.median,
      of: "a plain channel",
      target: atLeast(0.98, rate.lower),
      note: noteOf(rate),
    };
    const cpu = duel.ratio("pooled", "plain", "µs");
    yield {
      name: "  processor time of the client for a call",
      value: duel.of("pooled", "µs"),
      unit: "µs",
      ratio: cpu.median,
      of: "a plain channel",
      note: noteOf(cpu),
    };
  }
}

/** How far apart two of the same are. */
async function* noise({ unlimited }: Addresses, pace: Pace): AsyncGenerator<Line, void, undefined> {
  const callers = 10;
  const duel = await Duel.fight(
    { plain: plain(unlimited, atOnce), same: plain(unlimited, atOnce) },
    plan("cost", pace, callers),
  );
  const rate = duel.ratio("same", "plain", "calls/s");
  yield {
    name: `a second plain channel, ${callers} at once`,
    value: duel.of("same", "calls/s"),
    unit: "calls/s",
    ratio: rate.median,
    of: "a plain channel",
    note: `the noise; ${noteOf(rate)}`,
  };
}

/** What a pool brings where one connection holds the calls back, though the peer would allow them all. */
async function* spread({ unlimited }: Addresses, pace: Pace): AsyncGenerator<Line, void, undefined> {
  for (const callers of [10, 100]) {
    const duel = await Duel.fight(
      {
        plain: plain(unlimited, atOnce),
        pooled: pooled(unlimited, atOnce, { maxKeyConns: 2 }, callers / 2),
      },
      plan("gain", pace, callers),
    );
    const rate = duel.ratio("pooled", "plain", "calls/s");
    yield {
      name: `pooledChannel on two connections, ${callers} at once`,
      value: duel.of("pooled", "calls/s"),
      unit: "calls/s",
      ratio: rate.median,
      of: "a plain channel",
      target: atLeast(1, rate.mean),
      note: noteOf(rate),
    };
  }
  const callers = 1000;
  const duel = await Duel.fight(
    { plain: plain(unlimited, atOnce), pooled: pooled(unlimited, atOnce, {}) },
    plan("gain", pace, callers),
  );
  const rate = duel.ratio("pooled", "plain", "calls/s");
  yield {
    name: `pooledChannel without options, ${callers.toLocaleString("en")} at once`,
    value: duel.of("pooled", "calls/s"),
    unit: "calls/s",
    ratio: rate.median,
    of: "a plain channel",
    note: `10 connections; ${noteOf(rate)}`,
  };
}

/** A peer that allows 100 calls at once on a connection, and takes 20 ms for each. */
async function* limit({ limited, unlimited }: Addresses, pace: Pace): AsyncGenerator<Line, void, undefined> {
  const duel = await Duel.fight(
    {
      one: plain(limited, after20Ms),
      pooled: pooled(limited, after20Ms, { maxKeyConns: 4 }),
      unlimited: plain(unlimited, after20Ms),
    },
    plan("limit", pace, 1000),
  );
  const value = (name: "one" | "pooled" | "unlimited") =>
    ({ value: duel.of(name, "calls/s"), unit: "calls/s" }) as const;
  yield { name: "100 streams, 20 ms, 1,000 at once: a channel", ...value("one"), ratio: 1 };
  const gain = duel.ratio("pooled", "one", "calls/s").median;
  yield { name: "  pooledChannel on four connections", ...value("pooled"), ratio: gain, target: atLeast(3, gain) };
  const loss = duel.ratio("pooled", "unlimited", "calls/s").median;
  yield {
    name: "  a channel to a peer without a stream limit",
    ...value("unlimited"),
    ratio: duel.ratio("unlimited", "one", "calls/s").median,
    target: atLeast(0.95, loss),
    note: `the pool's share of it; the client had ${duel.of("unlimited", "processors").toFixed(2)} of a processor`,
  };
}

/** What a pool saves those who dial for each call. */
async function* dials({ unlimited }: Addresses, pace: Pace): AsyncGenerator<Line, void, undefined> {
  for (const callers of [1, 100]) {
    const duel = await Duel.fight(
      {
        dialing: dialPerCall(unlimited, atOnce),
        pooled: pooled(unlimited, atOnce, {}),
        plain: plain(unlimited, atOnce),
      },
      plan("gain", pace, callers),
    );
    const gain = duel.ratio("pooled", "dialing", "calls/s").median;
    yield {
      name: `a dial per call, ${callers} at once`,
      value: duel.of("dialing", "calls/s"),
      unit: "calls/s",
      ratio: 1,
    };
    yield {
      name: "  pooledChannel",
      value: duel.of("pooled", "calls/s"),
      unit: "calls/s",
      ratio: gain,
      target: atLeast(4, gain),
      note: `a plain channel: ${duel.ratio("plain", "dialing", "calls/s").median.toFixed(2)} x`,
    };
    const cpu = duel.ratio("pooled", "dialing", "µs").median;
    yield {
      name: "  processor time of the client for a call",
      value: duel.of("pooled", "µs"),
      unit: "µs",
      ratio: cpu,
      target: atMost(0.2, cpu),
      note: `a plain channel: ${duel.ratio("plain", "dialing", "µs").median.toFixed(2)} x`,
    };
  }
}

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  await using server = await Answerer.start();
  const { addresses } = server;
  await warm(addresses, pace);
  yield* cost(addresses, pace);
  if (pace.name === "long") yield* noise(addresses, pace);
  yield* spread(addresses, pace);
  yield* limit(addresses, pace);
  yield* dials(addresses, pace);
}

export const grpc: Section = { name: "grpc", title: "unary calls to a server in another process", run };
