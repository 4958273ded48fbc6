import {
  checkBoolean,
  checkConn,
  checkCount,
  checkFunction,
  checkOneOf,
  checkOptions,
  checkTime,
  ownPaceOf,
  timeLimit,
} from "../argument.ts";
import type { Conn, Dial, Lease, PoolConn } from "../contract.ts";
import { PoolClosedError, PoolTypeError } from "../errors.ts";
import type { Explanation } from "../explanation.ts";
import type {
  AcquireOptions,
  ClearOptions,
  ExplainOptions,
  Filter,
  GetOptions,
  Limits,
  PoolOptions,
  PutOptions,
  UseOptions,
} from "../options.ts";
import { wallNow } from "../runtime/clock.ts";
import { checkAcquire, checkRequest, configOf, limitNames, limitsOf } from "./config.ts";
import { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { Listener, PoolEventName, PoolEvents } from "./events.ts";
import { Handle, type HandlePool } from "./handle.ts";
import type { KeyPool } from "./key-pool.ts";
import { LeakDetector, PoolLease, TimedLease, WatchedLease } from "./lease.ts";
import type { Request } from "./pending.ts";
import { type PoolStats, statsOf } from "./stats.ts";

const getOptionNames = ["signal", "filter", "retryUnsent", "waitForReady"];

/**
 * A cache of connections, keyed by peer. It dials each peer seldom, never queues behind a full conn while another
 * may be opened, never hands out one that is dead, draining or blocked, and never holds more than it was told.
 *
 * What it does not do: encode messages, balance load between keys, find peers, or repeat what may have been sent.
 */
export class Pool<K = string, C extends PoolConn = Conn> implements AsyncDisposable {
  readonly name: string;
  readonly #core: Core<K, C>;
  readonly #dial: Dial<K, C> | undefined;
  readonly #handlePool: HandlePool<K, C>;
  /** Of a caller who asks for nothing in particular. */
  readonly #request: Request<K, C>;
  readonly #started: number;
  readonly #leaks: LeakDetector<K, C> | undefined;

  /** @throws PoolTypeError or PoolRangeError for a wrong value or an unknown name. */
  constructor(options: PoolOptions<K, C> = {}) {
    const config = configOf(options);
    const { dial, name, leakAfterMs } = config;
    const core = new Core<K, C>(config);
    this.name = name;
    this.#core = core;
    this.#dial = dial;
    this.#request = { dial };
    this.#started = core.timers.now();
    this.#leaks = leakAfterMs > 0 ? new LeakDetector(leakAfterMs, core.timers, core.events) : undefined;
    this.#handlePool = { core, keyPool: (key, hash) => this.#keyPool(key, hash) };
  }

  /**
   * A lazy conn for `key`: nothing is dialed before its first RPC. Handles of one key share its conns. Calls
   * reject with `PoolClosedError`, `DialError`, `WaitTimeoutError`, `QueueFullError`, `NoConnError`, `NoMatchError`,
   * `signal.reason`, or what the conn's own RPC rejects with. For pools whose conns are `Conn`s; others `acquire`.
   *
   * @throws PoolTypeError for wrong options, and for what is no key.
   */
  get(this: Pool<K, Conn>, key: K, dial?: Dial<K, C>, options?: GetOptions<C>): Conn;
  get(this: Pool<K, Conn>, key: K, options?: GetOptions<C>): Conn;
  get(key: K, second?: Dial<K, C> | GetOptions<C>, third: GetOptions<C> = {}): Conn {
    const dial = typeof second === "function" ? second : undefined;
    const options = typeof second === "function" || second === undefined ? third : second;
    checkOptions("get's options", options, getOptionNames);
    checkRequest(options);
    checkBoolean("retryUnsent", options.retryUnsent);
    return new Handle(this.#handlePool, key, this.#core.keys.hash(key), dial ?? this.#dial, options);
  }

  /**
   * A lease as soon as there is one. Rejects like the calls of a handle do before they have a conn; wrong arguments
   * reject too.
   */
  acquire(key: K, options?: AcquireOptions<K, C>): Promise<Lease<C>> {
    try {
      const hash = this.#prepare("acquire", key, options);
      const where = this.#leaks && LeakDetector.where();
      const found = this.#keyPool(key, hash);
      const timeoutMs = this.#timeLimit(found, options);
      const entry = this.#core.tryLease(found, options?.filter);
      if (entry !== undefined) return Promise.resolve(this.#grant(entry, where));
      const give = where === undefined ? this.#give : (waited: Entry<K, C>) => this.#grant(waited, where);
      return this.#wait(found, options, timeoutMs, give);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * A lease if a conn has room at this moment. It never dials and never waits.
   *
   * @throws PoolClosedError once the pool is closed; PoolTypeError for wrong options.
   */
  tryAcquire(key: K, options?: { filter?: Filter<C> | undefined }): Lease<C> | undefined {
    const filter = options === undefined ? undefined : filterOf(options);
    const core = this.#core;
    if (core.drain.isClosed) throw new PoolClosedError();
    const found = core.keys.find(core.keys.hash(key));
    if (found === undefined) return undefined;
    const entry = core.tryLease(found, filter);
    if (entry !== undefined) return this.#grant(entry, this.#leaks && LeakDetector.where());
    core.noneFree(found);
    return undefined;
  }

  /**
   * Runs `fn` on a leased conn, and gives the slot back whichever way it ends; with `discardOnError`, a conn on which it
   * rejected is closed instead. Rejects like `acquire`, or with what `fn` rejects with.
   */
  async use<T>(key: K, fn: (conn: C) => Promise<T>, options?: UseOptions<K, C>): Promise<T> {
    checkFunction("fn", fn ?? null);
    const hash = this.#prepare("use", key, options, ["discardOnError"]);
    checkBoolean("discardOnError", options?.discardOnError);
    const found = this.#keyPool(key, hash);
    const timeoutMs = this.#timeLimit(found, options);
    const free = this.#core.tryLease(found, options?.filter);
    const entry = free ?? (await this.#wait(found, options, timeoutMs, (waited) => waited));
    const since = this.#core.entries.clock();
    try {
      return await fn(entry.conn);
    } catch (error) {
      if (options?.discardOnError) this.#core.discard(entry, error);
      throw error;
    } finally {
      this.#core.release(entry, since);
    }
  }

  /**
   * Adopts a conn that the pool did not dial, or gives back what `take` took out. Waiters get it first, then the
   * cache. At an open limit an idle conn is evicted for it; where there is none, and where the conn is draining, it
   * is closed. Returns whether it is kept; `prefer` may be against that, too.
   *
   * @throws PoolTypeError for what is no conn, and for a conn that it holds already.
   */
  put(key: K, conn: C, options: PutOptions = {}): boolean {
    checkConn("what is put", conn);
    checkOptions("put's options", options, ["prefer"]);
    checkOneOf("prefer", options.prefer, ["this", "dialed"]);
    const hash = this.#core.keys.hash(key);
    this.#core.transfer.checkNew(conn);
    return this.#core.transfer.put(() => this.#open(key, hash), conn, options.prefer);
  }

  /** Removes an idle conn that is not blocked, and hands it to the caller, who owns it from now on. */
  take(key: K): C | undefined {
    const found = this.#core.keys.find(this.#core.keys.hash(key));
    return found === undefined ? undefined : this.#core.transfer.take(found);
  }

  /**
   * Resolves when the key has `count` conns (default 1), idle or in use, dialing those that are missing; as many as
   * the limits allow, where that is less: it evicts no idle conn of another key, and waits for those in use. A `count` of 0 or less: nothing. Rejects with the last dial error, at once
   * unless `waitForReady`; with `NoConnError`, where nothing can dial; with `NoMatchError`, where a conn that was dialed
   * does not pass the filter; with `WaitTimeoutError` or `signal.reason`.
   */
  async warm(key: K, count = 1, options: AcquireOptions<K, C> = {}): Promise<void> {
    checkCount("count", count);
    checkAcquire("warm", options);
    const found = this.#keyPool(key, this.#core.keys.hash(key));
    const { dial = this.#dial } = options;
    const timeoutMs = this.#timeLimit(found, options) ?? found.rules.waitTimeoutMs;
    const warm = this.#core.minIdle.warm(found, count, {
      ...options,
      dial,
      timeoutMs,
      pace: ownPaceOf(options),
    });
    this.#core.serve(found);
    await warm.finally(() => this.#core.serve(found)); // nothing may be left of its key
  }

  /**
   * Every conn dialed so far drains, of one key or of all, and backoffs end; waiters stay and are dialed for again. For
   * use after an outage or a failover. With `withinMs` they make way one by one: for a rotation of credentials.
   *
   * @throws PoolTypeError for `clear(undefined)`, which is no key; PoolTypeError or PoolRangeError for wrong options.
   */
  clear(...args: [key?: K, options?: ClearOptions]): void {
    const [key, options = {}] = args;
    if (args.length > 0 && key === undefined) {
      throw new PoolTypeError("expected a key, got undefined: clear() without arguments clears all keys");
    }
    checkOptions("clear's options", options, ["withinMs"]);
    checkTime("withinMs", options.withinMs ?? 0);
    this.#clear(key, options.withinMs ?? 0);
  }

  #clear(key: K | undefined, withinMs: number): void {
    const { keys, transfer, drain, events } = this.#core;
    const hash = key === undefined ? undefined : keys.hash(key);
    const found = keys.find(hash);
    transfer.clear(hash);
    events.cleared.emit(() => ({ key }));
    drain.clear(hash === undefined ? [...keys] : found === undefined ? [] : [found], withinMs);
  }

  /**
   * New limits while the pool runs, for all keys or for one; what is omitted keeps its value. Idle conns over the
   * new limits are closed, those in use drain.
   *
   * @throws PoolTypeError or PoolRangeError for a wrong value or an unknown name, before anything has changed.
   */
  configure(limits: Partial<Limits>, key?: K): void {
    checkOptions("configure's limits", limits, limitNames);
    const { keys, drain } = this.#core;
    keys.configure(limits, key === undefined ? undefined : keys.hash(key));
    drain.configured([...keys]);
  }

  /**
   * Calls `listener` for each event of that name, in a microtask; what it returns stops that. The same events go to
   * `node:diagnostics_channel` under `rpc-conn-pool:<name>`, for all pools.
   */
  on<N extends PoolEventName>(name: N, listener: Listener<PoolEvents<K, C>[N]>): () => void {
    checkOneOf("name", name ?? null, Object.keys(this.#core.events));
    checkFunction("listener", listener ?? null);
    return this.#core.events[name].listen(listener);
  }

  /** The keys that have a conn, a dial, a waiter or a running backoff. */
  *keys(): Generator<K, void, undefined> {
    for (const { id } of this.#core.keys) yield id;
  }

  /** A frozen snapshot, of the pool or of one key. Walks all conns: not for every call. */
  stats(key?: K): PoolStats {
    const { keys, timers, selector } = this.#core;
    const now = timers.now();
    const limits = limitsOf(keys.rules);
    if (key === undefined) return statsOf(keys, keys.forgotten, limits, now - this.#started);
    const found = keys.find(keys.hash(key));
    if (found === undefined) return statsOf([], undefined, limits, 0, []);
    const conns = found.entries().map((entry) => selector.info(entry));
    return statsOf([found], undefined, limitsOf(found.rules), now - found.since, conns);
  }

  /**
   * What a caller of `key` would meet now (a lease, a dial, a wait, an error), why, what would change it, and what is known
   * of the key's conns, dials and waiters: data, whose `toString()` a person reads. It changes nothing. `options`: the caller
   * that it is about, with the pool's `dial` unless it brings another. Walks all conns of the key: not for every call.
   */
  explain(key: K, options: ExplainOptions<K, C> = {}): Explanation {
    checkOptions("explain's options", options, ["dial", "filter", "waitForReady"]);
    checkRequest(options);
    checkFunction("dial", options.dial);
    const { keys, explainer } = this.#core;
    return explainer.explain(keys.preview(key, keys.hash(key)), { ...options, dial: options.dial ?? this.#dial });
  }

  /**
   * Waiters and later calls fail with `PoolClosedError`, idle conns are closed, oldest first, the others as soon as
   * their streams have ended, or when the grace is over. Closing twice is one close; a shorter grace then counts.
   * `graceMs`: default 30,000; 0: at once. Rejects with an `AggregateError` of what failed to close; a conn whose
   * `close()` is still pending after 5 s counts as failed.
   */
  close(options: { graceMs?: number | undefined } = {}): Promise<void> {
    try {
      checkOptions("close's options", options, ["graceMs"]);
      const { graceMs = 30_000 } = options;
      checkTime("graceMs", graceMs);
      const closing = this.#core.drain.close(graceMs);
      if (this.#leaks !== undefined) void closing.catch(() => {}).then(() => this.#leaks?.stop());
      return closing;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #prepare(what: string, key: K, options: AcquireOptions<K, C> | undefined, furtherNames?: readonly string[]): unknown {
    if (options !== undefined) checkAcquire(what, options, furtherNames);
    return this.#core.keys.hash(key);
  }

  /** The time that `options` set, which is not over; none, where they set none. */
  #timeLimit(found: KeyPool<K, C>, options: AcquireOptions<K, C> | undefined): number | undefined {
    if (options === undefined) return undefined;
    const timeoutMs = timeLimit(options, () => wallNow(this.#core.timers.clock));
    if (timeoutMs !== undefined && timeoutMs <= 0) throw this.#core.refuseLate(found, timeoutMs);
    return timeoutMs;
  }

  #wait<R>(
    found: KeyPool<K, C>,
    options: AcquireOptions<K, C> | undefined,
    limitMs: number | undefined,
    give: (entry: Entry<K, C>) => R,
  ): Promise<R> {
    const key = found.isAlive ? found : this.#keyPool(found.id, found.hash); // its last conn has gone just now
    const { waitTimeoutMs } = key.rules;
    if (options === undefined && waitTimeoutMs === Number.POSITIVE_INFINITY) {
      return this.#core.wait(key, this.#request, give);
    }
    const { dial = this.#dial, filter, signal, waitForReady } = options ?? {};
    const timeoutMs = limitMs ?? waitTimeoutMs;
    const request = { dial, timeoutMs, filter, signal, waitForReady, pace: ownPaceOf(options) };
    return this.#core.wait(key, request, give);
  }

  /** One for all waiters: a closure each would cost them a tenth of their time. */
  readonly #give = (entry: Entry<K, C>): Lease<C> => this.#grant(entry, undefined);

  #grant(entry: Entry<K, C>, where: string | undefined): Lease<C> {
    if (this.#leaks !== undefined) return new WatchedLease(entry, this.#core, this.#leaks, where ?? "");
    return this.#core.entries.isTimed ? new TimedLease(entry, this.#core) : new PoolLease(entry, this.#core);
  }

  #keyPool(key: K, hash: unknown): KeyPool<K, C> {
    const found = this.#open(key, hash);
    if (found === undefined) throw new PoolClosedError();
    return found;
  }

  /** The record of a key; none once the pool is closed. */
  #open(key: K, hash: unknown): KeyPool<K, C> | undefined {
    const { keys, drain } = this.#core;
    if (drain.isClosed) return undefined;
    const found = keys.open(key, hash);
    if (!drain.isClosed) return found;
    this.#core.serve(found); // `limits` closed the pool: nothing may be left of the key
    return undefined;
  }
}

function filterOf<C>(options: { readonly filter?: Filter<C> | undefined }): Filter<C> | undefined {
  checkOptions("tryAcquire's options", options, ["filter"]);
  checkFunction("filter", options.filter);
  return options.filter;
}
