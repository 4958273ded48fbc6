import { Channel, type ChannelCredentials, connectivityState, credentials, status } from "@grpc/grpc-js";
import { atOwnPace, checkBoolean, checkOptions, show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { isPoolError, PoolTypeError } from "../errors.ts";
import type { Pool } from "../pool/pool.ts";
import { type CallHost, CallSet, type CreateCall } from "./call.ts";
import { Connectivity, grpcBackoff } from "./connectivity.ts";
import { newChannel } from "./dial.ts";
import { type CallLease, type CallOwner, type LeaseOptions, PooledCall } from "./pooled-call.ts";
import { GrpcError } from "./status.ts";

const { READY } = connectivityState;
const insecure = credentials.createInsecure();

/** What a pooled channel needs of a conn, whatever the transport: that it makes calls as a grpc-js channel does. */
export interface ChannelConn extends PoolConn, CallHost {
  readonly draining: boolean;
  /** @internal The credentials that it was dialed with. */
  readonly credentials: ChannelCredentials;
}

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
 * A call that gets no conn fails with the status that `statusOfPoolError` has for the pool's error: RESOURCE_EXHAUSTED where
 * the queue is full, DEADLINE_EXCEEDED where the time was up, else UNAVAILABLE, or what the dial failed with. The
 * error that a stub gets carries the pool's error as its `cause`, for `isPoolError`.
 *
 * While somebody watches the channel's state, or a call waits for ready, a peer that is down is dialed again and again: at the
 * pace of the pool's `backoff`, or, where it has none, at gRPC's own (`grpcBackoff`), unless others who wait for the same key, by
 * `acquire` or a handle, keep the pool to its quicker one. Without `backoff` a call that does not wait for ready is dialed
 * for at once, whenever it comes; `backoff: grpcBackoff`, which `grpcPeers()` brings, lets it fail until the next dial, as grpc-js does.
 *
 * @see https://github.com/grpc/proposal/blob/master/A105-max-concurrent-streams-connection-scaling.md
 */
export function pooledChannel<K, C extends ChannelConn>(
  pool: Pool<K, C>,
  key: K,
  options: PooledChannelOptions = {},
): Channel {
  checkPool(pool);
  if (key === undefined) throw new PoolTypeError("expected a key, got undefined");
  const { retryUnsent } = checkChannelOptions(options);
  const target = typeof key === "string" ? key : "pool";
  return newChannel(() => new PooledChannel(pool, key, target, retryUnsent, () => {}));
}

/** Throws for what cannot lease conns; a pool of another copy of this package can. */
export function checkPool(pool: unknown): void {
  if (typeof pool === "object" && pool !== null && "acquire" in pool) return;
  throw new PoolTypeError(`expected a pool to take conns from, got ${show(pool)}`);
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
export class PooledChannel<K, C extends ChannelConn> extends Channel implements CallOwner<C> {
  readonly retryUnsent: boolean;
  readonly #pool: Pool<K, C>;
  readonly #key: K;
  readonly #check: (conn: C) => void;
  readonly #waiting = new CallSet<PooledCall<C>>();
  readonly #connectivity: Connectivity<K, C>;
  #last: C | undefined;
  #closed = false;

  /** `check` throws for a conn that must not be used. */
  constructor(pool: Pool<K, C>, key: K, target: string, retryUnsent: boolean, check: (conn: C) => void) {
    super(target, insecure, { "grpc.enable_channelz": 0 });
    this.#pool = pool;
    this.#key = key;
    this.retryUnsent = retryUnsent;
    this.#check = check;
    this.#connectivity = new Connectivity(pool, key);
  }

  override createCall(...args: CreateCall): PooledCall<C> {
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
    this.#connectivity.close();
  }

  /** As grpc-js: the state before anything that `tryToConnect` begins. */
  override getConnectivityState(tryToConnect: boolean): connectivityState {
    const { state } = this.#connectivity;
    if (tryToConnect && state !== READY) this.#connectivity.connect();
    return state;
  }

  override watchConnectivityState(
    current: connectivityState,
    deadline: Date | number,
    callback: (error?: Error) => void,
  ): void {
    if (this.#closed) throw new Error("Channel has been shut down");
    this.#connectivity.watch(current, deadline, callback);
  }

  /** Of the channel that the last call got; of nothing, before the first. */
  override getChannelzRef(): ReturnType<Channel["getChannelzRef"]> {
    return this.#last?.channel.getChannelzRef() ?? super.getChannelzRef();
  }

  lease({ signal, deadline, waitForReady }: LeaseOptions): Promise<CallLease<C>> {
    const options = waitForReady ? atOwnPace({ signal, waitForReady }, grpcBackoff) : { signal };
    if (deadline === Number.POSITIVE_INFINITY) return this.#pool.acquire(this.#key, options);
    const begun = Date.now();
    if (deadline <= begun) return Promise.reject(exceeded(begun, "waiting for a connection"));
    const lease = this.#pool.acquire(this.#key, { ...options, timeoutMs: deadline - begun });
    return lease.catch((error: unknown) => {
      const late = isPoolError(error) && error.code === "ERR_POOL_WAIT_TIMEOUT";
      throw late ? exceeded(begun, error.message, error) : error;
    });
  }

  accept(conn: C): void {
    this.#check(conn);
    this.#last = conn;
  }

  refused(error: unknown): void {
    this.#connectivity.failed(error);
  }

  begin(waiting: PooledCall<C>): void {
    this.#waiting.add(waiting);
  }

  end(waiting: PooledCall<C>): void {
    this.#waiting.delete(waiting);
  }
}

function exceeded(begun: number, why: string, cause?: unknown): GrpcError {
  const details = `Deadline exceeded after ${((Date.now() - begun) / 1_000).toFixed(3)}s,${why}`;
  return new GrpcError(status.DEADLINE_EXCEEDED, details, undefined, cause === undefined ? {} : { cause });
}
