import type { PooledConn } from "./conn.ts";
import type { PoolConn } from "./contract.ts";
import type { KeyRules } from "./limits.ts";
import { List } from "./list.ts";
import type { ConnInfo, Filter, Select, Selection } from "./options.ts";
import { Loads } from "./selection.ts";

/** Conns that `"fastest"` compares at a choice; those that lose go to the end, so that each has its turn. */
const compared = 16;

/** The free conns of one key, and which of them is chosen. */
export abstract class Choice<C extends PoolConn, H> {
  rules: KeyRules;
  /** Free, no stream: the one longest idle first. */
  readonly idle: List<PooledConn<C, H>> = new List();
  /** Free, with streams: the one longest with room first. */
  readonly roomy: List<PooledConn<C, H>> = new List();
  /** Instead of `roomy`, where the load decides. */
  protected readonly loads: Loads<PooledConn<C, H>> | undefined;
  /** Free, but due for validation: a search set them aside, so that the next does not meet them again. */
  protected readonly stale: List<PooledConn<C, H>> = new List();
  protected readonly selection: Selection<C>;

  constructor(rules: KeyRules, selection: Selection<C>) {
    this.rules = rules;
    this.selection = selection;
    this.loads = selection === "least-loaded" ? new Loads() : undefined;
  }

  /** Slots now, read anew each time: a peer may raise or lower its limit at any moment. */
  slots(conn: PooledConn<C, H>): number {
    try {
      return this.slotsOf(conn.conn);
    } catch {
      return 0; // a getter that throws: none now
    }
  }

  protected slotsOf({ maxStreams = 1 }: C): number {
    return Math.min(maxStreams, this.rules.maxStreams);
  }

  info(conn: PooledConn<C, H>, now: number): ConnInfo {
    return conn.info(now, this.slots(conn));
  }

  /** Whether `conn` could ever serve a request with that filter. */
  suits(conn: PooledConn<C, H>, filter: Filter<C> | undefined, now: () => number): boolean {
    return this.slots(conn) > 0 && this.passes(conn, filter, now);
  }

  passes(conn: PooledConn<C, H>, filter: Filter<C> | undefined, now: () => number): boolean {
    if (filter === undefined) return true;
    try {
      const verdict: unknown = filter(conn.conn, this.info(conn, now()));
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
    return streams === 0 ? this.idle : (this.loads?.of(streams) ?? this.roomy);
  }

  protected choose(now: () => number): PooledConn<C, H> | undefined {
    switch (this.selection) {
      case "oldest":
        return this.roomy.head ?? this.idle.head;
      case "newest":
        return this.roomy.tail ?? this.idle.tail;
      case "least-loaded":
        return this.idle.head ?? this.loads?.least;
      case "fastest":
        return this.#fastest(now());
      default:
        return this.ask(this.selection, [...this.roomy, ...this.idle], now());
    }
  }

  #fastest(now: number): PooledConn<C, H> | undefined {
    let best: PooledConn<C, H> | undefined;
    for (const list of [this.roomy, this.idle]) {
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
  protected inOrder(now: () => number): PooledConn<C, H>[] {
    const conns = [...this.stale, ...this.roomy, ...this.idle];
    switch (this.selection) {
      case "newest":
        return conns.reverse();
      case "least-loaded":
        return [...this.stale, ...this.idle, ...(this.loads ?? [])].sort((a, b) => a.streams - b.streams);
      case "fastest": {
        const at = now();
        return conns.sort((a, b) => a.cost(at) - b.cost(at));
      }
      default:
        return conns;
    }
  }

  /** What the caller's function chooses; the first, if it throws or chooses none of them. */
  protected ask(select: Select<C>, conns: readonly PooledConn<C, H>[], now: number): PooledConn<C, H> | undefined {
    if (conns.length === 0) return undefined;
    let chosen: C | undefined;
    try {
      const infos = conns.map((conn) => this.info(conn, now));
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
