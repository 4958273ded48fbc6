import { GoPeer, noGo } from "../interop/gopeer.ts";
import type { Pace } from "./row.ts";

/** What Go's drpcpool needs for one operation on conns that do nothing: nanoseconds of processor time, medians. */
export interface GoPool {
  /** `Take` and `Put` of the one conn of one key. */
  readonly takePut: number;
  readonly takePutExpiring: number;
  /** 100,000 keys with a conn each, which expire: `Put` of all into an empty pool. */
  readonly put100k: number;
  /** `Take` of all. */
  readonly take100k: number;
  /** `Take` and `Put`, key after key. */
  readonly cycle100k: number;
  /** A call through what `Get` has returned. */
  readonly invoke: number;
  /** A stream, opened and closed; its conn is back. */
  readonly stream: number;
}

/** One line of what the Go peer prints. */
interface Measured {
  readonly name: string;
  readonly ns: number;
}

/** Measures drpcpool; `undefined` where there is no Go. */
export async function goPool(pace: Pace): Promise<GoPool | undefined> {
  if (noGo !== false) return undefined;
  using go = new GoPeer();
  const out = await go.run("pool", pace.name === "short" ? "5" : "21");
  const measured = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Measured);
  const ns = (name: string): number => {
    const found = measured.find((one) => one.name === name);
    if (found === undefined) throw new Error(`the Go peer did not measure ${name}:\n${out}`);
    return found.ns;
  };
  return {
    takePut: ns("take_put"),
    takePutExpiring: ns("take_put_expiring"),
    put100k: ns("put_100k"),
    take100k: ns("take_100k"),
    cycle100k: ns("cycle_100k"),
    invoke: ns("invoke"),
    stream: ns("stream"),
  };
}
