import { Socket } from "node:net";
import { dialDrpc } from "../../src/drpc/index.ts";
import { Pool } from "../../src/pool/pool.ts";
import { GoPeer, noGo } from "../interop/gopeer.ts";
import { GoGrpcPeer } from "../interop/grpcpeer.ts";
import { peer } from "../support/peer.ts";
import { type Rounds, takeTurns } from "./caller.ts";
import { bare, dialing, goClient, grpcJs, message, pooled } from "./drpc-callers.ts";
import type { Race } from "./race.ts";
import { atLeast, atMost, type Line, type Pace, type Section } from "./row.ts";
import { WriteCount } from "./writes.ts";

type Plans = Readonly<Record<Pace["name"], Rounds>>;

/** Short slices in many rounds: where the system runs a client and its server, it decides again all the time. */
const clients: Plans = { long: { rounds: 100, sliceMs: 40 }, short: { rounds: 15, sliceMs: 20 } };
/** Long slices: of a hundred dials at once, the last end late. */
const pools: Plans = { long: { rounds: 15, sliceMs: 200 }, short: { rounds: 3, sliceMs: 150 } };

async function* run({ name }: Pace): AsyncGenerator<Line, void, undefined> {
  if (noGo !== false) {
    yield { name: "our client, the Go client, grpc-js", skipped: "there is no `go` here" };
    return;
  }
  using go = new GoPeer();
  using goGrpc = new GoGrpcPeer();
  const { plain: address } = await go.serve();
  const { plain: grpcAddress } = await goGrpc.serve();
  for (const size of [1, 10, 100]) {
    const callers = [await bare(address, size), goClient(go, address, size)];
    yield* toGo(await takeTurns(callers, clients[name]), size);
  }
  for (const size of [1, 100]) {
    yield* toDials(await takeTurns([pooled(address, size), dialing(address, size)], pools[name]), size);
  }
  yield* toGrpc(await takeTurns([pooled(address, 100), grpcJs(grpcAddress, 100)], pools[name]));
  for (const size of [1, 100]) yield await writes(address, size);
}

function* toGo(times: Race, size: number): Generator<Line, void, undefined> {
  const conns = size === 1 ? "1 conn" : `${size} conns`;
  const ratio = times.ratio("go", "bare");
  yield { name: `Go client, ${conns}`, ...rate(times, "go"), ratio: 1 };
  yield {
    name: `our client, ${conns}`,
    ...rate(times, "bare"),
    ratio,
    ...(size === 1 && { target: atLeast(1, ratio) }),
    note: "to the Go client, on the same Go server",
  };
}

function* toDials(times: Race, size: number): Generator<Line, void, undefined> {
  const ratio = times.ratio("dialing", "pooled");
  yield { name: `a dial for each call, ${size} at once`, ...rate(times, "dialing"), ratio: 1 };
  yield { name: `through a pool, ${size} at once`, ...rate(times, "pooled"), ratio, target: atLeast(2.5, ratio) };
}

function* toGrpc(times: Race): Generator<Line, void, undefined> {
  const ratio = times.ratio("grpc-js", "pooled");
  yield { name: "grpc-js on one channel, 100 at once", ...rate(times, "grpc-js"), ratio: 1 };
  yield {
    name: "DRPC through a pool, 100 at once",
    ...rate(times, "pooled"),
    ratio,
    target: atLeast(4, ratio),
    note: "to grpc-js; both servers in Go, the same 64 bytes",
  };
}

function rate(times: Race, name: string): { readonly value: number; readonly unit: "calls/s" } {
  return { value: 1e9 / times.ns(name), unit: "calls/s" };
}

async function writes(address: string, size: number): Promise<Line> {
  const writes = new WriteCount();
  const dial = dialDrpc();
  await using pool = new Pool<string>({
    dial: async (key, options) => {
      const conn = await dial(key, options);
      if (conn.duplex instanceof Socket) writes.watch(conn.duplex);
      return conn;
    },
  });
  const conn = pool.get(address);
  const turns = 1000 / size;
  for (let turn = 0; turn < turns; turn++) {
    await Promise.all(Array.from({ length: size }, () => conn.invoke(peer.echo, message)));
  }
  const value = writes.count / (turns * size);
  return {
    name: `socket writes for a call, ${size} at once`,
    value,
    unit: "count",
    target: atMost(1, value, "count"),
    note: "what a socket hands to the system, gathered or not",
  };
}

export const drpc: Section = { name: "drpc", title: "unary calls over DRPC, on sockets", run };
