import type { CloseReason, PoolConn } from "../contract.ts";
import type { Reset, Validate } from "../options.ts";
import { isThenable } from "../runtime/guard.ts";
import type { Schedule, Task } from "../runtime/timers.ts";
import type { Roster } from "./entries.ts";
import type { Member, Peer } from "./key-pool.ts";

/** Told when the caller's function is done with a conn. */
export interface HealthOwner<K, C extends PoolConn> {
  /** Its slot is to be given back. `shared`: callers' streams ran on it too, and may have ended meanwhile. */
  validated(conn: Member<K, C>, shared: boolean): void;
  available(peer: Peer<K, C>): void;
}

/** A conn that was never used is not asked sooner than this after it came, whatever `validateAfterMs` says. */
const freshMs = 500;
/** Slots that one validation promises at most: an infinite sum could never be taken back. */
const mostSlots = 1e6;

/** What the caller does to a conn between two uses: validating it before, resetting it after. */
export class Health<K, C extends PoolConn> {
  readonly #validate: Validate<C> | undefined;
  readonly #reset: Reset<C> | undefined;
  readonly #schedule: Schedule;
  readonly #roster: Roster<K, C>;
  readonly #owner: HealthOwner<K, C>;
  /** What ends the question that is being asked about a conn. */
  readonly #asking = new Map<Member<K, C>, () => void>();

  constructor(
    options: { readonly validate?: Validate<C> | undefined; readonly reset?: Reset<C> | undefined },
    schedule: Schedule,
    roster: Roster<K, C>,
    owner: HealthOwner<K, C>,
  ) {
    this.#validate = options.validate;
    this.#reset = options.reset;
    this.#schedule = schedule;
    this.#roster = roster;
    this.#owner = owner;
  }

  /** Whether it has anything to do. */
  get attends(): boolean {
    return this.#validate !== undefined || this.#reset !== undefined;
  }

  get validates(): boolean {
    return this.#validate !== undefined;
  }

  /** A conn that was used or dialed a moment ago is as healthy as a question could tell. */
  isDue(conn: Member<K, C>): boolean {
    const { validateAfterMs } = conn.home.rules;
    const afterMs = conn.uses > 0 ? validateAfterMs : Math.max(validateAfterMs, freshMs);
    return this.#roster.now() - (conn.usedAt ?? conn.openedAt) >= afterMs;
  }

  used(conn: Member<K, C>): void {
    conn.usedAt = this.#roster.now();
  }

  /** Validates as many conns as the waiters need that nothing else will serve: no storm after a quiet time. */
  serve(peer: Peer<K, C>): void {
    if (this.#validate === undefined) return;
    for (
      let waiter = peer.demand.waiters.head;
      waiter !== undefined && peer.demand.validating < peer.demand.waiters.size;
    ) {
      const conn = peer.pickDue(waiter.request.filter);
      if (conn !== undefined) this.begin(conn);
      else waiter = waiter.next;
    }
  }

  /** A validation is a lease: it holds a slot, and nothing else may use the conn meanwhile. */
  begin(conn: Member<K, C>): void {
    const validate = this.#validate;
    if (validate === undefined) return;
    const peer = conn.home;
    const slots = Math.min(conn.slots - conn.streams, mostSlots); // as it has just been asked
    const shared = conn.streams > 0;
    const demand = peer.need();
    demand.validating += slots;
    this.#roster.probe(conn);
    const controller = new AbortController();
    const ask = async () => {
      if ((await validate(conn.conn, { signal: controller.signal })) !== true)
        throw new Error("the conn is not healthy");
    };
    this.#hold(conn, ask, controller, "invalid", () => {
      demand.validating -= slots;
      conn.usedAt = Number.POSITIVE_INFINITY; // with `validateAfterMs` 0 it would be due again before anybody has it
      this.#owner.validated(conn, shared);
      this.used(conn);
    });
  }

  /** A conn that has been given back is not used again before its reset is done; one whose reset fails is closed. */
  reset(conn: Member<K, C>): void {
    const reset = this.#reset;
    if (reset === undefined || !conn.idle) return;
    this.#hold(
      conn,
      () => reset(conn.conn),
      undefined,
      "reset",
      () => this.#owner.available(conn.home),
    );
  }

  /** The conn leaves: whatever is being asked about it, the answer is not waited for. */
  stop(conn: Member<K, C>): void {
    this.#asking.get(conn)?.();
  }

  /** The conn is skipped until there is an answer; one that does not come within `dialTimeoutMs` is a failure. */
  #hold(
    conn: Member<K, C>,
    ask: () => unknown,
    controller: AbortController | undefined,
    reason: CloseReason,
    done: () => void,
  ): void {
    const limited = () => {
      const answer = ask();
      return isThenable(answer) ? this.#limit(conn, answer, controller) : answer;
    };
    this.#roster.blocks.hold(conn, limited, reason, done);
  }

  #limit(conn: Member<K, C>, answer: PromiseLike<unknown>, controller?: AbortController): Promise<unknown> {
    const { dialTimeoutMs } = conn.home.rules;
    let timeout: Task | undefined;
    const over = new Promise<never>((_, reject) => {
      const stop = () => {
        reject(new Error("no answer in time"));
        controller?.abort();
      };
      this.#asking.set(conn, stop);
      if (dialTimeoutMs === Number.POSITIVE_INFINITY) return;
      timeout = { due: 0, place: -1, run: stop };
      this.#schedule.add(timeout, dialTimeoutMs);
    });
    return Promise.race([answer, over]).finally(() => {
      this.#asking.delete(conn);
      if (timeout !== undefined) this.#schedule.cancel(timeout);
    });
  }
}
