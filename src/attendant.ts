import type { PoolConn } from "./contract.ts";
import type { Health } from "./health.ts";
import type { Keeper } from "./keeper.ts";
import type { Member, Peer } from "./peer.ts";

/** What the options ask for at each lease and give-back beside counting, off the path of those who ask for nothing. */
export class Attendant<K, C extends PoolConn> {
  readonly #health: Health<K, C>;
  readonly #keeper: Keeper<K, C>;
  readonly #now: () => number;

  constructor(health: Health<K, C>, keeper: Keeper<K, C>, now: () => number) {
    this.#health = health;
    this.#keeper = keeper;
    this.#now = now;
  }

  /** Whether it has anything to do for a key. */
  isNeeded(peer: Peer<K, C>): boolean {
    return this.#health.attends || peer.measured || peer.rules.minIdle > 0;
  }

  /** Before a stream is counted. */
  leasing(conn: Member<K, C>): void {
    conn.latency?.changed(conn.streams, this.#now());
    if (conn.home.rules.minIdle > 0) this.#keeper.used(conn.home);
  }

  /** Before a stream is uncounted. */
  releasing(conn: Member<K, C>): void {
    conn.latency?.ended(conn.streams, this.#now());
    if (this.#health.validates) this.#health.used(conn);
    if (conn.home.rules.minIdle > 0) this.#keeper.used(conn.home);
  }
}
