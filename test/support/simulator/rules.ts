import type { KeyLimits, Limits } from "../../../src/options.ts";

type TotalName = "capacity" | "maxConns" | "maxDials";
type KeyName = Exclude<keyof KeyLimits, "backoff" | "maxUses">;

const wide = (value: number): number => (value === 0 ? Number.POSITIVE_INFINITY : Math.max(value, 0));
const defaults: Partial<Record<KeyName, number>> = { maxWaiters: 1000, dialTimeoutMs: 20_000 };

/** What the pool was told, kept apart from what it made of it. 0 has become infinity, negative 0. */
export class Rules {
  #limits: Limits;
  readonly #keyLimits: (key: string) => KeyLimits;
  readonly #configured = new Map<string, KeyLimits>();
  /** Some limit was changed since the start: what was right by the old ones may stay for a while. */
  changed = false;
  backoffEver: boolean;
  minIdleEver: boolean;

  constructor(limits: Limits, keyLimits: (key: string) => KeyLimits) {
    this.#limits = limits;
    this.#keyLimits = keyLimits;
    this.backoffEver = Boolean(limits.backoff);
    this.minIdleEver = (limits.minIdle ?? 0) > 0;
  }

  /** Returns what takes it back. */
  configure(limits: Limits, key: string | undefined): () => void {
    const all = this.#limits;
    const own = key === undefined ? undefined : this.#configured.get(key);
    this.changed = true;
    this.backoffEver ||= Boolean(limits.backoff);
    this.minIdleEver ||= (limits.minIdle ?? 0) > 0;
    if (key === undefined) this.#limits = { ...this.#limits, ...limits };
    else this.#configured.set(key, { ...own, ...limits });
    return () => {
      this.#limits = all;
      if (key !== undefined) this.#configured.set(key, own ?? {});
    };
  }

  total(name: TotalName): number {
    return wide(this.#limits[name] ?? 0);
  }

  of(key: string, name: KeyName): number {
    return wide(this.#value(key, name) ?? defaults[name] ?? 0);
  }

  /** 1 at least; infinite: no limit. */
  maxUses(key: string): number {
    return Math.max(wide(this.#value(key, "maxUses") ?? 0), 1);
  }

  #value(key: string, name: KeyName | "maxUses"): number | undefined {
    return this.#configured.get(key)?.[name] ?? this.#keyLimits(key)[name] ?? this.#limits[name];
  }
}
