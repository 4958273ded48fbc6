import type { PoolConn } from "../contract.ts";
import type { Clock } from "../runtime/clock.ts";

/** What a resolver is given beside the key. */
export interface ResolveOptions {
  /** Aborts when the answer is not waited for any longer, or when nothing is left of the key. */
  readonly signal: AbortSignal;
  /**
   * Tells new addresses at any time later, for resolvers that watch instead of being asked; use `refreshMs: 0` with them.
   * Without effect once `signal` has aborted.
   */
  readonly update: (addresses: readonly string[]) => void;
}

/** Gives the addresses that a key stands for now. An empty list, or an error, leaves those that are known in place. */
export type Resolve<K> = (key: K, options: ResolveOptions) => readonly string[] | PromiseLike<readonly string[]>;

/** Dials one address. Every `Dial` with text as its keys is one. */
export interface AddressDial<K, C> {
  (address: string, options: { signal: AbortSignal; key: K }): C | PromiseLike<C>;
  /** How many streams a conn that this function dials will take, where that is known beforehand (DRPC: 1). */
  readonly maxStreams?: number | undefined;
}

/** How the addresses of a key were found, for logs and metrics. */
export interface Resolved {
  /** Those in use now, the subset where there are more: in this client's order. */
  readonly addresses: readonly string[];
  /** What `resolve` failed with; the addresses are those from before. */
  readonly error?: unknown;
}

/** Options of `dialService`. */
export interface ServiceOptions<K, C extends PoolConn> {
  /** Finds the addresses of a key: `hostAddresses()`, `srvAddresses()`, a function of your own, or a fixed list. */
  readonly resolve: Resolve<K> | readonly string[];
  /** Dials one of them: `dialGrpc(…)`, `dialDrpc(…)`, `dialSocket(…)`. */
  readonly dial: AddressDial<K, C>;
  /**
   * How often a key in use is resolved again, up to a tenth earlier at random, and besides when one of its conns dies.
   * Default 30,000. 0: never. Negative: refused.
   */
  readonly refreshMs?: number | undefined;
  /**
   * At most so many addresses are used of one key: a part that each client chooses by rendezvous hashing, so that all are
   * used by somebody. Default 20. 0: all of them. Negative: refused.
   */
  readonly maxAddresses?: number | undefined;
  /** After this the next address is tried, within the pool's own `dialTimeoutMs`. Default 5,000. 0: never. Negative: refused. */
  readonly attemptTimeoutMs?: number | undefined;
  /** Decides this client's order of addresses; clients with equal seeds choose alike. Default: random. */
  readonly seed?: string | undefined;
  /** As the pool's, for keys that are objects. Default: the key itself. */
  readonly hashKey?: ((key: K) => unknown) | undefined;
  /** Called whenever a key has been resolved, or could not be. What it throws is ignored. */
  readonly onResolved?: ((key: K, resolved: Resolved) => void) | undefined;
  /** Default: the machine's monotonic clock. */
  readonly clock?: Clock | undefined;
}
