/**
 * What a pool is told. Types only. Counts: 0 is unlimited, negative is none. Times are in milliseconds: 0 is
 * never, negative is refused. A wrong value or an unknown name throws at once, with the code `ERR_POOL_ARGUMENT`.
 */

import type { Dial, PoolConn } from "./contract.ts";
import type { Clock } from "./runtime/clock.ts";

/**
 * Delays between failed dials of a key, from a failure to the next dial: exponential, with jitter, reset by a success, by `clear`,
 * or when nobody has dialed for `maxMs` after a delay.
 */
export interface Backoff {
  /** The first delay, over 0, before jitter. Default 100. */
  readonly baseMs?: number | undefined;
  /** The longest delay, before jitter. Default 10,000. */
  readonly maxMs?: number | undefined;
  /** How many times as long each delay is as the one before, from 1 on. Default 2. */
  readonly factor?: number | undefined;
  /**
   * What is random about a delay. `"full"`: anything from 0 to its length, so that those who failed together do not come back
   * together. A number from 0 to 1: so much more or less of its length, as gRPC has it. Default `"full"`.
   */
  readonly jitter?: number | "full" | undefined;
  /** Failed dials in a row after which nobody waits any longer, `waitForReady` or not. Default 0: unlimited. */
  readonly maxAttempts?: number | undefined;
}

/** Limits that can differ from key to key. */
export interface KeyLimits {
  /** Idle conns cached per key. Default 0: unlimited. Negative: a conn given back is closed unless a waiter takes it. */
  readonly keyCapacity?: number | undefined;
  /** An idle conn is closed after this: never earlier, at most a quarter later. Default 0: never. */
  readonly expirationMs?: number | undefined;
  /** Open conns per key, dialing included, draining not; at the limit callers wait. Default 0: unlimited. Negative: none. */
  readonly maxKeyConns?: number | undefined;
  /** Cap on the streams of one conn: the smaller of this and the conn's own. Default 0: no cap. Negative: none may run. */
  readonly maxStreams?: number | undefined;
  /**
   * Dials in flight per key. Default 0: unlimited. Negative: none, only `put` brings conns. Unlimited, callers who come at once to a
   * key whose conns are exclusive get a dial each, and dials that the first conns make needless are abandoned: of 50 dials for calls
   * of 2 ms, where a dial takes 150 ms, 30 % more or less, 42 are. A limit spares them, for a little of the callers' time.
   */
  readonly maxKeyDials?: number | undefined;
  /**
   * Callers per key that a limit holds back (not those that a dial in flight will serve, nor one for whom an idle conn of another
   * key is being closed); one more is refused with `QueueFullError`. Default 1000. 0: unlimited. Negative: nobody waits for a limit.
   */
  readonly maxWaiters?: number | undefined;
  /** How long a caller waits for a lease who does not say so, dialing included. Default 0: for ever. */
  readonly waitTimeoutMs?: number | undefined;
  /**
   * Over everything until a dialed conn is usable: DNS, TCP, TLS, hello. Also over a validation, a reset, and the time that a
   * conn may be blocked. Default 20,000. 0: for ever.
   */
  readonly dialTimeoutMs?: number | undefined;
  /**
   * Age at which a conn drains, jitter taken off. Default 0: never. One that was ever used goes when a replacement has come from the
   * pool's `dial`, a second later at most: no caller waits. Where `maxKeyConns` has no room for both, it drains first, and its replacement
   * is dialed at once; conns whose time is over meanwhile follow one after another, within that second. A caller who then finds
   * no other conn with a free slot waits for the rest of that dial. Where another limit is in the way (`maxConns`, in which draining
   * conns count, `maxDials`, `maxKeyDials`), nothing is dialed before somebody asks.
   */
  readonly maxLifetimeMs?: number | undefined;
  /**
   * How much earlier a lifetime may end, at random, as a part of it from 0 to 1: conns that were born together should
   * not go together. Default 0.1. 0: none.
   */
  readonly lifetimeJitter?: number | undefined;
  /** Streams after which a conn drains. Default 0: unlimited. Negative: as 1. */
  readonly maxUses?: number | undefined;
  /** Idle conns kept ready for each key in use, within the other limits, dialed with the pool's `dial`. Default 0. Negative: as 0. */
  readonly minIdle?: number | undefined;
  /** A conn used within this time is not validated. Default 500. 0: `validate` before each reuse. */
  readonly validateAfterMs?: number | undefined;
  /**
   * Pauses between failed dials, for new callers too. `true`: with its defaults. Default false: what the pool dials again
   * by itself (for waiters with `waitForReady`, `minIdle`, `warm`) pauses 50 ms to 1 s at random, for calls of a `pooledChannel` alone as
   * gRPC does; a new caller's own dial does not.
   */
  readonly backoff?: Backoff | boolean | undefined;
}

/** Every limit; `configure` takes them while the pool runs. */
export interface Limits extends KeyLimits {
  /** Idle conns cached, in total. Default 0: unlimited. Negative: a conn given back is closed unless a waiter takes it. */
  readonly capacity?: number | undefined;
  /**
   * Open conns in total, dialing and draining ones included, and closed ones until their socket is gone (5 s at most); at the
   * limit callers wait. Default 0: unlimited. Negative: none.
   */
  readonly maxConns?: number | undefined;
  /**
   * Dials in flight, of all keys; those that it holds back are dialed for in turn. Default 0: unlimited. Negative: none, only `put`
   * brings conns.
   */
  readonly maxDials?: number | undefined;
}

/** What a filter, a selection and `stats(key)` see of a conn. */
export interface ConnInfo {
  readonly state: "idle" | "leased" | "draining";
  /** It is skipped: its `unblocked()` is pending, or a reset, a validation or a ping runs. */
  readonly blocked: boolean;
  /** Streams that run now. */
  readonly streams: number;
  /** Streams that may run at once, now. */
  readonly maxStreams: number;
  readonly tags: Readonly<Record<string, unknown>> | undefined;
  readonly ageMs: number;
  /** Streams begun so far. */
  readonly uses: number;
}

/** Whether a request may run on `conn`. Called often: keep it cheap. One that throws refuses the conn. */
export type Filter<C> = Filtering<C>["passes"];

/** A method's parameters are compared both ways, so that a `Pool<K, GrpcConn>` is a `Pool<K, Conn>`. */
interface Filtering<C> {
  passes(conn: C, info: ConnInfo): boolean;
}

/** Picks one of `conns`, which have room; `infos` are what is known of each. One that throws gets the first. */
export type Select<C> = (conns: readonly C[], infos: readonly ConnInfo[]) => C | undefined;

/**
 * How a conn is chosen. `"newest"`: conns that run streams first, then idle ones, the last given back first, so that load
 * concentrates, and spare conns go idle and expire. `"oldest"`: the same from the other end, as Go's drpcpool does: a
 * trickle of calls uses all conns in turn, and keeps all of them. `"least-loaded"`: the fewest streams. `"fastest"`: the
 * least expected time, mean call time (peak EWMA) times streams. Or a function.
 */
export type Selection<C> = "oldest" | "newest" | "least-loaded" | "fastest" | Select<C>;

/**
 * In which order callers of a key are served that wait. `"fifo"`: as they came. `"codel"`: the same, until for `intervalMs` nobody has got
 * a conn within `targetMs`. Then, until nobody waits, the newest are served first, who still have time for their call, and
 * those that have waited longer than `targetMs` are refused with `QueueFullError` at once instead of when their time is up:
 * controlled delay with adaptive LIFO (https://queue.acm.org/detail.cfm?id=2209336,
 * https://queue.acm.org/detail.cfm?id=2839461). An object says it with times of its own.
 */
export type Queueing = "fifo" | "codel" | ControlledDelay;

export interface ControlledDelay {
  /** Milliseconds, over 0. Default 50. */
  readonly targetMs?: number | undefined;
  /** Milliseconds, over 0. Default 1000. */
  readonly intervalMs?: number | undefined;
}

/** Says whether a conn still works; throwing or rejecting says no. `signal` aborts when the answer is no longer waited for. */
export type Validate<C> = (conn: C, options: { signal: AbortSignal }) => Promise<boolean>;

/** Runs a conn's first RPC before anybody waits for it; throwing or rejecting fails its dial. `signal` aborts with the dial. */
export type Prime<C> = (conn: C, options: { signal: AbortSignal }) => unknown;

/** Makes a conn ready for its next use; throwing or rejecting closes it. */
export type Reset<C> = (conn: C) => unknown;

/** Options of a `Pool`; all are optional. */
export interface PoolOptions<K, C extends PoolConn> extends Limits {
  /** Dials for all keys, so that `pool.get(key)` is enough; also what `minIdle` and `warm` use. */
  readonly dial?: Dial<K, C> | undefined;
  /**
   * Called with each conn that the pool dials before somebody waits for it (replacements, `minIdle`, `warm`), and part of the
   * dial: so the first RPC, which is slower (TLS resumption, a peer's cold caches), is not a caller's. Default: none.
   */
  readonly prime?: Prime<C> | undefined;
  /**
   * Makes a Map key of a key that is an object. It must take in everything that decides who is on the other end,
   * credentials included. Default: the key itself. `undefined` is no key.
   */
  readonly hashKey?: ((key: K) => unknown) | undefined;
  /** Overrides for one key, read when the key appears. */
  readonly limits?: ((key: K) => KeyLimits | undefined) | undefined;
  /** Which of a key's conns with room is taken. Default `"newest"`. */
  readonly selection?: Selection<C> | undefined;
  /** Who is served first of those that wait. Default `"fifo"`. */
  readonly queue?: Queueing | undefined;
  /**
   * Asked before a conn is used again that was not used for `validateAfterMs`; it holds a slot meanwhile, and the conn
   * gets no other stream. False, an error, or no answer within `dialTimeoutMs` closes the conn, and the caller gets
   * another. Default: none.
   */
  readonly validate?: Validate<C> | undefined;
  /** Called when a conn's last stream has ended; the conn counts as blocked until it is done. Default: none. */
  readonly reset?: Reset<C> | undefined;
  /**
   * Records where each lease of `acquire` and `tryAcquire` is taken, and reports those that are not released within this
   * time, or that were collected as garbage unreleased: a `leaked` event and a process warning (`RPC_CONN_POOL_LEAK`).
   * Nothing is released or closed. Calls of handles and `use` release by themselves. Costs a stack trace per lease: for
   * finding bugs. Default 0: off. Negative: refused.
   */
  readonly leakAfterMs?: number | undefined;
  /** For metrics. Default: "pool". */
  readonly name?: string | undefined;
  /** Default: the machine's monotonic clock. */
  readonly clock?: Clock | undefined;
}

/** Options of `clear`. */
export interface ClearOptions {
  /**
   * Milliseconds over which the conns go, each at a random moment: one that was ever used goes when its replacement has
   * come, and no caller waits for a dial, as at the end of a lifetime. Default 0: all of them drain now. Negative: refused.
   */
  readonly withinMs?: number | undefined;
}

/** Options of `acquire`, `use` and `warm`. */
export interface AcquireOptions<K, C extends PoolConn> {
  /** Dials where no conn has room. Default: the pool's `dial`. */
  readonly dial?: Dial<K, C> | undefined;
  /** Ends the wait; the promise rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds to get a lease, dialing included; 0 or less: they are over. Default: the pool's `waitTimeoutMs`. */
  readonly timeoutMs?: number | undefined;
  /** The same as a point in time: a `Date`, or milliseconds since the epoch. The earlier of both counts. Default: none. */
  readonly deadline?: Date | number | undefined;
  /** Only conns that pass. */
  readonly filter?: Filter<C> | undefined;
  /** Wait on through failed dials until the time is up. Default false. */
  readonly waitForReady?: boolean | undefined;
}

/** Options of `explain`: the caller that it is about. */
export type ExplainOptions<K, C extends PoolConn> = Pick<AcquireOptions<K, C>, "dial" | "filter" | "waitForReady">;

/** Options of `use`. */
export interface UseOptions<K, C extends PoolConn> extends AcquireOptions<K, C> {
  /** Close the conn, as `discard` does, if the function rejects. Default false: it is given back. */
  readonly discardOnError?: boolean | undefined;
}

/** Options of `put`. */
export interface PutOptions {
  /**
   * Which conn stays where both sides dial each other at once. `"this"`: the one that is put; the key's dials in flight are
   * abandoned, and conns that the pool dialed for it drain. `"dialed"`: a conn that the pool dials, or has dialed, for the
   * key; the one that is put is not used. Both sides must choose the same conn, by comparing their names, say. The peer may have
   * begun calls on the other one: it drains, and is closed by the peer, or here after a second, but not while its
   * `peerStreams` says that some run. As long as the preferred conn is open, this holds for all that the other side dials.
   * Default: all stay.
   */
  readonly prefer?: "this" | "dialed" | undefined;
}

/** Options of `get`: defaults of the handle's calls. */
export interface GetOptions<C extends PoolConn> {
  /** The signal of calls that bring none. */
  readonly signal?: AbortSignal | undefined;
  /** Only conns that pass. */
  readonly filter?: Filter<C> | undefined;
  /** Send an RPC once more that failed with `ConnClosedError.sent === false`. Default false. */
  readonly retryUnsent?: boolean | undefined;
  /** The default of the calls' `waitForReady`. Default false. */
  readonly waitForReady?: boolean | undefined;
}
