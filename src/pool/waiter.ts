import type { Dial, PoolConn } from "../contract.ts";
import type { Filter } from "../options.ts";
import type { AbortWatcher } from "../runtime/abort.ts";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";
import type { Linked, List } from "../runtime/list.ts";
import type { Schedule, Task } from "../runtime/timers.ts";

/** What a caller asks for. */
export interface Request<K, C extends PoolConn> {
  readonly dial?: Dial<K, C> | undefined;
  readonly filter?: Filter<C> | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
  readonly waitForReady?: boolean | undefined;
}

/** Whose queue a waiter stands in. It is told when the waiter gives up. */
export interface WaiterOwner<W> {
  readonly schedule: Schedule;
  timedOut(waiter: W): void;
  aborted(waiter: W, reason: unknown): void;
  left(waiter: W): void;
}

/** A method's parameters are compared both ways, so that a waiter's type need not say what its caller gets. */
interface Settling<R> {
  settle(given: R): void;
}

/** A queued request for a lease on a conn, `M`, of a key, `H`. */
export class Waiter<K, C extends PoolConn, M, H> implements Linked<Waiter<K, C, M, H>>, Task, AbortWatcher {
  prev: Waiter<K, C, M, H> | undefined = undefined;
  next: Waiter<K, C, M, H> | undefined = undefined;
  list: List<Waiter<K, C, M, H>> | undefined = undefined;
  due = 0;
  place = -1;

  readonly home: H;
  readonly request: Request<K, C>;
  /** Orders the waiters of all keys. */
  readonly number: number;
  /** When it came, and how long its key had been dialing then; known where somebody may ask. */
  since: number | undefined = undefined;
  dialedBefore = 0;
  /** A dial for it brought a conn that it cannot use: it starts no second. */
  tried = false;
  /** It has just come, and may be refused. */
  fresh = true;

  /** What the caller gets for a conn; `resolve` takes what it returns, and is not a closure over it to save that. */
  readonly #give: (conn: M) => unknown;
  readonly #resolve: Settling<unknown>["settle"];
  readonly #reject: (error: unknown) => void;
  readonly #owner: WaiterOwner<Waiter<K, C, M, H>>;

  constructor(
    home: H,
    request: Request<K, C>,
    number: number,
    give: (conn: M) => unknown,
    resolve: Settling<unknown>["settle"],
    reject: (error: unknown) => void,
    owner: WaiterOwner<Waiter<K, C, M, H>>,
  ) {
    this.home = home;
    this.request = request;
    this.number = number;
    this.#give = give;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#owner = owner;
  }

  /** From now on it may give up. Apart from the constructor, so that V8 inlines that. */
  watch(): void {
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = this.request;
    if (signal !== undefined) watchAbort(signal, this);
    if (timeoutMs < Number.POSITIVE_INFINITY) this.#owner.schedule.add(this, timeoutMs);
  }

  /** It may give up because its time is over. */
  get timed(): boolean {
    return this.place >= 0;
  }

  /** Whether it is worth a dial. */
  get wantsDial(): boolean {
    return this.request.dial !== undefined && !this.tried;
  }

  resolve(conn: M): void {
    this.#detach();
    this.#resolve(this.#give(conn));
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
    if (this.place >= 0) this.#owner.schedule.cancel(this);
    if (this.request.signal !== undefined) unwatchAbort(this.request.signal, this);
  }
}
