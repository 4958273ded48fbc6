import type { Conn } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { direct } from "./direct.ts";
import { fresh } from "./fresh.ts";
import { bytesPerOperation } from "./memory.ts";
import { NoopConn, rpc } from "./noop.ts";
import { race } from "./race.ts";
import type { Contender, Line, Pace, Section } from "./row.ts";
import { atMostScaled } from "./scale.ts";

const contenders = {
  invoke: (): Contender => ({ ...direct(), name: "invoke" }),

  direct: (): Contender => {
    const conn = new NoopConn();
    return {
      name: "direct",
      run: async (n) => {
        for (let i = 0; i < n; i++) {
          const stream = await conn.newStream(rpc);
          await stream.close();
        }
      },
    };
  },

  pooled: (): Contender => {
    const conn = new Pool({ dial: (): Conn => new NoopConn() }).get("peer:1");
    return {
      name: "pooled",
      run: async (n) => {
        for (let i = 0; i < n; i++) {
          const stream = await conn.newStream(rpc);
          await stream.close();
        }
      },
    };
  },
};

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const all = [contenders.direct(), contenders.pooled()];
  const times = await race([contenders.invoke(), ...all], pace);
  yield { name: "direct newStream + close", value: times.ns("direct"), unit: "ns", ratio: 1 };
  for (const [title, race] of [
    ["handle.newStream + close", times],
    ["in a process of its own", await fresh("stream", ["invoke", "direct", "pooled"], pace)],
  ] as const) {
    const beyond = race.beyond("pooled", "direct");
    const ratio = race.ratio("pooled", "direct");
    yield {
      name: title,
      value: race.ns("pooled"),
      unit: "ns",
      ratio,
      ...atMostScaled(150, beyond, race.ns("invoke"), "direct"),
    };
  }
  for (const contender of all) {
    yield { name: `bytes: ${contender.name}`, value: await bytesPerOperation(contender), unit: "bytes" };
  }
}

export const stream: Section = { name: "stream", title: "a stream opened and closed", run, contenders };
