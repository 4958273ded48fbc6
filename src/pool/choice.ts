import type { CloseReason, PoolConn } from "../contract.ts";
import type { ConnInfo, Filter, Select, Selection } from "../options.ts";
import { List } from "../runtime/list.ts";
import type { KeyRules } from "./config.ts";
import type { PooledConn } from "./entry.ts";
import { Loads } from "./selection.ts";

/** Conns that `"fastest"` compares at a choice; those that lose go to the end, so that each has its turn. */
const compared = 16;

/** What is the same for all keys of a pool; it is told of conns that cannot be handed out. */
export interface ShelfOwner<C extends PoolConn, M> {
  readonly selection: Selection<C>;
  /** Conns are validated before reuse: is this one due? Absent: none ever is. */
  readonly isDue: ((conn: M) => boolean) | undefined;
  /** The first in line is the one to use, always. */
  readonly inLine: boolean;
  now(): number;
  end(conn: M, reason: CloseReason): void;
  block(conn: M, until: PromiseLike<unknown>): void;
}

/** The free conns of one key, and which of them is chosen. */
export abstract class Choice<C extends PoolConn, H> {
  rules: KeyRules;
  /** Free, no stream: the one longest idle first. */
  readonly idle: List<PooledConn<C, H>> = new List();
  /** Free, with streams: the one longest with room first. */
  roomy: List<PooledConn<C, H>> | undefined = undefined;
  /** Instead of `roomy`, where the load decides. */
  protected readonly loads: Loads<PooledConn<C, H>> | undefined;
  /** Free, but due for validation: a search set them aside, so that the next does not meet them again. */
  protected stale: List<PooledConn<C, H>> | undefined = undefined;
  protected readonly owner: ShelfOwner<C, PooledConn<C, H>>;

  constructor(rules: KeyRules, owner: ShelfOwner<C, PooledConn<C, H>>) {
    this.rules = rules;
    this.owner = owner;
    this.loads = owner.selection === "least-loaded" ? new Loads() : undefined;
  }

  /** Slots now, read anew each time: a peer may raise or lower its limit at any moment. */
  slots(conn: PooledConn<C, H>): number {
    try {
      return this.slotsOf(conn.conn);
    } catch {
      return 0; // a getter that throws: none now
    }
  }

  /** NaN stays NaN: no stream fits in. */
  protected slotsOf({ maxStreams = 1 }: C): number {
    const cap = this.rules.maxStreams;
    return maxStreams > cap ? cap : maxStreams;
  }

  info(conn: PooledConn<C, H>): ConnInfo {
    return conn.info(this.owner.now(), this.slots(conn));
  }

  /** Whether `conn` could ever serve a request with that filter. */
  suits(conn: PooledConn<C, H>, filter: Filter<C> | undefined): boolean {
    return this.slots(conn) > 0 && this.passes(conn, filter);
  }

  passes(conn: PooledConn<C, H>, filter: Filter<C> | undefined): boolean {
    if (filter === undefined) return true;
    try {
      const verdict: unknown = filter(conn.conn, this.info(conn));
      if (typeof verdict === "object") Promise.resolve(verdict).catch(() => {}); // an async filter passes nothing
      return verdict === true;
    } catch {
      return false;
    }
  }

  protected listed(conn: PooledConn<C, H>): boolean {
    return conn.list !== undefined;
  }

  protected listFor(streams: number): List<PooledConn<C, H>> {
    if (streams === 0) return this.idle;
    if (this.loads !== undefined) return this.loads.of(streams);
    this.roomy ??= new List();
    return this.roomy;
  }

  protected choose(): PooledConn<C, H> | undefined {
    switch (this.owner.selection) {
      case "oldest":
        return this.roomy?.head ?? this.idle.head;
      case "newest":
        return this.roomy?.tail ?? this.idle.tail;
      case "least-loaded":
        return this.idle.head ?? this.loads?.least;
      case "fastest":
        return this.#fastest(this.owner.now());
      default:
        return this.ask(this.owner.selection, [...(this.roomy ?? []), ...this.idle]);
    }
  }

  #fastest(now: number): PooledConn<C, H> | undefined {
    let best: PooledConn<C, H> | undefined;
    for (const list of this.roomy === undefined ? [this.idle] : [this.roomy, this.idle]) {
      for (let left = Math.min(compared, list.size); left > 0; left--) {
        const conn = list.head;
        if (conn === undefined) break;
        list.remove(conn);
        list.push(conn);
        if (best === undefined || conn.cost(now) < best.cost(now)) best = conn;
      }
    }
    return best;
  }

  /** A copy of what is free, best first where an order is known. */
  protected inOrder(): PooledConn<C, H>[] {
    const stale = this.stale ?? [];
    const conns = [...stale, ...(this.roomy ?? []), ...this.idle];
    switch (this.owner.selection) {
      case "newest":
        return conns.reverse();
      case "least-loaded":
        return [...stale, ...this.idle, ...(this.loads ?? [])].sort((a, b) => a.streams - b.streams);
      case "fastest": {
        const at = this.owner.now();
        return conns.sort((a, b) => a.cost(at) - b.cost(at));
      }
      default:
        return conns;
    }
  }

  /** What the caller's function chooses; the first, if it throws or chooses none of them. */
  protected ask(select: Select<C>, conns: readonly PooledConn<C, H>[]): PooledConn<C, H> | undefined {
    if (conns.length === 0) return undefined;
    let chosen: C | undefined;
    try {
      const infos = conns.map((conn) => this.info(conn));
      chosen = select(
        conns.map(({ conn }) => conn),
        infos,
      );
    } catch {
      // The first, then.
    }
    const listed = conns.filter((conn) => this.listed(conn)); // to ask may have changed them
    return listed.find(({ conn }) => conn === chosen) ?? listed[0];
  }
}
