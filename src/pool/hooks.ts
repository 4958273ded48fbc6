import type { CloseReason, PoolConn } from "../contract.ts";
import type { Reset, Validate } from "../options.ts";
import { isThenable } from "../runtime/guard.ts";
import { type Timers, timer } from "../runtime/timers.ts";
import { type KeyRules, unlimited } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** A conn that was never used is not asked sooner than this after it came, whatever `validateAfterMs` says. */
const newConnMs = 500;
/** Slots that one validation promises at most: an infinite sum could never be taken back. */
const mostSlots = 1e6;

/**
 * What options, and conns themselves, ask for at each lease and give-back beside counting: `validate` before reuse, `reset` after it.
 * Keys without any skip this.
 */
export class Hooks<K, C extends PoolConn> {
  readonly #validate: Validate<C> | undefined;
  readonly #reset: Reset<C> | undefined;
  readonly #timers: Timers;
  readonly #core: Core<K, C>;
  /** What ends each question that is being asked about a conn. */
  readonly #asking = new Map<Entry<K, C>, Set<() => void>>();

  constructor(
    options: { readonly validate?: Validate<C> | undefined; readonly reset?: Reset<C> | undefined },
    timers: Timers,
    core: Core<K, C>,
  ) {
    this.#validate = options.validate;
    this.#reset = options.reset;
    this.#timers = timers;
    this.#core = core;
  }

  /** The rules of a key have changed: sees whether it needs hooks. */
  ruled(key: KeyPool<K, C>): void {
    const { minIdle, maxUses } = key.rules;
    key.hasHooks =
      this.validates ||
      this.#reset !== undefined ||
      this.#core.selector.selection === "fastest" ||
      minIdle > 0 ||
      maxUses < unlimited ||
      key.entries().some(({ canUnref, life }) => canUnref || life !== undefined);
  }

  /** A conn has come. */
  entered(entry: Entry<K, C>): void {
    if (entry.canUnref || entry.life !== undefined) entry.key.hasHooks = true;
    if (entry.life !== undefined) this.#core.health.entered(entry.life);
  }

  /** Counts a stream. Returns whether the key may lack conns now. */
  lease(entry: Entry<K, C>): boolean {
    const { key } = entry;
    const { minIdle, maxUses } = key.rules;
    entry.someExtras?.latency?.changed(entry.streams, this.#core.timers.now());
    if (minIdle > 0) this.#core.minIdle.used(key);
    this.#core.entries.lease(entry);
    if (entry.streams === 1) entry.holdProcess(true);
    if (entry.uses >= maxUses) this.#core.entries.drain(entry, "retired");
    if (entry.life !== undefined) {
      if (entry.streams > 1) this.#core.health.beganBeside(entry.life);
      else this.#core.health.began(entry); // asks the conn, which may use the pool
    }
    return minIdle > 0;
  }

  /** Before a stream is uncounted. */
  releasing(entry: Entry<K, C>): void {
    entry.someExtras?.latency?.ended(entry.streams, this.#core.timers.now());
    if (this.validates) this.#used(entry);
    if (entry.key.rules.minIdle > 0) this.#core.minIdle.used(entry.key);
  }

  /** After a stream has been uncounted. */
  released(entry: Entry<K, C>): void {
    if (entry.isIdle) entry.holdProcess(false);
    if (entry.isIdle) this.#core.health.ended(entry);
    this.#startReset(entry);
  }

  // The functions of the options, which are asked about conns.

  get validates(): boolean {
    return this.#validate !== undefined;
  }

  /** A conn that was used or dialed a moment ago is as healthy as a question could tell. */
  isDue(entry: Entry<K, C>, { validateAfterMs }: KeyRules = entry.key.rules): boolean {
    const afterMs = entry.uses > 0 ? validateAfterMs : Math.max(validateAfterMs, newConnMs);
    return this.#timers.now() - (entry.someExtras?.usedAt ?? entry.openedAt) >= afterMs;
  }

  #used(entry: Entry<K, C>): void {
    entry.extras.usedAt = this.#timers.now();
  }

  /** Validates as many conns as the waiters need that nothing else will serve: no storm after a quiet time. */
  validateFor(key: KeyPool<K, C>): void {
    if (this.#validate === undefined) return;
    for (
      let waiter = key.pending.waiters.head;
      waiter !== undefined && key.pending.validating < key.pending.waiters.size;
    ) {
      const entry = this.#core.selector.pickDue(key, waiter.request.filter);
      if (entry !== undefined) this.#begin(entry);
      else waiter = waiter.next;
    }
  }

  /** A validation is a lease: it holds a slot, and nothing else may use the conn meanwhile. */
  #begin(entry: Entry<K, C>): void {
    const validate = this.#validate;
    if (validate === undefined) return;
    const slots = Math.min(entry.slots - entry.streams, mostSlots); // as it has just been asked
    const isShared = entry.streams > 0;
    const pending = entry.key.ownPending();
    pending.validating += slots;
    this.#core.entries.leaseUnseen(entry);
    if (entry.streams === 1) entry.holdProcess(true);
    const controller = new AbortController();
    const ask = async () => {
      if ((await validate(entry.conn, { signal: controller.signal })) !== true)
        throw new Error("the conn is not healthy");
    };
    this.#hold(entry, ask, controller, "invalid", () => {
      pending.validating -= slots;
      entry.extras.usedAt = Number.POSITIVE_INFINITY; // with `validateAfterMs` 0 it would be due again before anybody has it
      this.#core.validated(entry, isShared);
      this.#used(entry);
    });
  }

  /** A conn that has been given back is not used again before its reset is done; one whose reset fails is closed. */
  #startReset(entry: Entry<K, C>): void {
    const reset = this.#reset;
    if (reset === undefined || !entry.isIdle) return;
    entry.holdProcess(true);
    this.#hold(
      entry,
      () => reset(entry.conn),
      undefined,
      "reset",
      () => {
        if (entry.isIdle) entry.holdProcess(false);
        this.#core.available(entry.key);
      },
    );
  }

  /** The conn is skipped until there is an answer; one that does not come within `dialTimeoutMs` is a failure. */
  #hold(
    entry: Entry<K, C>,
    ask: () => unknown,
    controller: AbortController | undefined,
    reason: CloseReason,
    done: () => void,
  ): void {
    const limited = () => {
      const answer = ask();
      return isThenable(answer) ? this.withinDialTimeout(entry, answer, controller) : answer;
    };
    this.#core.entries.hold(entry, limited, reason, done);
  }

  /** What `answer` brings, or a rejection where that takes longer than `dialTimeoutMs`, or the conn leaves. */
  withinDialTimeout(entry: Entry<K, C>, answer: PromiseLike<unknown>, controller?: AbortController): Promise<unknown> {
    const { dialTimeoutMs } = entry.key.rules;
    let stop = () => {};
    const over = new Promise<never>((_, reject) => {
      stop = () => {
        reject(new Error("no answer in time"));
        controller?.abort();
      };
    });
    const forget = this.untilLeft(entry, stop);
    const timeout = timer(stop);
    if (dialTimeoutMs < Number.POSITIVE_INFINITY) this.#timers.arm(timeout, dialTimeoutMs);
    return Promise.race([answer, over]).finally(() => {
      forget();
      this.#timers.disarm(timeout);
    });
  }

  /** Remembers what ends a question about a conn that leaves. Returns what forgets it. */
  untilLeft(entry: Entry<K, C>, stop: () => void): () => void {
    const asking = this.#asking.get(entry) ?? new Set();
    this.#asking.set(entry, asking.add(stop));
    return () => {
      if (asking.delete(stop) && asking.size === 0) this.#asking.delete(entry);
    };
  }

  /** The conn leaves: whatever is being asked about it, the answer is not waited for. */
  left(entry: Entry<K, C>): void {
    for (const stop of this.#asking.get(entry) ?? []) stop();
  }
}
