import type { PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import type { Limits } from "../options.ts";
import type { Timers } from "../runtime/timers.ts";
import { type Config, checkMinIdle, type KeyRules, keyChanges, type Rules, withLimits } from "./config.ts";
import type { Core } from "./core.ts";
import { KeyPool } from "./key-pool.ts";
import { Counters } from "./stats.ts";

/** The keys that have something open, dialing or waiting, and the rules of each. Emptied keys leave no trace. */
export class KeyTable<K, C extends PoolConn> {
  /** Of the pool, and of each key that nothing else was said of. */
  rules: Rules;
  #objectKeys = 0;
  /** What the keys counted that are gone. */
  readonly forgotten: Counters = new Counters();
  readonly #config: Config<K, C>;
  readonly #timers: Timers;
  readonly #core: Core<K, C>;
  readonly #keys = new Map<unknown, KeyPool<K, C>>();
  /** What the pool's `limits` said of keys when they appeared. */
  readonly #limits = new Map<unknown, Partial<KeyRules>>();
  /** What `configure` said of single keys; it outlives them. */
  readonly #configured = new Map<unknown, Partial<KeyRules>>();

  constructor(config: Config<K, C>, timers: Timers, core: Core<K, C>) {
    this.rules = config.rules;
    this.#config = config;
    this.#timers = timers;
    this.#core = core;
  }

  [Symbol.iterator](): Iterator<KeyPool<K, C>> {
    return this.#keys.values();
  }

  /** What tells `key` from others. Throws for what is no key. */
  hash(key: K): unknown {
    const { hashKey } = this.#config;
    const hash = hashKey === undefined ? key : hashKey(key);
    return hash === undefined ? noKey(hashKey !== undefined) : hash;
  }

  find(hash: unknown): KeyPool<K, C> | undefined {
    return this.#keys.get(hash);
  }

  /** The limits of the pool as a whole. */
  get totals(): Pick<Rules, "capacity" | "maxConns" | "maxDials"> {
    const { capacity, maxConns, maxDials } = this.rules;
    return { capacity, maxConns, maxDials };
  }

  /** The record of a key, or what it would be: nothing is kept of that. */
  preview(key: K, hash: unknown): KeyPool<K, C> {
    return this.#keys.get(hash) ?? this.#make(key, hash, this.#ownLimits(key));
  }

  open(key: K, hash: unknown): KeyPool<K, C> {
    const known = this.#keys.get(hash);
    if (known !== undefined) return known;
    const limits = this.#ownLimits(key);
    const meanwhile = this.#keys.get(hash); // `limits` may have used the pool
    if (meanwhile !== undefined) return meanwhile;
    const opened = this.#make(key, hash, limits);
    if (limits !== undefined) this.#limits.set(hash, limits);
    this.#warnOfIdentity(key);
    this.#core.ruled(opened);
    this.#keys.set(hash, opened);
    return opened;
  }

  /** What the pool's `limits` says of a key. */
  #ownLimits(key: K): Partial<KeyRules> | undefined {
    const own = this.#config.limits?.(key);
    const limits = own === undefined ? undefined : keyChanges(own, "what `limits` returned");
    if (limits !== undefined) checkMinIdle(limits, this.#config.dial);
    return limits;
  }

  #make(key: K, hash: unknown, limits: Partial<KeyRules> | undefined): KeyPool<K, C> {
    return new KeyPool(key, hash, this.#rulesOf(limits, hash), this.#timers.now(), this.#core.resting);
  }

  forget(key: KeyPool<K, C>): void {
    if (this.#keys.get(key.hash) !== key) return;
    this.#keys.delete(key.hash);
    this.#limits.delete(key.hash);
    key.isAlive = false;
    key.addTo(this.forgotten);
  }

  /** Who holds the record of a key finds out that the pool is closed. */
  retireAll(): void {
    for (const key of this) key.isAlive = false;
  }

  /** New limits for all keys, or for one; checked before anything changes. */
  configure(limits: Limits, hash: unknown): void {
    const { dial } = this.#config;
    if (hash === undefined) {
      const rules = withLimits(this.rules, limits);
      checkMinIdle(rules, dial);
      this.rules = rules;
    } else {
      const changes = keyChanges(limits, "the limits of a key");
      checkMinIdle(changes, dial);
      this.#configured.set(hash, { ...this.#configured.get(hash), ...changes });
    }
    for (const key of this) key.rules = this.#rulesOf(this.#limits.get(key.hash), key.hash);
  }

  /** A new object for each call would get a conn for each call, without a word. */
  #warnOfIdentity(key: K): void {
    if (this.#config.hashKey !== undefined || typeof key !== "object" || key === null) return;
    if (++this.#objectKeys !== 2) return; // one object may be the only peer, and kept
    process.emitWarning(
      "keys that are objects are told apart by identity: two that look alike get conns of their own. Say with `hashKey` what tells them apart",
      { code: "RPC_CONN_POOL_OBJECT_KEY" },
    );
  }

  #rulesOf(limits: Partial<KeyRules> | undefined, hash: unknown): KeyRules {
    const configured = this.#configured.get(hash);
    if (limits === undefined && configured === undefined) return this.rules;
    return { ...this.rules, ...limits, ...configured };
  }
}

function noKey(isHashed: boolean): never {
  throw new PoolTypeError(
    isHashed ? "expected `hashKey` to return a Map key, got undefined" : "expected a key, got undefined",
  );
}
