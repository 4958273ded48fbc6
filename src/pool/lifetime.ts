import type { PoolConn } from "../contract.ts";
import { attempt } from "../runtime/guard.ts";
import type { Schedule } from "../runtime/timers.ts";
import type { Member, Peer } from "./key-pool.ts";

/** Conns of one age should not all go at once: HikariCP's variance, 2.5 % at most, and only earlier. */
const jitter = 0.025;

/** How old conns may grow. */
export class Lifetimes<K, C extends PoolConn> {
  readonly #schedule: Schedule;
  readonly #over: (conn: Member<K, C>) => void;

  /** `over` is called when a conn's time is over. */
  constructor(schedule: Schedule, over: (conn: Member<K, C>) => void) {
    this.#schedule = schedule;
    this.#over = over;
  }

  /** How long `conn` has to live as one of `peer`'s, jitter taken off; infinite: for ever. */
  left(conn: Member<K, C>, peer: Peer<K, C>): number {
    const lifeMs = attempt(() => conn.conn.maxLifetimeMs) ?? peer.rules.maxLifetimeMs;
    if (!(lifeMs > 0 && lifeMs < Number.POSITIVE_INFINITY)) return Number.POSITIVE_INFINITY;
    return lifeMs * (1 - Math.random() * jitter) - (this.#schedule.clock.now() - conn.openedAt);
  }

  /** Its time runs, by the rules of its key; or no more, if it has left. */
  limit(conn: Member<K, C>): void {
    const left = conn.open ? this.left(conn, conn.home) : Number.POSITIVE_INFINITY;
    if (left < Number.POSITIVE_INFINITY) this.extend(conn, left);
    else if (conn.lifetime !== undefined) this.#schedule.cancel(conn.lifetime);
  }

  extend(conn: Member<K, C>, ms: number): void {
    conn.lifetime ??= { due: 0, place: -1, run: () => this.#over(conn) };
    this.#schedule.add(conn.lifetime, ms);
  }
}
