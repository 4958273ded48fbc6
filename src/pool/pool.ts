import {
  checkBoolean,
  checkConn,
  checkCount,
  checkFunction,
  checkOneOf,
  checkOptions,
  checkTime,
} from "../argument.ts";
import type { Conn, Dial, Lease, PoolConn } from "../contract.ts";
import { bug, PoolClosedError } from "../errors.ts";
import type { AcquireOptions, Filter, GetOptions, Limits, PoolOptions } from "../options.ts";
import type { Failure } from "../runtime/guard.ts";
import { Schedule } from "../runtime/timers.ts";
import { Closing } from "./closing.ts";
import { limitNames } from "./config.ts";
import { Dispatcher, type DispatcherOwner } from "./dispatcher.ts";
import { Sweep } from "./drain.ts";
import { type Events, makeEvents, type Named, type PoolEventName, type PoolEvents } from "./events.ts";
import { Handle, type HandleOwner } from "./handle.ts";
import type { Member, Peer } from "./key-pool.ts";
import { Directory } from "./keys.ts";
import { Leaks } from "./leaks.ts";
import { PoolLease, WatchedLease } from "./lease.ts";
import { checkAcquire, checkRequest } from "./request.ts";
import { settingsOf } from "./settings.ts";
import { type PoolStats, statsOf } from "./stats.ts";
import { Exchange } from "./transfer.ts";
import type { Request } from "./waiter.ts";

const getOptionNames = ["signal", "filter", "retryUnsent", "waitForReady"];

/**
 * A cache of connections, keyed by peer. It dials each peer seldom, never queues behind a full conn while another
 * may be opened, never hands out one that is dead, draining or blocked, and never holds more than it was told.
 *
 * What it does not do: encode messages, balance load between keys, find peers, or repeat what may have been sent.
 */
export class Pool<K = string, C extends PoolConn = Conn> implements AsyncDisposable {
  readonly name: string;
  readonly #schedule: Schedule;
  readonly #events: Events<K, C>;
  readonly #dial: Dial<K, C> | undefined;
  readonly #directory: Directory<K, C>;
  readonly #dispatcher: Dispatcher<K, C>;
  readonly #exchange: Exchange<K, C>;
  readonly #sweep: Sweep<K, C>;
  readonly #handleOwner: HandleOwner<K, C>;
  /** Of a caller who asks for nothing in particular. */
  readonly #request: Request<K, C>;
  readonly #started: number;
  readonly #leaks: Leaks<K, C> | undefined;
  #closing: Closing | undefined;

  /** Throws (`ERR_POOL_ARGUMENT`) on a wrong value or an unknown name. */
  constructor(options: PoolOptions<K, C> = {}) {
    const settings = settingsOf(options);
    const { rules, dial, name, clock, leakAfterMs } = settings;
    const owner: DispatcherOwner<K, C> = {
      emptied: (peer) => this.#directory.forget(peer),
      closed: (_conn, closing) => this.#closed(closing),
    };
    this.name = name;
    this.#dial = dial;
    this.#request = { dial };
    this.#schedule = new Schedule(clock);
    this.#events = makeEvents(name);
    this.#started = clock.now();
    this.#leaks = leakAfterMs > 0 ? new Leaks(leakAfterMs, this.#schedule, this.#events) : undefined;
    this.#dispatcher = new Dispatcher(settings, this.#schedule, this.#events, owner);
    this.#directory = new Directory(rules, settings, this.#dispatcher.roster, (peer) => this.#dispatcher.equip(peer));
    this.#exchange = new Exchange(this.#dispatcher);
    this.#sweep = new Sweep(this.#dispatcher);
    this.#handleOwner = { dispatcher: this.#dispatcher, peer: (key, hash) => this.#peer(key, hash) };
  }

  /**
   * A lazy conn for `key`: nothing is dialed before its first RPC. Handles of one key share its conns. Calls
   * reject with `PoolClosedError`, `DialError`, `WaitTimeoutError`, `QueueFullError`, `NoConnError`, `NoMatchError`,
   * `signal.reason`, or what the conn's own RPC rejects with. For pools whose conns are `Conn`s; others `acquire`.
   */
  get(this: Pool<K, Conn>, key: K, dial?: Dial<K, C>, options?: GetOptions<C>): Conn;
  get(this: Pool<K, Conn>, key: K, options?: GetOptions<C>): Conn;
  get(key: K, second?: Dial<K, C> | GetOptions<C>, third: GetOptions<C> = {}): Conn {
    const dial = typeof second === "function" ? second : undefined;
    const options = typeof second === "function" || second === undefined ? third : second;
    checkOptions("get's options", options, getOptionNames);
    checkRequest(options);
    checkBoolean("retryUnsent", options.retryUnsent);
    return new Handle(this.#handleOwner, key, this.#directory.hash(key), dial ?? this.#dial, options);
  }

  /**
   * A lease as soon as there is one. Rejects like the calls of a handle do before they have a conn; wrong arguments
   * reject too.
   */
  acquire(key: K, options?: AcquireOptions<K, C>): Promise<Lease<C>> {
    try {
      const hash = this.#prepare(key, options);
      const where = this.#leaks && Leaks.where();
      const peer = this.#peer(key, hash);
      const member = this.#dispatcher.tryLease(peer, options?.filter);
      if (member !== undefined) return Promise.resolve(this.#grant(member, where));
      const give = where === undefined ? this.#give : (conn: Member<K, C>) => this.#grant(conn, where);
      return this.#wait(peer, options, give);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** A lease if a conn has room at this moment. It never dials and never waits. Throws once the pool is closed. */
  tryAcquire(key: K, options?: { filter?: Filter<C> | undefined }): Lease<C> | undefined {
    if (options !== undefined) {
      checkOptions("tryAcquire's options", options, ["filter"]);
      checkFunction("filter", options.filter);
    }
    if (this.#closing !== undefined) throw new PoolClosedError();
    const peer = this.#directory.find(this.#directory.hash(key));
    if (peer === undefined) return undefined;
    const member = this.#dispatcher.tryLease(peer, options?.filter);
    if (member !== undefined) return this.#grant(member, this.#leaks && Leaks.where());
    (peer.alive ? peer.tally : this.#directory.gone).misses++; // to ask its last conn may have closed it
    this.#dispatcher.available(peer); // slots gained silently go to those who wait
    return undefined;
  }

  /** Runs `fn` on a leased conn, and gives the slot back whichever way it ends. */
  async use<T>(key: K, fn: (conn: C) => Promise<T>, options?: AcquireOptions<K, C>): Promise<T> {
    checkFunction("fn", fn ?? null);
    const hash = this.#prepare(key, options);
    const peer = this.#peer(key, hash);
    const found = this.#dispatcher.tryLease(peer, options?.filter);
    const member = found ?? (await this.#wait(peer, options, (waited) => waited));
    try {
      return await fn(member.conn);
    } finally {
      this.#dispatcher.release(member);
    }
  }

  /**
   * Adopts a conn that the pool did not dial, or gives back what `take` took out. Waiters get it first, then the
   * cache. At an open limit an idle conn is evicted for it; where there is none, and where the conn is draining, it
   * is closed. Returns whether the pool holds it. Throws (`ERR_POOL_ARGUMENT`) for what is no conn, and for a conn that
   * it holds already.
   */
  put(key: K, conn: C): boolean {
    checkConn("what is put", conn);
    const hash = this.#directory.hash(key);
    this.#exchange.checkNew(conn);
    return this.#exchange.put(() => this.#open(key, hash), conn);
  }

  /** Removes an idle conn that is not blocked, and hands it to the caller, who owns it from now on. */
  take(key: K): C | undefined {
    const peer = this.#directory.find(this.#directory.hash(key));
    return peer === undefined ? undefined : this.#exchange.take(peer)?.conn;
  }

  /**
   * Resolves when the key has `count` conns (default 1), idle or in use, dialing those that are missing; as many as
   * the limits allow, where that is less. A `count` of 0 or less: nothing. Rejects with the last dial error, at once
   * unless `waitForReady`; with `NoConnError`, where nothing can dial; with `NoMatchError`, where a conn that was dialed
   * does not pass the filter; with `WaitTimeoutError` or `signal.reason`.
   */
  async warm(key: K, count = 1, options: AcquireOptions<K, C> = {}): Promise<void> {
    checkCount("count", count);
    checkAcquire("warm", options);
    const peer = this.#peer(key, this.#directory.hash(key));
    const { dial = this.#dial, timeoutMs = peer.rules.waitTimeoutMs } = options;
    const warm = this.#dispatcher.keeper.warm(peer, count, { ...options, dial, timeoutMs });
    this.#dispatcher.serve(peer);
    await warm.finally(() => this.#dispatcher.serve(peer)); // nothing may be left of its key
  }

  /**
   * Every conn dialed so far drains, of one key or of all, and backoffs end; waiters stay and are dialed anew. For
   * use after an outage, a failover, a rotation of credentials.
   */
  clear(key?: K): void {
    const hash = key === undefined ? undefined : this.#directory.hash(key);
    const peer = this.#directory.find(hash);
    this.#exchange.clear(hash);
    this.#events.cleared.emit(() => ({ key }));
    this.#sweep.clear(hash === undefined ? [...this.#directory] : peer === undefined ? [] : [peer]);
  }

  /**
   * New limits while the pool runs, for all keys or for one; what is omitted keeps its value. Idle conns over the
   * new limits are closed, those in use drain. Throws (`ERR_POOL_ARGUMENT`) before anything has changed.
   */
  configure(limits: Partial<Limits>, key?: K): void {
    checkOptions("configure's limits", limits, limitNames);
    this.#directory.configure(limits, key === undefined ? undefined : this.#directory.hash(key));
    this.#sweep.reconfigure([...this.#directory], this.#directory.rules);
  }

  /**
   * Calls `listener` for each event of that name, in a microtask; what it returns stops that. The same events go to
   * `node:diagnostics_channel` under `rpc-conn-pool:<name>`, for all pools.
   */
  on<N extends PoolEventName>(name: N, listener: (event: Named<PoolEvents<K, C>[N]>) => void): () => void {
    checkOneOf("name", name ?? null, Object.keys(this.#events));
    checkFunction("listener", listener ?? null);
    return this.#events[name].listen(listener);
  }

  /** The keys that have a conn, a dial, a waiter or a running backoff. */
  *keys(): Generator<K, void, undefined> {
    for (const peer of this.#directory) yield peer.key;
  }

  /** A frozen snapshot, of the pool or of one key. Walks all conns: not for every call. */
  stats(key?: K): PoolStats {
    const now = this.#schedule.clock.now();
    if (key === undefined) return statsOf(this.#directory, this.#directory.gone, now - this.#started);
    const peer = this.#directory.find(this.#directory.hash(key));
    if (peer === undefined) return statsOf([], undefined, 0, []);
    const conns = peer.conns().map((conn) => peer.info(conn));
    return statsOf([peer], undefined, now - peer.since, conns);
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
      if (this.#closing === undefined) this.#beginClose();
      this.#closing?.grant(graceMs);
      return this.#closing?.done ?? bug("a close that never began");
    } catch (error) {
      return Promise.reject(error);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #prepare(key: K, options: AcquireOptions<K, C> | undefined): unknown {
    if (options !== undefined) checkAcquire("acquire", options);
    return this.#directory.hash(key);
  }

  #wait<R>(found: Peer<K, C>, options: AcquireOptions<K, C> | undefined, give: (conn: Member<K, C>) => R): Promise<R> {
    const peer = found.alive ? found : this.#peer(found.key, found.hash); // its last conn has gone just now
    const { waitTimeoutMs } = peer.rules;
    if (options === undefined && waitTimeoutMs === Number.POSITIVE_INFINITY) {
      return this.#dispatcher.wait(peer, this.#request, give);
    }
    const { dial = this.#dial, timeoutMs = waitTimeoutMs, filter, signal, waitForReady } = options ?? {};
    return this.#dispatcher.wait(peer, { dial, timeoutMs, filter, signal, waitForReady }, give);
  }

  /** One for all waiters: a closure each would cost them a tenth of their time. */
  readonly #give = (member: Member<K, C>): Lease<C> => new PoolLease(member, this.#dispatcher);

  #grant(member: Member<K, C>, where: string | undefined): Lease<C> {
    if (this.#leaks === undefined) return new PoolLease(member, this.#dispatcher);
    return new WatchedLease(member, this.#dispatcher, this.#leaks, where ?? "");
  }

  #peer(key: K, hash: unknown): Peer<K, C> {
    const peer = this.#open(key, hash);
    if (peer === undefined) throw new PoolClosedError();
    return peer;
  }

  /** The record of a key; none once the pool is closed. */
  #open(key: K, hash: unknown): Peer<K, C> | undefined {
    if (this.#closing !== undefined) return undefined;
    const peer = this.#directory.open(key, hash);
    if (this.#closing === undefined) return peer;
    this.#dispatcher.serve(peer); // `limits` closed the pool: nothing may be left of the key
    return undefined;
  }

  #beginClose(): void {
    const closing = new Closing(this.#schedule, () => this.#sweep.cut([...this.#directory]));
    this.#closing = closing;
    void closing.done.catch(() => {}).then(() => this.#leaks?.stop());
    this.#sweep.close([...this.#directory], new PoolClosedError("the pool was closed while the caller waited"));
    if (this.#dispatcher.roster.census.open === 0) closing.allClosed();
  }

  #closed(closing: Promise<Failure | undefined> | undefined): void {
    if (this.#closing === undefined) return;
    if (closing !== undefined) this.#closing.watch(closing);
    if (this.#dispatcher.roster.census.open === 0) this.#closing.allClosed();
  }
}
