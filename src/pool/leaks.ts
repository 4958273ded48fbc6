import { show } from "../argument.ts";
import type { Lease, PoolConn } from "../contract.ts";
import type { Schedule, Task } from "../runtime/timers.ts";
import type { Events } from "./events.ts";
import type { Member } from "./key-pool.ts";

/** What is known of a lease that is out. It must not refer to the lease, which could not be collected then. */
export interface Ticket<K, C extends PoolConn> extends Task {
  readonly member: Member<K, C>;
  readonly since: number;
  readonly stack: string;
}

/** Finds leases that are not given back: those older than a limit, and those that nobody can give back any more. */
export class Leaks<K, C extends PoolConn> {
  readonly #afterMs: number;
  readonly #schedule: Schedule;
  readonly #events: Events<K, C>;
  readonly #tickets = new Set<Ticket<K, C>>();
  readonly #collected = new FinalizationRegistry<Ticket<K, C>>((ticket) => {
    this.#report(ticket, true);
    this.released(ticket);
  });

  constructor(afterMs: number, schedule: Schedule, events: Events<K, C>) {
    this.#afterMs = afterMs;
    this.#schedule = schedule;
    this.#events = events;
  }

  /** Where the caller of the pool's method is: taken before it waits, since the way back is lost then. */
  static where(): string {
    const frames = new Error().stack?.split("\n") ?? [];
    return frames.slice(3).join("\n"); // without the message, this method and the pool's
  }

  taken(lease: Lease<C>, member: Member<K, C>, stack: string): Ticket<K, C> {
    const since = this.#schedule.clock.now();
    const ticket: Ticket<K, C> = { due: 0, place: -1, member, since, stack, run: () => this.#report(ticket, false) };
    this.#tickets.add(ticket);
    this.#schedule.add(ticket, this.#afterMs);
    this.#collected.register(lease, ticket, ticket);
    return ticket;
  }

  /** The pool is closed: nobody needs the slots any more. */
  stop(): void {
    for (const ticket of this.#tickets) this.released(ticket);
  }

  released(ticket: Ticket<K, C>): void {
    this.#tickets.delete(ticket);
    this.#schedule.cancel(ticket);
    this.#collected.unregister(ticket);
  }

  #report({ member, since, stack }: Ticket<K, C>, collected: boolean): void {
    const { key } = member.home;
    const ms = this.#schedule.clock.now() - since;
    const how = collected ? "was collected as garbage, and never released" : "has not been released";
    process.emitWarning(`a lease for ${show(key)}, taken ${Math.round(ms)} ms ago, ${how}. It was taken\n${stack}`, {
      code: "RPC_CONN_POOL_LEAK",
    });
    this.#events.leaked.emit(() => ({ key, conn: member.conn, ms, collected, stack }));
  }
}
