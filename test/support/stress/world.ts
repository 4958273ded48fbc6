import type { Conn, Dial } from "../../../src/contract.ts";
import { ConnClosedError } from "../../../src/errors.ts";
import { Pool } from "../../../src/pool/pool.ts";
import { FakeClock } from "../clock.ts";
import { deferred } from "../conn.ts";
import { type ConnOwner, type StressCall, StressConn } from "./conn.ts";
import type { Ask, Held, Plan, StressDial } from "./plan.ts";
import { StressRules } from "./rules.ts";

/** A pool, and all that the test knows of it without asking. */
export class World implements ConnOwner {
  readonly clock = new FakeClock();
  readonly pool: Pool<string, Conn>;
  readonly plan: Plan;
  readonly rules: StressRules;
  readonly conns: StressConn[] = [];
  readonly dials: StressDial[] = [];
  readonly asks: Ask[] = [];
  readonly held: Held[] = [];
  readonly calls: StressCall[] = [];
  readonly taken: StressConn[] = [];
  readonly handles = new Map<string, Conn>();
  /** When a dial of the key last failed or was given up. */
  readonly failedAt = new Map<string, number>();
  /** When a dial of the key last brought a conn that some requests cannot use, or none of them. */
  readonly unsuited = new Map<string, { readonly burst: number; readonly all: boolean }>();
  /** Keys with dials that no request needs, perhaps. */
  readonly warmed = new Set<string>();
  readonly failedIn = new Map<string, number>();
  /** Counts the groups of actions between which everything settles. */
  burst = 0;
  configuredAt = 0;
  /** A conn that is on its way to the caller of `take`, who does not see it yet. */
  taking = 0;
  closing = false;
  graceEnds = Number.POSITIVE_INFINITY;
  closeFailures = 0;
  violation: string | undefined;
  #dialed = 0;
  readonly #leaving = new Set<StressConn>();

  constructor(plan: Plan) {
    this.plan = plan;
    this.rules = new StressRules(plan.limits);
    if (plan.announced !== undefined) Object.assign(this.dial, { maxStreams: plan.announced });
    this.pool = new Pool({
      ...plan.limits,
      selection: plan.selection,
      clock: this.clock,
      dial: plan.ownDial ? this.dial : undefined,
    });
  }

  /** The pool is about to be closed: how the closing of these goes, its `close()` will say. */
  leave(): void {
    this.closing = true;
    for (const conn of this.open()) {
      this.#leaving.add(conn);
      this.drains(conn);
    }
  }

  /** An orderly end was asked for by the test: no new streams from the next burst on. */
  drains(conn: StressConn): void {
    conn.mayDrain = true;
    conn.mustDrain = true;
    conn.unfitSince = Math.min(conn.unfitSince, this.burst);
  }

  /** The first violation counts: those that follow are its consequences. */
  violate(what: string): void {
    this.violation ??= what;
  }

  slots(conn: StressConn): number {
    return Math.min(conn.maxStreams ?? 1, this.rules.of(conn.key, "maxStreams"));
  }

  open(key?: string): StressConn[] {
    return this.conns.filter((conn) => conn.open && (key === undefined || conn.key === key));
  }

  dialing(key?: string): StressDial[] {
    return this.dials.filter((dial) => !dial.settled && !dial.signal.aborted && (key ?? dial.key) === dial.key);
  }

  waiting(key?: string): Ask[] {
    return this.asks.filter((ask) => ask.state === "waiting" && (key ?? ask.key) === ask.key);
  }

  /** The pool dials for no request, perhaps, and keeps conns beyond their time. */
  keepsIdle(): boolean {
    return this.plan.ownDial && this.rules.minIdleEver;
  }

  warming(key: string): boolean {
    return this.asks.some((ask) => ask.state === "warming" && ask.key === key);
  }

  makeConn(key: string): StressConn {
    const { slots, lifetimes, notifies } = this.plan;
    const id = this.conns.length;
    const conn = new StressConn(
      id,
      {
        key,
        color: id % 2,
        maxStreams: slots[id % slots.length],
        maxLifetimeMs: lifetimes[id % lifetimes.length],
        notifies,
      },
      this,
    );
    this.conns.push(conn);
    return conn;
  }

  /** The pool has it now, if nothing is said to the contrary. */
  hold(conn: StressConn): void {
    this.prepare(conn);
    conn.held = true;
  }

  /** The pool is about to have it. */
  prepare(conn: StressConn): void {
    conn.openedAt = this.clock.now();
    conn.idleSince = conn.openedAt;
    conn.peakSlots = this.slots(conn);
    // It drains with its last use, which the pool counts earlier than the test.
    if (this.rules.maxUses(conn.key) < Number.POSITIVE_INFINITY) conn.mayDrain = true;
  }

  readonly dial: Dial<string, Conn> = (key, { signal }) => {
    const { dials } = this.plan;
    const mode = dials[this.#dialed++ % dials.length] ?? "at once";
    const dial: StressDial = { key, signal, mode, result: deferred(), settled: false };
    this.dials.push(dial);
    signal.addEventListener("abort", () => this.gaveUp(key), { once: true });
    this.#checkGrowth(key);
    if (this.closing) this.violate(`dialed ${key} after close()`);
    switch (mode) {
      case "later":
      case "never":
        return dial.result.promise;
      case "at once":
        dial.settled = true;
        return this.#arrived(dial);
      case "soon":
        void Promise.resolve().then(() => this.arrive(dial));
        return dial.result.promise;
      case "dead": {
        dial.settled = true;
        const conn = this.#arrived(dial);
        conn.die();
        this.gaveUp(key);
        return conn;
      }
      case "throws":
        dial.settled = true;
        this.gaveUp(key);
        throw new Error("the dial throws");
      case "garbage":
        dial.settled = true;
        this.gaveUp(key);
        return JSON.parse("null");
      default:
        dial.settled = true;
        this.gaveUp(key);
        return Promise.reject(Object.assign(new Error("the dial rejects"), { final: mode === "final" }));
    }
  };

  /** A dial has failed: nothing is dialed for a while, perhaps. */
  gaveUp(key: string): void {
    this.failedAt.set(key, this.clock.now());
    this.failedIn.set(key, this.burst);
  }

  #arrived(dial: StressDial): StressConn {
    const conn = this.makeConn(dial.key);
    // An abandoned dial's conn is not the pool's: it must be closed, and does not count.
    if (!dial.signal.aborted) {
      this.hold(conn);
      const useless = this.slots(conn) <= 0;
      this.unsuited.set(dial.key, { burst: this.burst, all: useless || this.unsuited.get(dial.key)?.all === true });
    }
    dial.signal.addEventListener("abort", () => {
      conn.held = false;
    });
    return conn;
  }

  arrive(dial: StressDial): void {
    if (dial.settled) return;
    dial.settled = true;
    dial.result.resolve(this.#arrived(dial));
  }

  fail(dial: StressDial, final: boolean): void {
    if (dial.settled) return;
    dial.settled = true;
    this.gaveUp(dial.key);
    dial.result.reject(Object.assign(new Error("the dial failed"), { final }));
  }

  /** No conn more than the limits allow, at the moment when one is begun. */
  #checkGrowth(key: string): void {
    const total = this.open().length + this.dialing().length - this.taking;
    if (total > this.rules.total("maxConns")) this.violate(`a dial of ${key} makes ${total} conns`);
    const inKey = this.open(key).filter((conn) => !this.mayDrain(conn)).length + this.dialing(key).length - this.taking;
    if (inKey > this.rules.of(key, "maxKeyConns")) this.violate(`a dial makes ${inKey} conns of ${key}`);
    const dialing = this.dialing(key).length;
    if (dialing > this.rules.of(key, "maxKeyDials")) this.violate(`${dialing} dials of ${key}`);
  }

  /** A slot of `conn` is in use from now on, for `ask`. */
  granted(conn: StressConn, ask: Pick<Ask, "key" | "color"> | undefined): void {
    const name = `conn ${conn.id} of ${conn.key}`;
    conn.uses++;
    if (!conn.held || conn.taken) this.violate(`${name} is handed out, and is not the pool's`);
    if (conn.unfitSince < this.burst) this.violate(`${name} is handed out, dead or draining`);
    if (conn.blockedSince < this.burst) this.violate(`${name} is handed out, blocked`);
    const late = conn.openedAt < this.clock.now() && this.configuredAt < this.clock.now();
    if (late && !this.keepsIdle() && this.lifetimeOver(conn, 1.05)) this.violate(`${name} is handed out, too old`);
    if (conn.running > conn.peakSlots) this.violate(`${name} runs ${conn.running} streams on ${conn.peakSlots} slots`);
    if (ask?.key !== undefined && ask.key !== conn.key) this.violate(`${name} is handed out for ${ask.key}`);
    if (ask?.color !== undefined && ask.color !== conn.tags.color) this.violate(`${name} does not pass the filter`);
  }

  onStart(conn: StressConn, call: StressCall): void {
    this.calls.push(call);
    const ask = this.asks[call.ask];
    if (ask !== undefined) {
      ask.state = "granted";
      ask.grantedIn = this.burst;
    }
    this.granted(conn, ask);
  }

  onAsk(conn: StressConn): void {
    if (conn.answerPending && !conn.taken) this.violate(`conn ${conn.id} is asked again while its answer is pending`);
    if (conn.closes > 0) this.violate(`conn ${conn.id} is asked after its close`);
  }

  onEnd(conn: StressConn, call?: StressCall, error?: unknown): void {
    const ask = this.asks[call?.ask ?? -1];
    const unsent = error instanceof ConnClosedError && !error.sent;
    if (ask?.resends && unsent) {
      ask.resends = false; // once
      ask.state = "waiting";
    }
    if (conn.running === 0) conn.idleSince = this.clock.now();
    else if (this.rules.total("maxConns") < Number.POSITIVE_INFINITY) conn.mayDrain = true; // for another key, perhaps
  }

  onClose(conn: StressConn): unknown {
    const name = `conn ${conn.id} of ${conn.key}`;
    if (conn.closes > 1) this.violate(`${name} is closed twice`);
    if (conn.taken) this.violate(`${name} is closed while a caller owns it`);
    if (conn.held && conn.diedIn < this.burst) this.violate(`${name} is closed, having died by itself`);
    if (conn.held && conn.running > 0 && this.clock.now() < this.graceEnds)
      this.violate(`${name} is closed under ${conn.running} streams`);
    if (conn.held && !conn.dead && !this.mayClose(conn)) this.violate(`${name} is closed for no reason`);
    const { closes } = this.plan;
    const mode = closes[conn.id % closes.length] ?? "closes";
    if (this.#leaving.has(conn) && mode !== "closes") this.closeFailures++;
    if (mode === "throws") throw new Error("close throws");
    if (mode === "rejects") return Promise.reject(new Error("close rejects"));
    if (mode === "hangs") return new Promise(() => {});
    return undefined;
  }

  /** Whether there is any reason to close a conn that works. */
  mayClose(conn: StressConn): boolean {
    const { rules, clock } = this;
    const { key } = conn;
    const limited = Math.min(rules.total("capacity"), rules.total("maxConns"), rules.of(key, "keyCapacity"));
    const idleMs = clock.now() - conn.idleSince;
    return (
      this.closing ||
      this.keepsIdle() ||
      conn.mustDrain ||
      this.mayDrain(conn) ||
      conn.draining ||
      Math.min(limited, rules.of(key, "maxKeyConns")) < Number.POSITIVE_INFINITY ||
      idleMs >= rules.of(key, "expirationMs")
    );
  }

  /** The pool may be draining it, or about to. */
  mayDrain(conn: StressConn): boolean {
    return conn.mayDrain || this.lifetimeOver(conn);
  }

  lifetimeOver(conn: StressConn, share = 0.9): boolean {
    const lifetimeMs = conn.maxLifetimeMs ?? this.rules.of(conn.key, "maxLifetimeMs");
    return lifetimeMs > 0 && this.clock.now() - conn.openedAt >= lifetimeMs * share;
  }
}
