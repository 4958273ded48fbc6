import type { PoolConn } from "./contract.ts";
import type { Reset, Validate } from "./options.ts";
import type { Member, Peer } from "./peer.ts";
import type { Roster } from "./roster.ts";
import type { Schedule, Task } from "./schedule.ts";

/** Told when the caller's function is done with a conn. */
export interface HealthOwner<K, C extends PoolConn> {
  /** Its slot is to be given back. */
  validated(conn: Member<K, C>): void;
  available(peer: Peer<K, C>): void;
}

/** What the caller does to a conn between two uses: validating it before, resetting it after. */
export class Health<K, C extends PoolConn> {
  readonly #validate: Validate<C> | undefined;
  readonly #reset: Reset<C> | undefined;
  readonly #schedule: Schedule;
  readonly #roster: Roster<K, C>;
  readonly #owner: HealthOwner<K, C>;

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

  /** A conn that was used a moment ago is as healthy as a question could tell. */
  isDue(conn: Member<K, C>): boolean {
    return conn.uses > 0 && this.#schedule.clock.now() - conn.usedAt >= conn.home.rules.validateAfterMs;
  }

  used(conn: Member<K, C>): void {
    conn.usedAt = this.#schedule.clock.now();
  }

  /** A validation is a lease: it holds a slot, and nothing else may use the conn meanwhile. */
  begin(conn: Member<K, C>): void {
    const validate = this.#validate;
    if (validate === undefined) return;
    const peer = conn.home;
    const slots = peer.slots(conn) - conn.streams;
    const controller = new AbortController();
    const timeout = deferred<never>();
    const task: Task = {
      due: 0,
      place: -1,
      run: () => {
        timeout.reject(new Error("the validation took longer than dialTimeoutMs"));
        controller.abort();
      },
    };
    const { dialTimeoutMs } = peer.rules;
    if (dialTimeoutMs < Number.POSITIVE_INFINITY) this.#schedule.add(task, dialTimeoutMs);
    peer.validating += slots;
    this.#roster.lease(conn);
    const ask = async () => {
      const healthy = await Promise.race([validate(conn.conn, { signal: controller.signal }), timeout.promise]);
      if (healthy !== true) throw new Error("the conn is not healthy");
    };
    this.#roster.hold(conn, ask, "invalid", () => {
      this.#schedule.cancel(task);
      peer.validating -= slots;
      this.used(conn);
      this.#owner.validated(conn);
    });
  }

  /** A conn that has been given back is not used again before its reset is done; one whose reset fails is closed. */
  reset(conn: Member<K, C>): void {
    const reset = this.#reset;
    if (reset === undefined || !conn.idle) return;
    this.#roster.hold(
      conn,
      () => reset(conn.conn),
      "reset",
      () => this.#owner.available(conn.home),
    );
  }
}

function deferred<T>(): { promise: Promise<T>; reject: (error: unknown) => void } {
  let reject: (error: unknown) => void = () => {};
  const promise = new Promise<T>((_, no) => {
    reject = no;
  });
  promise.catch(() => {});
  return { promise, reject };
}
