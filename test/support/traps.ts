import assert from "node:assert/strict";
import type { Lease, PoolConn } from "../../src/contract.ts";
import { isPoolError } from "../../src/errors.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, turns } from "./clock.ts";
import { deferred } from "./conn.ts";

/** The places where the pool calls code of its users. */
export const places = [
  "dial",
  "dial.maxStreams",
  "abort",
  "filter",
  "hashKey",
  "limits",
  "close",
  "closed",
  "closed.then",
  "unblocked",
  "maxStreams",
  "draining",
  "tags",
  "maxLifetimeMs",
  "onChange",
  "ref",
  "unref",
] as const;
export type Place = (typeof places)[number];

/** What a place does when its turn comes; what it returns replaces the place's own answer, unless undefined. */
export type Trap = (world: TrapWorld) => unknown;

/** Only microtasks and immediates between its steps, so that a thousand scenarios take a second. */
const rounds = 7;

export class TrapConn implements PoolConn {
  readonly #world: TrapWorld;
  readonly #closed = deferred();
  readonly listeners: (() => void)[] = [];
  slots = 1;
  closes = 0;
  streams = 0;

  constructor(world: TrapWorld) {
    this.#world = world;
    world.conns.push(this);
  }

  get closed(): PromiseLike<void> {
    const then: PromiseLike<void>["then"] = (yes, no) => {
      this.#world.spring("closed.then");
      return this.#closed.promise.then(yes, no);
    };
    // oxlint-disable-next-line unicorn/no-thenable -- a thenable that is no promise is what is tested
    return (this.#world.spring("closed") ?? { then }) as PromiseLike<void>;
  }

  get maxStreams(): number {
    return (this.#world.spring("maxStreams") ?? this.slots) as number;
  }

  get draining(): boolean {
    return (this.#world.spring("draining") ?? false) as boolean;
  }

  get tags(): Record<string, unknown> {
    return (this.#world.spring("tags") ?? {}) as Record<string, unknown>;
  }

  get maxLifetimeMs(): number {
    return (this.#world.spring("maxLifetimeMs") ?? 0) as number;
  }

  unblocked(): PromiseLike<unknown> | undefined {
    return this.#world.spring("unblocked") as PromiseLike<unknown> | undefined;
  }

  onChange(listener: () => void): void {
    this.listeners.push(listener);
    this.#world.spring("onChange");
  }

  ref(): void {
    this.#world.spring("ref");
  }

  unref(): void {
    this.#world.spring("unref");
  }

  close(): unknown {
    this.closes++;
    this.#closed.resolve();
    return this.#world.spring("close");
  }

  changed(): void {
    for (const listener of this.listeners) listener();
  }
}

/** One pool, one course of events, and one place that springs a trap once, at its `nth` call. */
export class TrapWorld {
  readonly pool: Pool<string, TrapConn>;
  readonly clock: FakeClock = new FakeClock();
  readonly conns: TrapConn[] = [];
  /** Conns that `take` gave to a trap. */
  readonly owned = new Set<TrapConn>();
  readonly errors: unknown[] = [];
  /** Calls that have not settled. */
  pending = 0;
  /** How often the place was called. */
  calls = 0;
  closed = false;
  /** A conn may have been taken for closed. */
  lenient = false;
  readonly #place: Place;
  readonly #nth: number;
  readonly #trap: Trap;

  constructor(place: Place, nth: number, trap: Trap) {
    this.#place = place;
    this.#nth = nth;
    this.#trap = trap;
    const dial = (_key: string, { signal }: { signal: AbortSignal }) => {
      signal.addEventListener("abort", () => this.spring("abort"), { once: true });
      return (this.spring("dial") ?? Promise.resolve().then(() => new TrapConn(this))) as Promise<TrapConn>;
    };
    Object.defineProperty(dial, "maxStreams", { get: () => this.spring("dial.maxStreams") ?? 1 });
    this.pool = new Pool<string, TrapConn>({
      dial,
      clock: this.clock,
      maxConns: 3,
      maxKeyConns: 2,
      keyCapacity: 2,
      capacity: 2,
      expirationMs: 10_000,
      maxWaiters: 100,
      hashKey: (key) => this.spring("hashKey") ?? key,
      limits: () => this.spring("limits") as undefined,
    });
  }

  /** Called by each place. Springs the trap when its turn has come. */
  spring(place: Place): unknown {
    if (place !== this.#place || ++this.calls !== this.#nth) return undefined;
    return this.#trap(this);
  }

  /** Remembers what a call of the pool's throws; only bugs are wrong. */
  attempt<T>(call: () => T): T | undefined {
    try {
      return call();
    } catch (error) {
      this.errors.push(error);
      return undefined;
    }
  }

  /** A conn that `put` refuses by throwing stays the caller's. */
  put(key: string, conn: TrapConn): void {
    if (this.attempt(() => this.pool.put(key, conn)) === undefined && conn.closes === 0) this.owned.add(conn);
  }

  /** A lease that is kept for some turns of the event loop. */
  async call(key: string, options: { signal?: AbortSignal } = {}, turnsHeld = 2): Promise<void> {
    this.pending++;
    try {
      const filter = (): boolean => (this.spring("filter") ?? true) as boolean;
      this.#hold(await this.pool.acquire(key, { ...options, filter, timeoutMs: 5000 }), turnsHeld);
    } catch (error) {
      this.errors.push(error);
    } finally {
      this.pending--;
    }
  }

  #hold(lease: Lease<TrapConn>, left: number): void {
    lease.conn.streams++;
    assert.ok(lease.conn.streams <= lease.conn.slots, "a conn runs more streams than it has slots");
    const end = () => {
      if (left-- > 0) {
        setImmediate(end);
        return;
      }
      lease.conn.streams--;
      lease.release();
    };
    end();
  }

  /** The course of events: everything that makes the pool call out. */
  async run(): Promise<void> {
    const { pool } = this;
    for (let round = 0; round < rounds && !this.closed; round++) {
      const abort = new AbortController();
      for (const key of ["a", "a", "a", "b", "c"]) void this.call(key, {}, round % 3);
      void this.call("c", { signal: abort.signal });
      await turns(2);
      if (round % 4 === 1) for (const conn of this.conns) conn.changed();
      if (round % 4 === 2) this.attempt(() => pool.clear("a"));
      if (round % 4 === 3) this.put("b", new TrapConn(this));
      abort.abort();
      const taken = this.attempt(() => pool.take("a"));
      await turns(2);
      if (taken !== undefined) this.put("a", taken);
      if (round === 5) await this.clock.advance(12_000);
    }
    // All that can settle has settled; what is left ends by its timeout.
    await this.clock.advance(8000);
    await turns(2);
    assert.equal(this.pending, 0, "a caller still waits");
    if (!this.closed && !this.lenient) {
      const alive = this.conns.filter((conn) => conn.closes === 0 && !this.owned.has(conn));
      assert.equal(pool.stats().open, alive.length, "the pool counts the conns that are open");
    }
    const closing = pool.close();
    closing.catch((error: unknown) => this.errors.push(error));
    await turns(2);
    await this.clock.advance(40_000);
    await closing.catch(() => {});
  }

  /** What must hold at the end, whatever the trap did. */
  check(): void {
    const bug = this.errors.find((error) => isPoolError(error) && error.code === "ERR_POOL_BUG");
    if (bug !== undefined) throw bug;
    const { open, dialing, idle, leased, draining, streams, waiting, keys } = this.pool.stats();
    const left = { open, dialing, idle, leased, draining, streams, waiting, keys };
    assert.deepEqual(
      Object.entries(left).filter(([, count]) => count !== 0),
      [],
      "the pool is not empty",
    );
    assert.equal(this.clock.timers, 0, "a timer is armed");
    if (this.lenient) return;
    for (const conn of this.conns) {
      if (!this.owned.has(conn)) assert.equal(conn.closes, 1, "a conn is closed once");
    }
  }
}
