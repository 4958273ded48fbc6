import type { Lease, PoolConn } from "../contract.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { Member } from "./key-pool.ts";
import type { Leaks, Ticket } from "./leaks.ts";

/** A stream slot in the hands of a caller. */
export class PoolLease<K, C extends PoolConn> implements Lease<C> {
  readonly conn: C;
  #member: Member<K, C> | undefined;
  readonly #dispatcher: Dispatcher<K, C>;

  constructor(member: Member<K, C>, dispatcher: Dispatcher<K, C>) {
    this.conn = member.conn;
    this.#member = member;
    this.#dispatcher = dispatcher;
  }

  release(): void {
    const member = this.#member;
    if (member === undefined) return;
    this.#member = undefined;
    this.#dispatcher.release(member);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** One that is missed if it does not come back. */
export class WatchedLease<K, C extends PoolConn> extends PoolLease<K, C> {
  readonly #leaks: Leaks<K, C>;
  readonly #ticket: Ticket<K, C>;

  /** `stack`: where it was taken. */
  constructor(member: Member<K, C>, dispatcher: Dispatcher<K, C>, leaks: Leaks<K, C>, stack: string) {
    super(member, dispatcher);
    this.#leaks = leaks;
    this.#ticket = leaks.taken(this, member, stack);
  }

  override release(): void {
    this.#leaks.released(this.#ticket);
    super.release();
  }
}
