import type { CloseReason, PoolConn } from "../contract.ts";
import type { Filter } from "../options.ts";
import { List } from "../runtime/list.ts";
import { Choice } from "./choice.ts";
import type { PooledConn } from "./entry.ts";

/** Conns without `onChange` whose slots are read again when nothing has room; bounded, so that a miss stays O(1). */
const rereads = 8;

/** The open conns of one key: which are free, and asking one that was chosen whether it really is. */
export abstract class Shelf<C extends PoolConn, H> extends Choice<C, H> {
  /** All open conns, free or not, draining ones included: a chain from the one longest here. */
  #oldest: PooledConn<C, H> | undefined = undefined;
  #youngest: PooledConn<C, H> | undefined = undefined;
  /** Where the next search for gained slots begins. */
  #toReread: PooledConn<C, H> | undefined = undefined;
  open = 0;
  /** Idle conns, blocked ones among them. */
  idleCount = 0;
  drainingCount = 0;

  /** A conn is open from now on. `place` makes it free. */
  enter(conn: PooledConn<C, H>): void {
    conn.older = this.#youngest;
    if (this.#youngest === undefined) this.#oldest = conn;
    else this.#youngest.younger = conn;
    this.#youngest = conn;
    this.open++;
  }

  leave(conn: PooledConn<C, H>): void {
    conn.list?.remove(conn);
    this.open--;
    const { older, younger } = conn;
    if (this.#toReread === conn) this.#toReread = younger;
    if (older === undefined) this.#oldest = younger;
    else older.younger = younger;
    if (younger === undefined) this.#youngest = older;
    else younger.older = older;
    conn.older = undefined;
    conn.younger = undefined;
  }

  /** A copy: what is done to one conn may close others. */
  conns(): PooledConn<C, H>[] {
    const conns: PooledConn<C, H>[] = [];
    for (let conn = this.#oldest; conn !== undefined; conn = conn.younger) conns.push(conn);
    return conns;
  }

  /** Puts a conn into the list that its state asks for: one that is full, blocked or draining into none. */
  place(conn: PooledConn<C, H>): void {
    const slots = conn.ready && !conn.blocked ? this.slots(conn) : 0;
    if (!conn.open) return; // to ask for its slots has closed it
    const list = conn.ready && !conn.blocked && conn.streams < slots ? this.listFor(conn.streams) : undefined;
    if (conn.list === list) return;
    conn.list?.remove(conn);
    if (list === this.idle) this.#pushIdle(conn);
    else list?.push(conn);
  }

  /** A stream has begun on the conn that `pick` chose. */
  begun(conn: PooledConn<C, H>): void {
    if (conn.streams < conn.slots) this.hasRoom(conn);
    else conn.list?.remove(conn);
  }

  protected hasRoom(conn: PooledConn<C, H>): void {
    const list = this.listFor(conn.streams);
    if (conn.list === list) return;
    conn.list?.remove(conn);
    list.push(conn);
  }

  /** A stream has ended. An idle conn is listed unasked: its slots are read when it is picked. */
  ended(conn: PooledConn<C, H>): void {
    if (conn.streams > 0 || conn.blocked || conn.list !== undefined) this.place(conn);
    else this.idle.push(conn);
  }

  /** A conn that was blocked goes back to the place that its give-back earned. */
  #pushIdle(conn: PooledConn<C, H>): void {
    const { tail } = this.idle;
    if (tail === undefined || tail.givenBack <= conn.givenBack) {
      this.idle.push(conn);
      return;
    }
    let next = this.idle.head;
    while (next !== undefined && next.givenBack < conn.givenBack) next = next.next;
    if (next === undefined) this.idle.push(conn);
    else this.idle.insert(conn, next);
  }

  /** The conn to use next; the caller leases it before anything else happens. */
  pick(filter: Filter<C> | undefined): PooledConn<C, H> | undefined {
    if (filter === undefined && this.owner.inLine) {
      const conn = this.roomy?.head ?? this.idle.head;
      if (conn === undefined || this.free(conn)) return conn;
    }
    return this.pickAsked(filter);
  }

  protected pickAsked(filter: Filter<C> | undefined): PooledConn<C, H> | undefined {
    if (filter !== undefined) return this.#search(filter, false);
    const { isDue } = this.owner;
    for (let conn = this.choose(); conn !== undefined; conn = this.choose()) {
      if (isDue?.(conn)) {
        conn.list?.remove(conn);
        this.stale ??= new List();
        this.stale.push(conn);
      } else if (this.free(conn)) return conn;
    }
    return undefined;
  }

  /** The same, but for a conn that runs no stream. */
  pickIdle(): PooledConn<C, H> | undefined {
    this.#restore();
    for (let conn = this.idle.head; conn !== undefined; conn = this.idle.head) {
      if (this.free(conn) && conn.idle) return conn;
    }
    return undefined;
  }

  /** A conn that may be used once it has been validated. `pick` has found none that may be used now. */
  pickDue(filter: Filter<C> | undefined): PooledConn<C, H> | undefined {
    if (this.owner.isDue === undefined) return undefined;
    if (filter !== undefined) return this.#search(filter, true);
    for (let conn = this.stale?.head; conn !== undefined; conn = this.stale?.head) if (this.free(conn)) return conn;
    return undefined;
  }

  /** Filters may change anything, so a copy is walked, and each conn is looked at again after its filter. */
  #search(filter: Filter<C>, due: boolean): PooledConn<C, H> | undefined {
    const { isDue, selection } = this.owner;
    const select = typeof selection === "function" ? selection : undefined;
    const fit: PooledConn<C, H>[] = [];
    for (const conn of this.inOrder()) {
      const { home } = conn;
      if (!this.listed(conn) || (isDue?.(conn) ?? false) !== due || !this.passes(conn, filter)) continue;
      if (!this.listed(conn) || conn.home !== home || !this.free(conn)) continue;
      if (select === undefined) return conn;
      fit.push(conn);
    }
    return select === undefined ? undefined : this.ask(select, fit);
  }

  /** Puts back what was set aside. From the youngest on: each goes to the front, without a walk. */
  #restore(): void {
    for (let conn = this.stale?.tail; conn !== undefined; conn = this.stale?.tail) this.place(conn);
  }

  /** Asks a listed conn whether it may be used now. One that may not leaves the list. */
  protected free(member: PooledConn<C, H>): boolean {
    const { conn, list } = member;
    let until: PromiseLike<unknown> | undefined;
    try {
      if (conn.draining === true) return this.refuse(member, "goaway");
      // A conn just dialed is free: only after its first stream is it asked, or once it has been in other hands.
      if (member.asks) until = conn.unblocked?.();
      member.slots = this.slotsOf(conn);
    } catch {
      return this.refuse(member, "blocked");
    }
    // To ask it may have changed it, and even moved it to another key.
    if (until === undefined && member.list === list && member.streams < member.slots) return true;
    return this.skip(member, until, list);
  }

  protected refuse(conn: PooledConn<C, H>, reason: CloseReason): false {
    this.owner.end(conn, reason);
    return false;
  }

  protected skip(
    conn: PooledConn<C, H>,
    until: PromiseLike<unknown> | undefined,
    list: List<PooledConn<C, H>> | undefined,
  ): false {
    if (until !== undefined) this.owner.block(conn, until);
    else if (conn.list === list) this.place(conn);
    return false;
  }

  /** Whether any conn is worth asking for. Where none is, a long queue need not be walked. */
  get hasFree(): boolean {
    return this.idle.head !== undefined || this.roomy?.head !== undefined || this.loads?.least !== undefined;
  }

  /** Looks for slots that a conn without `onChange` has gained; each has its turn. */
  reread(most: number = rereads): boolean {
    for (let left = Math.min(most, this.open); left > 0; left--) {
      const conn = this.#toReread ?? this.#oldest;
      if (conn === undefined) return false;
      this.#toReread = conn.younger;
      if (conn.list !== undefined || conn.conn.maxStreams === undefined || conn.conn.onChange !== undefined) continue;
      if (conn.streams >= this.slots(conn)) continue;
      this.place(conn);
      if (this.listed(conn)) return true;
    }
    return false;
  }

  /** The idle conn that was given back first, blocked ones included. */
  oldestIdle(): PooledConn<C, H> | undefined {
    this.#restore();
    const sorted = this.owner.selection !== "fastest"; // that one turns the list over
    let oldest = sorted ? this.idle.head : undefined;
    if (!sorted || this.idleCount > this.idle.size) {
      for (const conn of this.conns()) {
        if (conn.idle && (oldest === undefined || conn.givenBack < oldest.givenBack)) oldest = conn;
      }
    }
    return oldest;
  }
}
