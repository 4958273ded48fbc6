import { checkClock, checkFunction, checkOneOf, checkOptions, checkString, checkTime } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import type { PoolOptions, Selection } from "../options.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { defaultRules, limitNames, type Rules, withLimits } from "./config.ts";

const otherNames = ["dial", "hashKey", "limits", "selection", "validate", "reset", "name", "clock", "leakAfterMs"];

/** The options of a pool, checked and complete. */
export interface Settings<K, C extends PoolConn>
  extends Pick<PoolOptions<K, C>, "dial" | "hashKey" | "limits" | "validate" | "reset"> {
  readonly selection: Selection<C>;
  readonly name: string;
  readonly clock: Clock;
  readonly leakAfterMs: number;
  readonly rules: Rules;
}

export function settingsOf<K, C extends PoolConn>(options: PoolOptions<K, C>): Settings<K, C> {
  checkOptions("the pool's options", options, [...limitNames, ...otherNames]);
  const { dial, hashKey, limits, validate, reset, ...others } = options;
  const { selection = "oldest", name = "pool", clock = systemClock, leakAfterMs = 0, ...rest } = others;
  for (const [option, value] of Object.entries({ dial, hashKey, limits, validate, reset }))
    checkFunction(option, value);
  if (typeof selection !== "function") {
    checkOneOf("selection", selection, ["oldest", "newest", "least-loaded", "fastest"]);
  }
  checkString("name", name);
  checkClock(clock);
  checkTime("leakAfterMs", leakAfterMs);
  const rules = withLimits(defaultRules, rest);
  return { dial, hashKey, limits, validate, reset, selection, name, clock, leakAfterMs, rules };
}
