import type { KeyLimits, Limits } from "../../../src/options.ts";

type CountName = "capacity" | "keyCapacity" | "maxConns" | "maxKeyConns" | "maxStreams" | "maxKeyDials" | "maxWaiters";
type TimeName = "expirationMs" | "waitTimeoutMs" | "dialTimeoutMs" | "maxLifetimeMs";

const wide = (value: number): number => (value === 0 ? Number.POSITIVE_INFINITY : Math.max(value, 0));

/** What the pool was told, kept apart from what it made of it. */
export class StressRules {
  #limits: Limits;
  readonly #own = new Map<string, KeyLimits>();
  /** Some limit was lowered or raised since the start: what was right by the old ones may stay for a while. */
  changed = false;
  backoffEver: boolean;
  minIdleEver: boolean;

  constructor(limits: Limits) {
    this.#limits = limits;
    this.backoffEver = Boolean(limits.backoff);
    this.minIdleEver = Boolean(limits.minIdle);
  }

  configure(limits: Limits, key: string | undefined): void {
    this.changed = true;
    this.backoffEver ||= Boolean(limits.backoff);
    this.minIdleEver ||= Boolean(limits.minIdle);
    const given = Object.fromEntries(Object.entries(limits).filter(([, value]) => value !== undefined));
    if (key === undefined) this.#limits = { ...this.#limits, ...given };
    else this.#own.set(key, { ...this.#own.get(key), ...given });
  }

  total(name: "capacity" | "maxConns"): number {
    return wide(this.#limits[name] ?? 0);
  }

  of(key: string, name: Exclude<CountName, "capacity" | "maxConns"> | TimeName): number {
    const fallback = name === "maxWaiters" ? 1000 : name === "dialTimeoutMs" ? 20_000 : 0;
    return wide(this.#own.get(key)?.[name] ?? this.#limits[name] ?? fallback);
  }

  /** 1 at least; infinite: no limit. */
  maxUses(key: string): number {
    return Math.max(wide(this.#own.get(key)?.maxUses ?? this.#limits.maxUses ?? 0), 1);
  }
}
