import { checkClock, checkFunction, checkOneOf, checkOptions, checkString, checkTime } from "./argument.ts";
import { type Clock, systemClock } from "./clock.ts";
import type { PoolConn } from "./contract.ts";
import { defaultRules, limitNames, type Rules, withLimits } from "./limits.ts";
import type { PoolOptions, Selection } from "./options.ts";

const others = ["dial", "hashKey", "limits", "selection", "validate", "reset", "leakAfterMs", "name", "clock"];
const selections = ["oldest", "newest", "least-loaded", "fastest"];

/** The options of a pool, complete. */
export interface Settings<K, C extends PoolConn>
  extends Pick<PoolOptions<K, C>, "dial" | "hashKey" | "limits" | "validate" | "reset"> {
  readonly rules: Rules;
  readonly selection: Selection<C>;
  readonly leakAfterMs: number;
  readonly name: string;
  readonly clock: Clock;
}

/** Checks the options of a pool. Throws (`ERR_POOL_ARGUMENT`) on a wrong value or an unknown name. */
export function settingsOf<K, C extends PoolConn>(options: PoolOptions<K, C>): Settings<K, C> {
  checkOptions("the pool's options", options, [...limitNames, ...others]);
  const { dial, hashKey, limits, selection = "oldest", validate, reset, ...scalars } = options;
  const { leakAfterMs = 0, name = "pool", clock = systemClock, ...rest } = scalars;
  for (const [what, given] of Object.entries({ dial, hashKey, limits, validate, reset })) checkFunction(what, given);
  if (typeof selection !== "function") checkOneOf("selection", selection, selections);
  checkTime("leakAfterMs", leakAfterMs);
  checkString("name", name);
  checkClock(clock);
  const rules = withLimits(defaultRules, rest);
  return { dial, hashKey, limits, selection, validate, reset, leakAfterMs, name, clock, rules };
}
