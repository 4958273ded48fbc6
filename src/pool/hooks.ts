import type { PoolConn } from "../contract.ts";
import { unlimited } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** What options, and conns themselves, ask for at each lease and give-back beside counting. Keys without any skip this. */
export class Hooks<K, C extends PoolConn> {
  readonly #core: Core<K, C>;

  constructor(core: Core<K, C>) {
    this.#core = core;
  }

  /** The rules of a key have changed: sees whether it needs hooks. */
  ruled(key: KeyPool<K, C>): void {
    const { minIdle, maxUses } = key.rules;
    key.hasHooks =
      this.#core.health.validates ||
      this.#core.health.resets ||
      this.#core.selector.selection === "fastest" ||
      minIdle > 0 ||
      maxUses < unlimited ||
      key.entries().some(({ canUnref, life }) => canUnref || life !== undefined);
  }

  /** A conn has come. */
  entered(entry: Entry<K, C>): void {
    if (entry.canUnref || entry.life !== undefined) entry.key.hasHooks = true;
    if (entry.life !== undefined) this.#core.health.entered(entry.life);
  }

  /** Counts a stream. Returns whether the key may lack conns now. */
  lease(entry: Entry<K, C>): boolean {
    const { key } = entry;
    const { minIdle, maxUses } = key.rules;
    entry.someExtras?.latency?.changed(entry.streams, this.#core.timers.now());
    if (minIdle > 0) this.#core.minIdle.used(key);
    this.#core.entries.lease(entry);
    if (entry.canUnref && entry.streams === 1) entry.holdProcess(true);
    if (entry.uses >= maxUses) this.#core.entries.drain(entry, "retired");
    if (entry.life !== undefined && entry.streams === 1) this.#core.health.began(entry); // asks the conn, which may use the pool
    return minIdle > 0;
  }

  /** Before a stream is uncounted. */
  releasing(entry: Entry<K, C>): void {
    entry.someExtras?.latency?.ended(entry.streams, this.#core.timers.now());
    if (this.#core.health.validates) this.#core.health.used(entry);
    if (entry.key.rules.minIdle > 0) this.#core.minIdle.used(entry.key);
  }

  /** After a stream has been uncounted. */
  released(entry: Entry<K, C>): void {
    if (entry.canUnref && entry.isIdle) entry.holdProcess(false);
    if (entry.isIdle) this.#core.health.ended(entry);
    this.#core.health.reset(entry);
  }
}
