import type { AbortWatcher } from "./abort.ts";
import { unwatchAbort, watchAbort } from "./abort.ts";
import type { Dial, PoolConn } from "./contract.ts";
import type { Linked, List } from "./list.ts";
import type { Filter } from "./options.ts";
import type { Schedule, Task } from "./schedule.ts";

/** What a caller asks for. */
export interface Request<K, C extends PoolConn> {
  readonly dial?: Dial<K, C> | undefined;
  readonly filter?: Filter<C> | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  readonly waitForReady?: boolean | undefined;
}

/** Told when a waiter gives up. */
export interface WaiterOwner<W> {
  timedOut(waiter: W): void;
  aborted(waiter: W, reason: unknown): void;
  left(waiter: W): void;
}

/** A queued request for a lease on a conn, `M`, of a key, `H`. */
export class Waiter<K, C extends PoolConn, M, H> implements Linked<Waiter<K, C, M, H>>, Task, AbortWatcher {
  prev: Waiter<K, C, M, H> | undefined = undefined;
  next: Waiter<K, C, M, H> | undefined = undefined;
  list: List<Waiter<K, C, M, H>> | undefined = undefined;
  due = 0;
  place = -1;

  readonly home: H;
  readonly dial: Dial<K, C> | undefined;
  readonly filter: Filter<C> | undefined;
  readonly waitForReady: boolean;
  /** Orders the waiters of all keys. */
  readonly number: number;
  readonly since: number;
  /** How long its key had been dialing when it came. */
  readonly dialedBefore: number;
  /** A dial for it brought a conn that it cannot use: it starts no second. */
  tried = false;

  /** It has just come, and may be refused. */
  fresh = true;

  readonly promise: Promise<M>;
  #resolve!: (conn: M) => void;
  #reject!: (error: unknown) => void;
  readonly #owner: WaiterOwner<Waiter<K, C, M, H>>;
  readonly #schedule: Schedule;
  readonly #signal: AbortSignal | undefined;

  constructor(
    home: H,
    request: Request<K, C>,
    number: number,
    since: number,
    dialedBefore: number,
    owner: WaiterOwner<Waiter<K, C, M, H>>,
    schedule: Schedule,
  ) {
    this.home = home;
    this.dial = request.dial;
    this.filter = request.filter;
    this.waitForReady = request.waitForReady ?? false;
    this.number = number;
    this.since = since;
    this.dialedBefore = dialedBefore;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#owner = owner;
    this.#schedule = schedule;
    this.#signal = request.signal;
    if (request.signal !== undefined) watchAbort(request.signal, this);
    const { timeoutMs = Number.POSITIVE_INFINITY } = request;
    if (timeoutMs < Number.POSITIVE_INFINITY) schedule.add(this, timeoutMs);
  }

  /** Whether it is worth a dial. */
  get wantsDial(): boolean {
    return this.dial !== undefined && !this.tried;
  }

  resolve(conn: M): void {
    this.#detach();
    this.#resolve(conn);
  }

  reject(error: unknown): void {
    this.#detach();
    this.#reject(error);
  }

  run(): void {
    this.#owner.timedOut(this);
  }

  onAbort(reason: unknown): void {
    this.#owner.aborted(this, reason);
  }

  afterAbort(): void {
    this.#owner.left(this);
  }

  #detach(): void {
    this.#schedule.cancel(this);
    if (this.#signal !== undefined) unwatchAbort(this.#signal, this);
  }
}
