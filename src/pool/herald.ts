import type { PoolConn } from "../contract.ts";
import type { Failure } from "../runtime/guard.ts";
import type { Schedule } from "../runtime/timers.ts";
import type { Events, PoolEvents } from "./events.ts";
import type { Member } from "./key-pool.ts";

/** Tells what happens to conns. Apart from its callers: a closure in those would cost an allocation at each call. */
export class Herald<K, C extends PoolConn> {
  readonly #events: Events<K, C>;
  readonly #schedule: Schedule;

  constructor(events: Events<K, C>, schedule: Schedule) {
    this.#events = events;
    this.#schedule = schedule;
  }

  leased(conn: Member<K, C>): void {
    this.#tell("leased", conn);
  }

  released(conn: Member<K, C>): void {
    this.#tell("released", conn);
  }

  drained(conn: Member<K, C>): void {
    this.#events.drained.emit(() => this.#epitaph(conn));
  }

  /** `closing`: what its `close()` brings; absent: it died. */
  closed(conn: Member<K, C>, closing: Promise<Failure | undefined> | undefined): void {
    const { reason } = conn;
    if (reason === "evicted" || reason === "expired" || reason === "retired") {
      this.#events[reason].emit(() => this.#epitaph(conn));
    }
    const { closed } = this.#events;
    if (closing === undefined) closed.emit(() => this.#epitaph(conn));
    else if (closed.active) void closing.then((failure) => closed.emit(() => ({ ...this.#epitaph(conn), ...failure })));
  }

  #tell(name: "leased" | "released", conn: Member<K, C>): void {
    this.#events[name].emit(() => ({ key: conn.home.key, conn: conn.conn }));
  }

  #epitaph(conn: Member<K, C>): PoolEvents<K, C>["evicted"] {
    const ageMs = Math.max(this.#schedule.clock.now() - conn.openedAt, 0);
    return { key: conn.home.key, conn: conn.conn, reason: conn.reason, ageMs, uses: conn.uses };
  }
}
