import { atMost, type Row, type Target } from "./row.ts";

/** The limits in nanoseconds were set where a direct `await conn.invoke()` takes so many. */
const directNs = 33;

/** A limit in nanoseconds for what takes `ratio` times as long as a direct call. */
export function atMostAsDirect(limitNs: number, ratio: number): Target {
  return atMost(limitNs / directNs, ratio);
}

/** A limit in nanoseconds for what takes `ns`, where a direct call of the same run takes `direct`. */
export function atMostScaled(
  limitNs: number,
  ns: number,
  direct: number,
  beyond: string,
): Required<Pick<Row, "target" | "note">> {
  return {
    target: atMost((limitNs * direct) / directNs, ns, "ns"),
    note: `beyond ${beyond}; ${limitNs} ns where a direct call takes ${directNs}, here ${direct.toFixed(0)}`,
  };
}
