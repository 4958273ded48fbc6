import type { Conn, Dial } from "../../../src/contract.ts";
import { ConnClosedError } from "../../../src/errors.ts";
import type { ConnInfo, KeyLimits, Limits, PoolOptions } from "../../../src/options.ts";
import type { PoolEventName } from "../../../src/pool/events.ts";
import { Pool } from "../../../src/pool/pool.ts";
import { deferred } from "../conn.ts";
import type { Caller, Held, SimDial } from "./callers.ts";
import { type ConnOwner, type SimCall, SimConn } from "./conn.ts";
import { atClose, atDial, atGrant } from "./invariants.ts";
import { Machine } from "./machine.ts";
import { Mischief } from "./mischief.ts";
import { longestPauseMs, type Plan } from "./plan.ts";
import { Rules } from "./rules.ts";
import { trace } from "./trace.ts";

const eventNames: readonly PoolEventName[] = [
  "dialed",
  "dialFailed",
  "abandoned",
  "leased",
  "released",
  "waiting",
  "served",
  "timedOut",
  "refused",
  "aborted",
  "failed",
  "evicted",
  "expired",
  "retired",
  "drained",
  "closed",
  "cleared",
];

/** Limits that some keys have of their own, where the plan says so. */
const keyLimits = (key: string): KeyLimits => (key === "b" ? { maxKeyConns: 1 } : key === "c" ? { maxStreams: 2 } : {});

/** A pool, the network under it, the callers above it, and all that is known of it without asking it. */
/** Nothing can be kept ready where the pool has no dial of its own: it refuses `minIdle` then. */
export function possible(limits: Limits, { ownDial }: Pick<Plan, "ownDial">): Limits {
  const { minIdle: _, ...others } = limits;
  return ownDial ? limits : others;
}

export class World implements ConnOwner {
  readonly machine: Machine = new Machine();
  readonly mischief: Mischief;
  readonly pool: Pool<string, Conn>;
  readonly plan: Plan;
  readonly rules: Rules;
  readonly conns: SimConn[] = [];
  readonly dials: SimDial[] = [];
  readonly callers: Caller[] = [];
  readonly held: Held[] = [];
  readonly taken: SimConn[] = [];
  readonly handles = new Map<string, Conn>();
  readonly signals: AbortController[] = [];
  /** How often each event came, and the reasons that `closed` gave for each conn. */
  readonly events = new Map<PoolEventName, number>();
  readonly reasons = new Map<SimConn, string[]>();
  /** When a dial of the key last failed or was given up, and in which burst. */
  readonly failedAt = new Map<string, { readonly at: number; readonly burst: number }>();
  /** When a dial of the key last brought a conn that some callers cannot use, or none of them. */
  readonly unsuited = new Map<string, { readonly burst: number; readonly all: boolean }>();
  /** Keys with dials that no caller waits for, perhaps. */
  readonly warmed = new Set<string>();
  /** Counts the groups of commands between which everything settles. */
  burst = 0;
  configuredAt = 0;
  readonly pingedAt = new Map<string, number>(); // by key
  /** The limits are being changed. What a callback does before the pool knows the new ones is not judged by those. */
  configures = false;
  /** A conn is on its way to the caller of `take`, who does not see it yet. */
  taking = 0;
  closing = false;
  graceEnds: number = Number.POSITIVE_INFINITY;
  /** The faults have stopped: all dials, calls and closes go well from now on. */
  healed = false;
  closeFailures = 0;
  /** Dials and calls end only when a command says so. */
  manual = false;
  violation: string | undefined;
  #releases = 0;
  readonly #leaving = new Set<SimConn>();

  constructor(plan: Plan) {
    this.plan = plan;
    this.mischief = new Mischief(this.machine, plan.mischief);
    this.rules = new Rules(possible(plan.limits, plan), (key) => (plan.perKey ? keyLimits(key) : {}));
    if (plan.announced !== undefined) Object.assign(this.dial, { maxStreams: plan.announced });
    this.pool = new Pool(this.#options());
    if (plan.listens) for (const name of eventNames) this.#listen(name);
  }

  #options(): PoolOptions<string, Conn> {
    const { plan, mischief } = this;
    return {
      ...possible(plan.limits, plan),
      clock: this.machine,
      selection: plan.selection === "function" ? (conns, infos) => this.#select(conns, infos) : plan.selection,
      dial: plan.ownDial ? this.dial : undefined,
      validate: plan.validates ? (conn) => this.#answer(conn) : undefined,
      reset: plan.resets ? (conn) => (this.machine.random.chance(0.5) ? undefined : this.#answer(conn)) : undefined,
      hashKey: plan.perKey ? (key) => this.#hash(key) : undefined,
      limits: plan.perKey
        ? (key) => {
            mischief.callback();
            return keyLimits(key);
          }
        : undefined,
    };
  }

  #hash(key: string): string {
    if (!this.configures) this.mischief.callback();
    return `#${key}`;
  }

  #select(conns: readonly Conn[], infos: readonly ConnInfo[]): Conn | undefined {
    this.mischief.callback();
    if (this.mischief.strikes) return undefined;
    return conns[infos.findIndex(({ streams }) => streams === 0)] ?? conns[0];
  }

  /** What an asynchronous function of the caller's says about a conn: yes, after a while, if nothing is wrong. */
  #answer(conn: Conn): Promise<boolean> {
    if (conn instanceof SimConn && (this.plan.dialFaults > 0 || !this.strict)) conn.mayDrain = true; // the answer may be no
    this.mischief.callback();
    const { random } = this.machine;
    const answer = deferred<boolean>();
    const faulty = !this.healed && random.chance(this.plan.dialFaults / 200);
    if (!faulty) this.machine.after(random.under(20), () => answer.resolve(true));
    else if (random.chance(0.5)) answer.reject(new Error("not healthy"));
    else answer.resolve(false);
    return answer.promise;
  }

  #listen(name: PoolEventName): void {
    this.pool.on(name, (event) => {
      this.events.set(name, (this.events.get(name) ?? 0) + 1);
      if (name === "closed" && "reason" in event && event.conn instanceof SimConn) {
        const reasons = this.reasons.get(event.conn) ?? [];
        this.reasons.set(event.conn, [...reasons, event.reason]);
      }
    });
    if (this.plan.mischief === 0) return;
    const listener = (): unknown => {
      if (this.mischief.strikes) {
        off();
        off = this.pool.on(name, listener);
      }
      this.mischief.callback();
      return this.mischief.strikes ? Promise.reject(this.mischief.fault()) : undefined;
    };
    let off = this.pool.on(name, listener);
  }

  // What the world knows.

  /** The first violation counts: those that follow are its consequences. */
  violate(what: string): void {
    if (this.violation === undefined) trace(() => `BROKEN: ${what}`);
    this.violation ??= what;
  }

  get strict(): boolean {
    return this.plan.mischief === 0;
  }

  slots(conn: SimConn): number {
    return Math.min(conn.slots ?? 1, this.rules.of(conn.key, "maxStreams"));
  }

  open(key?: string): SimConn[] {
    return this.conns.filter((conn) => conn.open && (key === undefined || conn.key === key));
  }

  dialing(key?: string): SimDial[] {
    return this.dials.filter((dial) => !dial.settled && !dial.signal.aborted && (key ?? dial.key) === dial.key);
  }

  waiting(key?: string): Caller[] {
    return this.callers.filter(({ state, key: of }) => state === "waiting" && (key ?? of) === of);
  }

  /** Conns that are being closed, and whose sockets are not gone, perhaps. */
  get closingConns(): number {
    return this.conns.filter(({ closes, dead }) => closes > 0 && !dead).length;
  }

  warming(key: string): boolean {
    return this.callers.some(({ state, key: of }) => state === "warming" && of === key);
  }

  /** The pool dials for no caller, perhaps, and keeps conns beyond their time. */
  get keepsIdle(): boolean {
    return this.plan.ownDial && this.rules.minIdleEver;
  }

  /** A conn may stay for a second beyond its lifetime, until its replacement has come. */
  isTooOld(conn: SimConn): boolean {
    const furtherMs = this.plan.ownDial ? 1000 : 0;
    return this.lifetimeOver(conn, 1.25, furtherMs) && this.machine.now() - this.configuredAt >= furtherMs;
  }

  lifetimeOver(conn: SimConn, share: number, furtherMs = 0): boolean {
    const own = this.plan.lifetimes[conn.id % this.plan.lifetimes.length];
    const lifetimeMs = own ?? this.rules.of(conn.key, "maxLifetimeMs");
    return lifetimeMs > 0 && this.machine.now() - conn.givenAt >= lifetimeMs * share + furtherMs;
  }

  /** The pool may be draining it, or about to. */
  mayDrain(conn: SimConn): boolean {
    if (this.wasPinged(conn.key, this.machine.now()) || conn.unanswered > 1) return true;
    return this.blockedTooLong(conn) || conn.doubtful || this.lifetimeOver(conn, 0.85);
  }

  /** Others may be dialed in the place of a conn that is asked for a sign of life, and one goes if it shows some. */
  wasPinged(key: string, before: number): boolean {
    return before - (this.pingedAt.get(key) ?? Number.NEGATIVE_INFINITY) <= 10_000;
  }

  /** A conn that is blocked for dialTimeoutMs is closed for that. */
  blockedTooLong(conn: SimConn): boolean {
    const { askPending, askedAt, key } = conn;
    if (askPending && this.machine.now() - askedAt >= this.rules.of(key, "dialTimeoutMs")) conn.mayDrain = true;
    return conn.mayDrain;
  }

  /** An orderly end was asked for by the world: no new streams from the next burst on. */
  drains(conn: SimConn): void {
    conn.mayDrain = true;
    conn.mustDrain = true;
    conn.unfitSince = Math.min(conn.unfitSince, this.burst);
  }

  gaveUp(key: string): void {
    this.failedAt.set(key, { at: this.machine.now(), burst: this.burst });
  }

  /** The key may be waiting before it dials again. */
  mayPause(key: string, times = 1): boolean {
    const failed = this.failedAt.get(key);
    if (failed === undefined) return false;
    return failed.burst === this.burst || this.machine.now() - failed.at <= times * longestPauseMs;
  }

  /** The pool is about to be closed: how the closing of these goes, its `close()` will say. */
  beginClose(graceMs: number): void {
    this.closing = true;
    this.graceEnds = this.machine.now() + graceMs;
    for (const conn of this.open()) {
      this.#leaving.add(conn);
      this.drains(conn);
    }
  }

  /** Everything has settled: what was true until now is known to the pool from here on. */
  nextBurst(): void {
    this.burst++;
    for (const conn of this.conns) conn.mostSlots = conn.slots ?? 1;
  }

  // The network.

  makeConn(key: string): SimConn {
    const { slots, lifetimes, notifies, showsLife } = this.plan;
    const id = this.conns.length;
    const shown = slots[id % slots.length];
    const script = {
      key,
      color: id % 2,
      slots: this.healed && shown === 0 ? 1 : shown,
      lifetimeMs: lifetimes[id % lifetimes.length],
      notifies,
      showsLife,
    };
    const conn = new SimConn(id, script, this);
    this.conns.push(conn);
    return conn;
  }

  /** The pool is about to have it. */
  prepare(conn: SimConn): void {
    conn.released = ++this.#releases;
    conn.givenAt = this.machine.now();
    conn.idleSince = conn.givenAt;
    conn.mostSlots = Math.max(conn.mostSlots, conn.slots ?? 1);
    // It drains with its last use, which the pool counts earlier than the world.
    if (this.rules.maxUses(conn.key) < Number.POSITIVE_INFINITY) conn.mayDrain = true;
  }

  /** A dialed conn; an abandoned dial's is not the pool's: it must be closed, and does not count. */
  #dialed(key: string, signal: AbortSignal): SimConn {
    const conn = this.makeConn(key);
    trace(() => `a dial${signal.aborted ? ", abandoned," : ""} brings ${conn.name}`);
    if (!signal.aborted) {
      this.prepare(conn);
      conn.given = true;
      const useless = this.slots(conn) <= 0;
      this.unsuited.set(key, { burst: this.burst, all: useless || this.unsuited.get(key)?.all === true });
    }
    signal.addEventListener("abort", () => {
      conn.given = false;
    });
    return conn;
  }

  readonly dial: Dial<string, Conn> = (key, { signal }) => {
    const { random } = this.machine;
    const result = deferred<Conn>();
    const { promise } = result;
    const settle = (dial: SimDial, how: () => void): void => {
      if (dial.settled) return;
      dial.settled = true;
      how();
    };
    const dial: SimDial = {
      key,
      signal,
      settled: false,
      arrive: () => settle(dial, () => result.resolve(this.#dialed(key, signal))),
      fail: (final) =>
        settle(dial, () => {
          this.gaveUp(key);
          result.reject(Object.assign(new Error("the dial failed"), { final }));
        }),
    };
    try {
      this.mischief.callback();
    } catch (error) {
      dial.settled = true;
      this.dials.push(dial);
      this.gaveUp(key);
      throw error;
    }
    this.dials.push(dial);
    trace(() => `${key} is dialed`);
    signal.addEventListener(
      "abort",
      () => {
        trace(() => `a dial of ${key} is abandoned`);
        this.gaveUp(key);
      },
      { once: true },
    );
    atDial(this, key);
    if (this.manual && !this.healed) return promise;
    if (!this.healed && random.chance(this.plan.dialFaults / 100)) return this.#badDial(dial, promise);
    const kind = random.under(4);
    if (kind === 0) {
      dial.settled = true;
      return this.#dialed(key, signal);
    }
    if (kind === 1) void Promise.resolve().then(() => dial.arrive());
    else if (this.healed || random.chance(0.7)) this.machine.after(1 + random.under(this.healed ? 5 : 60), dial.arrive);
    return promise;
  };

  #badDial(dial: SimDial, promise: Promise<Conn>): Conn | Promise<Conn> {
    const { random } = this.machine;
    const { key, signal } = dial;
    const kind = random.pick(["never", "later", "throws", "rejects", "dead", "draining", "garbage", "final"]);
    if (kind === "never") return promise;
    if (kind === "later") {
      this.machine.after(random.under(30), () => dial.fail(false));
      return promise;
    }
    dial.settled = true;
    this.gaveUp(key);
    if (kind === "throws") throw new Error("the dial throws");
    if (kind === "garbage") return JSON.parse("null");
    if (kind === "dead" || kind === "draining") {
      const conn = this.#dialed(key, signal);
      if (kind === "dead") conn.die();
      else {
        conn.leaving = true;
        this.drains(conn);
      }
      return conn;
    }
    return Promise.reject(Object.assign(new Error("the dial rejects"), { final: kind === "final" }));
  }

  started(conn: SimConn, call: SimCall): void {
    const caller = this.callers[Number(call.options?.metadata?.["caller"])];
    if (caller !== undefined) {
      caller.state = "served";
      caller.outcome = "served";
      caller.servedIn = this.burst;
    }
    trace(() => `a call of ${caller?.id} begins on ${conn.name}`);
    atGrant(this, conn, caller);
    conn.uses++;
    const { random } = this.machine;
    if (this.healed || random.chance(0.5)) {
      this.machine.after(random.under(30), () => {
        if (!conn.silent) conn.bytes++;
        if (!conn.silent) call.end();
      });
    }
  }

  /** The pool has had a conn of the key since it last forgot it, and knows what slots to expect. */
  knows(key: string): boolean {
    const { dials, dialErrors, dialing } = this.pool.stats(key);
    return dials > dialErrors + dialing;
  }

  ended(conn: SimConn, call: SimCall | undefined, error: unknown): void {
    const caller = this.callers[Number(call?.options?.metadata?.["caller"] ?? -1)];
    if (caller?.resends && error instanceof ConnClosedError && !error.sent) {
      caller.resends = false; // once
      caller.resent = true;
      caller.state = "waiting";
      caller.outcome = undefined;
    } else if (caller !== undefined) caller.state = "done";
    conn.released = ++this.#releases;
    if (conn.running === 0) conn.idleSince = this.machine.now();
    else if (this.rules.total("maxConns") < Number.POSITIVE_INFINITY) conn.mayDrain = true; // for another key, perhaps
  }

  closeConn(conn: SimConn): unknown {
    trace(() => `${conn.name} is closed`);
    atClose(this, conn);
    const { random } = this.machine;
    try {
      this.mischief.callback();
    } catch (error) {
      if (this.#leaving.has(conn)) this.closeFailures++;
      throw error;
    }
    const faulty = !this.healed && random.chance(this.plan.closeFaults / 100);
    if (!faulty) {
      if (random.chance(0.5)) {
        conn.die();
        return undefined;
      }
      const closed = deferred();
      this.machine.after(random.under(20), () => {
        conn.die();
        closed.resolve();
      });
      return closed.promise;
    }
    if (this.#leaving.has(conn)) this.closeFailures++;
    const kind = random.under(3);
    if (kind === 0) throw new Error("close throws");
    return kind === 1 ? Promise.reject(new Error("close rejects")) : new Promise(() => {});
  }

  asked(conn: SimConn): PromiseLike<unknown> | undefined {
    if (conn.askPending && !conn.taken && this.strict)
      this.violate(`${conn.name} is asked again while its answer is pending`);
    if (conn.closes > 0 && this.strict) this.violate(`${conn.name} is asked whether it is free after its close`);
    try {
      this.mischief.callback();
    } catch (error) {
      conn.doubtful = true; // it is closed for that
      throw error;
    }
    if (this.mischief.strikes) {
      conn.doubtful = true; // it may be blocked, and does not say so
      return JSON.parse("null");
    }
    const { block } = conn;
    if (block === undefined) return undefined;
    conn.askPending = true;
    conn.askedAt = this.machine.now();
    // A conn that is blocked for too long is closed.
    this.machine.after(this.rules.of(conn.key, "dialTimeoutMs") - 0.5, () => {
      if (conn.block === block) conn.mayDrain = true;
    });
    return block.promise;
  }

  pinged(conn: SimConn): PromiseLike<unknown> {
    this.pingedAt.set(conn.key, this.machine.now());
    try {
      this.mischief.callback();
    } catch (error) {
      conn.silent = true; // a ping that fails is no sign of life
      throw error;
    }
    if (conn.silent) return new Promise(() => {});
    conn.bytes++;
    return Promise.resolve();
  }

  read<T>(conn: SimConn, name: string, value: T, wrong: T): T {
    if (!this.mischief.strikes) return value;
    conn.doubtful = true;
    const { random } = this.machine;
    trace(() => `${name} of ${conn.name} misbehaves`);
    if (random.chance(0.4)) this.mischief.use();
    if (random.chance(0.4)) throw this.mischief.fault();
    return wrong;
  }
}
