import type { Linked, List } from "../runtime/list.ts";
import type { Task } from "../runtime/timers.ts";

/** Told when a dial's time is up. */
export interface DialOwner<D> {
  timedOut(dialing: D): void;
}

/** A dial in flight. It belongs to the pool, not to the caller that caused it. */
export class Dialing<H> implements Linked<Dialing<H>>, Task {
  prev: Dialing<H> | undefined = undefined;
  next: Dialing<H> | undefined = undefined;
  /** In its key's list while it counts; in none once it is done or abandoned. */
  list: List<Dialing<H>> | undefined = undefined;
  due = 0;
  place = -1;

  readonly home: H;
  /** The function that dials, of the oldest waiter that it was for. */
  readonly by: unknown;
  /** Waiters that the conn is expected to serve; infinite while nothing is known of the key. */
  slots: number;
  /** Wanted for its own sake (`minIdle`, `warm`), not by a waiter. */
  readonly background: boolean;
  readonly startedAt: number;
  readonly #controller = new AbortController();
  readonly #owner: DialOwner<Dialing<H>>;

  constructor(
    home: H,
    by: unknown,
    slots: number,
    background: boolean,
    startedAt: number,
    owner: DialOwner<Dialing<H>>,
  ) {
    this.home = home;
    this.by = by;
    this.slots = slots;
    this.background = background;
    this.startedAt = startedAt;
    this.#owner = owner;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get inFlight(): boolean {
    return this.list !== undefined;
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  run(): void {
    this.#owner.timedOut(this);
  }
}
