import type { PoolConn } from "../contract.ts";
import { unlimited } from "./config.ts";
import type { Roster } from "./entries.ts";
import type { Health } from "./health.ts";
import type { Member, Peer } from "./key-pool.ts";
import type { Keeper } from "./min-idle.ts";

/** What the options ask for at each lease and give-back beside counting, off the path of those who ask for nothing. */
export class Attendant<K, C extends PoolConn> {
  readonly #health: Health<K, C>;
  readonly #keeper: Keeper<K, C>;
  readonly #roster: Roster<K, C>;

  constructor(health: Health<K, C>, keeper: Keeper<K, C>, roster: Roster<K, C>) {
    this.#health = health;
    this.#keeper = keeper;
    this.#roster = roster;
  }

  /** Whether it has anything to do for a key. */
  isNeeded(peer: Peer<K, C>): boolean {
    const { minIdle, maxUses } = peer.rules;
    return (
      this.#health.attends ||
      this.#roster.selection === "fastest" ||
      minIdle > 0 ||
      maxUses < unlimited ||
      peer.conns().some(({ holds }) => holds)
    );
  }

  /** Counts a stream. Returns whether the key may lack conns now. */
  lease(conn: Member<K, C>): boolean {
    const peer = conn.home;
    const { minIdle, maxUses } = peer.rules;
    conn.latency?.changed(conn.streams, this.#roster.now());
    if (minIdle > 0) this.#keeper.used(peer);
    this.#roster.lease(conn);
    if (conn.holds && conn.streams === 1) conn.holdProcess(true);
    if (conn.uses >= maxUses) this.#roster.end(conn, "retired");
    return minIdle > 0;
  }

  /** Before a stream is uncounted. */
  releasing(conn: Member<K, C>): void {
    conn.latency?.ended(conn.streams, this.#roster.now());
    if (this.#health.validates) this.#health.used(conn);
    if (conn.home.rules.minIdle > 0) this.#keeper.used(conn.home);
  }

  /** After a stream has been uncounted. */
  released(conn: Member<K, C>): void {
    if (conn.holds && conn.idle) conn.holdProcess(false);
    this.#health.reset(conn);
  }
}
