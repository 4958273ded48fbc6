import { Channel, connectivityState, credentials, status } from "@grpc/grpc-js";
import { checkBoolean, checkOptions } from "../argument.ts";
import type { Lease } from "../contract.ts";
import { DialError, PoolTypeError, WaitTimeoutError } from "../errors.ts";
import type { Pool } from "../pool/pool.ts";
import { longestDelayMs } from "../runtime/clock.ts";
import { CallSet, type CreateCall } from "./call.ts";
import type { GrpcConn } from "./conn.ts";
import { newChannel } from "./dial.ts";
import { type CallOwner, type LeaseOptions, PooledCall } from "./pooled-call.ts";
import { GrpcError } from "./status.ts";

const insecure = credentials.createInsecure();

/** Options of `pooledChannel`. */
export interface PooledChannelOptions {
  /**
   * Send a call again, once, whose connection was gone before the request was sent. Default: false. A call that the peer
   * refused (REFUSED_STREAM, or a GOAWAY that leaves it out) grpc-js sends again by itself, once, whatever this says. What
   * the peer may have processed is never sent again, but where a service config says so.
   */
  readonly retryUnsent?: boolean | undefined;
}

/**
 * A grpc-js channel over a pool, for any generated client:
 * `new GreeterClient(address, credentials, { channelOverride: pooledChannel(pool, address) })`.
 *
 * Each call takes a slot on a conn of `key` when it starts, and waits for one, within its deadline, where none is free:
 * so that calls over the stream limit of one connection run on another, as gRPC's proposal A105 has it for Java and
 * C++. `maxKeyConns` of the pool is its `max_connections_per_subchannel`; see `connectionScaling` for what else decides
 * how many connections there are.
 *
 * The pool needs a `dial` of its own; address and credentials that the client is given are not used. `close()` ends
 * this view only: its calls that wait fail, those that run go on, and the pool keeps its conns.
 *
 * @see https://github.com/grpc/proposal/blob/master/A105-max-concurrent-streams-connection-scaling.md
 */
export function pooledChannel<K>(pool: Pool<K, GrpcConn>, key: K, options: PooledChannelOptions = {}): Channel {
  checkPool(pool);
  if (key === undefined) throw new PoolTypeError("Expected a key, got undefined");
  const { retryUnsent } = checkChannelOptions(options);
  const target = typeof key === "string" ? key : "pool";
  return newChannel(() => new PooledChannel(pool, key, target, retryUnsent, () => {}));
}

/** Throws for what cannot lease conns; a pool of another copy of this package can. */
export function checkPool(pool: unknown): void {
  if (typeof pool === "object" && pool !== null && "acquire" in pool) return;
  throw new PoolTypeError("Expected a pool to take conns from");
}

/** The options, checked and complete. */
export function checkChannelOptions(options: PooledChannelOptions): { retryUnsent: boolean } {
  checkOptions("the options of a pooled channel", options, ["retryUnsent"]);
  const { retryUnsent = false } = options;
  checkBoolean("retryUnsent", retryUnsent);
  return { retryUnsent };
}

/**
 * One client's view of a key. By inheritance it is a grpc-js `Channel`, as nice-grpc wants; the channel that it inherits
 * never connects.
 */
export class PooledChannel<K> extends Channel implements CallOwner {
  readonly retryUnsent: boolean;
  readonly #pool: Pool<K, GrpcConn>;
  readonly #key: K;
  readonly #check: (conn: GrpcConn) => void;
  readonly #waiting = new CallSet<PooledCall>();
  readonly #watchers = new Watchers();
  readonly #seen = new WeakSet<GrpcConn>();
  #last: GrpcConn | undefined;
  #connecting = 0;
  #failed = false;
  #closed = false;

  /** `check` throws for a conn that must not be used. */
  constructor(pool: Pool<K, GrpcConn>, key: K, target: string, retryUnsent: boolean, check: (conn: GrpcConn) => void) {
    super(target, insecure, { "grpc.enable_channelz": 0 });
    this.#pool = pool;
    this.#key = key;
    this.retryUnsent = retryUnsent;
    this.#check = check;
  }

  override createCall(...args: CreateCall): PooledCall {
    const [method, deadline] = args;
    if (typeof method !== "string") throw new PoolTypeError("Channel#createCall: method must be a string");
    // grpc-js would throw for NaN where nobody can catch it.
    if (Number.isNaN(Number(deadline)) || !(typeof deadline === "number" || deadline instanceof Date)) {
      throw new PoolTypeError("Channel#createCall: deadline must be a number or Date");
    }
    if (this.#closed) throw new Error("Channel has been shut down");
    return new PooledCall(this, args);
  }

  override close(): void {
    if (this.#closed) return;
    this.#closed = true;
    super.close();
    for (const call of this.#waiting.all())
      call.cancelWithStatus(status.UNAVAILABLE, "Channel closed before call started");
    this.#changed();
  }

  /** As grpc-js: the state before anything that `tryToConnect` begins. */
  override getConnectivityState(tryToConnect: boolean): connectivityState {
    const state = this.#state();
    const { IDLE, TRANSIENT_FAILURE } = connectivityState;
    if (tryToConnect && (state === IDLE || state === TRANSIENT_FAILURE)) void this.#connect();
    return state;
  }

  override watchConnectivityState(
    current: connectivityState,
    deadline: Date | number,
    callback: (error?: Error) => void,
  ): void {
    if (this.#closed) throw new Error("Channel has been shut down");
    this.#watchers.add(current, deadline, callback);
    // A view that has made no call yet looks for a conn that other views have dialed.
    if (this.#last === undefined) this.tryLease()?.release();
    else this.#watch(this.#last);
  }

  /** Of the channel that the last call got; of nothing, before the first. */
  override getChannelzRef(): ReturnType<Channel["getChannelzRef"]> {
    return this.#last?.channel.getChannelzRef() ?? super.getChannelzRef();
  }

  tryLease(): Lease<GrpcConn> | undefined {
    const lease = this.#pool.tryAcquire(this.#key);
    return lease === undefined ? undefined : this.#usable(lease);
  }

  async lease({ signal, deadline, waitForReady }: LeaseOptions): Promise<Lease<GrpcConn>> {
    const begun = Date.now();
    const bounded = deadline !== Number.POSITIVE_INFINITY;
    this.#connecting++;
    try {
      this.#changed();
      for (;;) {
        const timeoutMs = bounded ? deadline - Date.now() : undefined;
        if (timeoutMs !== undefined && timeoutMs <= 0) throw exceeded(begun, "waiting for a connection");
        const lease = this.#usable(await this.#pool.acquire(this.#key, { signal, timeoutMs, waitForReady }));
        if (lease === undefined) continue;
        this.#failed = false;
        return lease;
      }
    } catch (error) {
      if (error instanceof DialError) this.#failed = true;
      if (bounded && error instanceof WaitTimeoutError) throw exceeded(begun, error.message);
      throw error;
    } finally {
      this.#connecting--;
      this.#changed();
    }
  }

  begin(waiting: PooledCall): void {
    this.#waiting.add(waiting);
  }

  end(waiting: PooledCall): void {
    this.#waiting.delete(waiting);
  }

  /** A conn may begin to leave in the tick in which the pool hands it out. */
  #usable(lease: Lease<GrpcConn>): Lease<GrpcConn> | undefined {
    try {
      this.#check(lease.conn);
      if (!lease.conn.draining) {
        this.#last = lease.conn;
        if (this.#watchers.size > 0) this.#watch(lease.conn);
        return lease;
      }
    } catch (error) {
      lease.release();
      throw error;
    }
    lease.release();
    return undefined;
  }

  async #connect(): Promise<void> {
    const { signal } = new AbortController();
    try {
      const lease = await this.lease({ signal, deadline: Number.POSITIVE_INFINITY, waitForReady: false });
      lease.release();
    } catch {
      // The state says that it failed.
    }
  }

  #state(): connectivityState {
    if (this.#closed) return connectivityState.SHUTDOWN;
    const { open, draining, dialing } = this.#pool.stats(this.#key);
    if (open > draining) return connectivityState.READY;
    if (dialing > 0 || this.#connecting > 0) return connectivityState.CONNECTING;
    return this.#failed ? connectivityState.TRANSIENT_FAILURE : connectivityState.IDLE;
  }

  /** Only while somebody watches this view: a conn outlives many views, and must not collect them. */
  #watch(conn: GrpcConn): void {
    if (this.#seen.has(conn)) return;
    this.#seen.add(conn);
    conn.onChange(() => this.#changed());
    // The pool knows one microtask later.
    const changed = async (): Promise<void> => this.#changed();
    void conn.closed.then(changed).then(changed);
  }

  #changed(): void {
    if (this.#watchers.size > 0) this.#watchers.tell(this.#state());
  }
}

function exceeded(begun: number, why: string): GrpcError {
  const details = `Deadline exceeded after ${((Date.now() - begun) / 1_000).toFixed(3)}s,${why}`;
  return new GrpcError(status.DEADLINE_EXCEEDED, details);
}

interface Watcher {
  readonly current: connectivityState;
  readonly callback: (error?: Error) => void;
  timer: NodeJS.Timeout | undefined;
}

/** Those who wait for a channel to change its state, each told once. */
class Watchers {
  readonly #all = new Set<Watcher>();

  get size(): number {
    return this.#all.size;
  }

  /** As grpc-js: the deadline is a time, `Infinity` sets no timer, and passing it is an error. */
  add(current: connectivityState, deadline: Date | number, callback: (error?: Error) => void): void {
    const watcher: Watcher = { current, callback, timer: undefined };
    this.#all.add(watcher);
    const at = Number(deadline);
    if (at === Number.POSITIVE_INFINITY) return;
    const pass = (): void => {
      this.#all.delete(watcher);
      callback(new Error("Deadline passed without connectivity state change"));
    };
    watcher.timer = setTimeout(pass, Math.min(Math.max(at - Date.now(), 0), longestDelayMs));
  }

  /** Tells those for whom `state` is another one. */
  tell(state: connectivityState): void {
    for (const watcher of this.#all) {
      if (watcher.current === state) continue;
      this.#all.delete(watcher);
      clearTimeout(watcher.timer);
      watcher.callback();
    }
  }
}
