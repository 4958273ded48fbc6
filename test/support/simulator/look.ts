import type { PoolStats } from "../../../src/pool/stats.ts";
import type { Caller, Outcome } from "./callers.ts";
import type { SimConn } from "./conn.ts";
import { keys } from "./plan.ts";
import type { World } from "./world.ts";

/** What the world knows of one key, or of all, when it has settled. */
export interface Seen {
  readonly open: SimConn[];
  readonly waiting: Caller[];
  dialing: number;
  idle: number;
  streams: number;
  /** Open, and certainly not about to drain. */
  sure: number;
  /** What the pool says; of single keys it is asked now and then. */
  readonly stats: PoolStats | undefined;
}

/** How many callers of a kind there are, and of how many of them the pool may not know. */
interface Count {
  all: number;
  unsure: number;
}

/** One look at a world that has settled: everything is counted once, for all the rules. */
export class Look {
  readonly stats: PoolStats;
  readonly all: Seen;
  readonly of: ReadonlyMap<string, Seen>;
  /** Callers who asked for a lease, and how each wait has ended. */
  readonly asked: Count = { all: 0, unsure: 0 };
  readonly outcomes = new Map<Outcome, Count>();
  /** Callers whom the pool may have counted twice, or not at all. */
  again = 0;
  faulted = 0;

  constructor(world: World, closely: boolean) {
    this.stats = world.pool.stats();
    this.all = seen(this.stats);
    this.of = new Map(keys.map((key) => [key, seen(closely ? world.pool.stats(key) : undefined)]));
    for (const conn of world.conns) this.#conn(world, conn);
    for (const { key, settled, signal } of world.dials) {
      if (!settled && !signal.aborted) for (const one of this.#both(key)) one.dialing++;
    }
    for (const caller of world.callers) this.#caller(world, caller);
  }

  *[Symbol.iterator](): Generator<[string, Seen], void, undefined> {
    yield* this.of;
  }

  #both(key: string): Seen[] {
    const of = this.of.get(key);
    return of === undefined ? [this.all] : [this.all, of];
  }

  #conn(world: World, conn: SimConn): void {
    if (!conn.open) return;
    const { running } = conn;
    const sure = !world.mayDrain(conn);
    for (const one of this.#both(conn.key)) {
      one.open.push(conn);
      one.streams += running;
      if (running === 0) one.idle++;
      if (sure) one.sure++;
    }
  }

  #caller(world: World, caller: Caller): void {
    const { state, kind, outcome, late, resent, resends, key } = caller;
    if (state === "waiting") for (const one of this.#both(key)) one.waiting.push(caller);
    if (outcome === "faulted") this.faulted++;
    if (kind === "warm" || outcome === "faulted") return;
    this.asked.all++;
    if (late || kind === "try" || (outcome === "aborted" && !world.strict)) this.asked.unsure++;
    if (resent || resends) this.again++;
    if (outcome === undefined) return;
    // While a backoff runs, the last dial error is a refusal: which of both it was, the caller cannot tell.
    const either = outcome === "failed" && world.rules.backoffEver;
    this.#outcome(outcome, either || late || resent || kind === "try" || !world.strict);
    if (either) this.#outcome("refused", true);
  }

  #outcome(outcome: Outcome, unsure: boolean): void {
    const count = this.outcomes.get(outcome) ?? { all: 0, unsure: 0 };
    this.outcomes.set(outcome, count);
    count.all++;
    if (unsure) count.unsure++;
  }
}

function seen(stats: PoolStats | undefined): Seen {
  return { open: [], waiting: [], dialing: 0, idle: 0, streams: 0, sure: 0, stats };
}
