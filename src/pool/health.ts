import type { CloseReason, PoolConn } from "../contract.ts";
import type { Reset, Validate } from "../options.ts";
import { systemClock, wallNow } from "../runtime/clock.ts";
import { isThenable, outcome } from "../runtime/guard.ts";
import { isArmed, type Timer, type Timers, timer } from "../runtime/timers.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** A conn that was never used is not asked sooner than this after it came, whatever `validateAfterMs` says. */
const newConnMs = 500;
/** A conn that ran no stream for so long may have been forgotten by a NAT or a firewall between. */
const longQuietMs = 30_000;
/** A peer that has answered nothing for so long may be gone; callers may give up sooner for reasons of their own. */
const leastSilenceMs = 1_000;
/** Servers punish pings: https://github.com/grpc/grpc/blob/master/doc/keepalive.md ("too_many_pings"). */
const pingEveryMs = 10_000;
/** How long a conn has to answer a ping. */
const pingTimeoutMs = 5_000;
/** How often the clocks are looked at while conns are open that can show life. */
const watchEveryMs = 5_000;
/** A timer so late, or a wall clock so far ahead of the monotonic one, says that the process or the machine has stood still. */
const frozenMs = 5_000;
/** Slots that one validation promises at most: an infinite sum could never be taken back. */
const mostSlots = 1e6;

/** Whether conns work: `validate` before reuse, `reset` after use, and pings of those that owe an answer and are silent. */
export class Health<K, C extends PoolConn> {
  readonly #validate: Validate<C> | undefined;
  readonly #reset: Reset<C> | undefined;
  readonly #timers: Timers;
  readonly #core: Core<K, C>;
  /** What ends each question that is being asked about a conn. */
  readonly #asking = new Map<Entry<K, C>, Set<() => void>>();
  readonly #watch: Timer = timer(() => this.#core.enter(() => this.#lookAtClocks()));
  /** How far the wall clock was ahead of the monotonic one when they were last looked at. */
  #wallAhead = 0;
  /** How often the process has gone on after it had stood still. */
  #thaws = 0;

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

  get validates(): boolean {
    return this.#validate !== undefined;
  }

  get resets(): boolean {
    return this.#reset !== undefined;
  }

  /** A conn that was used or dialed a moment ago is as healthy as a question could tell. */
  isDue(entry: Entry<K, C>): boolean {
    const { validateAfterMs } = entry.key.rules;
    const afterMs = entry.uses > 0 ? validateAfterMs : Math.max(validateAfterMs, newConnMs);
    return this.#timers.now() - (entry.someExtras?.usedAt ?? entry.openedAt) >= afterMs;
  }

  used(entry: Entry<K, C>): void {
    entry.extras.usedAt = this.#timers.now();
  }

  /** Validates as many conns as the waiters need that nothing else will serve: no storm after a quiet time. */
  serve(key: KeyPool<K, C>): void {
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
      this.used(entry);
    });
  }

  /** A conn that has been given back is not used again before its reset is done; one whose reset fails is closed. */
  reset(entry: Entry<K, C>): void {
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

  /** A first stream has begun. A conn that was quiet for long is asked for a sign of life along with it: nobody waits for that. */
  began(entry: Entry<K, C>): void {
    const { extras, bytesRead } = entry;
    if (bytesRead === undefined || bytesRead !== extras.bytesSeen) extras.owesSince = undefined;
    extras.bytesSeen = bytesRead;
    extras.owesSince ??= this.#timers.now();
    const quietMs = extras.quietSince === undefined ? 0 : this.#timers.now() - extras.quietSince;
    if (quietMs >= longQuietMs && entry.canPing) void this.#ping(entry).then((isAlive) => this.#probed(entry, isAlive));
  }

  /**
   * A call has ended that the peer owed an answer to. Where no byte has come meanwhile either, the conn is suspect: it is
   * skipped until it shows life, and closed if it does not. A peer that is only slow answers the ping. A conn that cannot be
   * asked is closed at its second such call in a row.
   */
  unanswered(entry: Entry<K, C>): void {
    const { extras, bytesRead } = entry;
    const now = this.#timers.now();
    const isSilent = bytesRead === undefined || bytesRead === extras.bytesSeen;
    extras.bytesSeen = bytesRead;
    if (!isSilent) extras.owesSince = now;
    if (!isSilent || now - (extras.owesSince ?? Number.NEGATIVE_INFINITY) < leastSilenceMs) return;
    if (!entry.canPing) {
      const last = extras.unanswered;
      const inARow = last !== undefined && last.bytesRead === bytesRead && entry.uses - last.uses <= 1;
      extras.unanswered = { bytesRead, uses: entry.uses };
      if (inARow) this.#core.entries.drain(entry, "silent");
      return;
    }
    if (now - (extras.pingedAt ?? Number.NEGATIVE_INFINITY) >= pingEveryMs) this.#suspect(entry);
  }

  /** A conn is skipped until it has answered a ping; one that does not is closed under its streams. */
  #suspect(entry: Entry<K, C>): void {
    if (entry.extras.isPinged) return;
    const answer = this.#ping(entry);
    this.#core.entries.hold(
      entry,
      () =>
        answer.then((isAlive) => {
          if (!isAlive) throw new Error("the conn shows no sign of life");
        }),
      "silent",
      () => {
        void answer.then((isAlive) => this.#probed(entry, isAlive));
        this.#core.available(entry.key);
      },
    );
  }

  // After a stop of the process (SIGSTOP, a sleeping laptop, a frozen function) the peers may have gone without a word.

  /** A conn has come that can show life: from now on the clocks are looked at. */
  entered(entry: Entry<K, C>): void {
    if (this.#thaws > 0) entry.extras.provenAtThaw = this.#thaws;
    if (isArmed(this.#watch)) return;
    this.#wallAhead = this.#readWallAhead();
    this.#timers.arm(this.#watch, watchEveryMs);
  }

  /** No conn is left. */
  rest(): void {
    this.#timers.disarm(this.#watch);
  }

  #lookAtClocks(): void {
    const hasStoodStill = this.#hasStoodStill();
    this.#wallAhead = this.#readWallAhead();
    this.#timers.arm(this.#watch, watchEveryMs);
    if (hasStoodStill) this.#thawed();
  }

  #hasStoodStill(): boolean {
    return this.#timers.now() - this.#watch.rank > frozenMs || this.#readWallAhead() - this.#wallAhead > frozenMs;
  }

  /** A clock that says nothing of the time of day says nothing of sleep. */
  #readWallAhead(): number {
    const { clock } = this.#timers;
    return clock === systemClock || clock.wallNow !== undefined ? wallNow(clock) - clock.now() : 0;
  }

  /** Conns in use are pinged now, idle ones at their next use. */
  #thawed(): void {
    this.#thaws++;
    for (const key of this.#core.keys) {
      for (const entry of key.entries()) {
        entry.mustAskUnblocked = true;
        if (entry.isReady && !entry.isIdle && entry.canPing) this.#suspect(entry);
      }
    }
  }

  /** A conn is about to be used. False: it must show life first, or has been closed since it cannot. */
  isTrusted(entry: Entry<K, C>): boolean {
    if (this.#hasStoodStill()) this.#lookAtClocks();
    if (this.#thaws === 0 || entry.extras.provenAtThaw === this.#thaws) return true;
    if (entry.canPing) this.#suspect(entry);
    else this.#core.entries.drain(entry, "silent");
    return false;
  }

  /** Whether the conn shows life within a time: an answer, or any byte. Never rejects. */
  async #ping(entry: Entry<K, C>): Promise<boolean> {
    const { extras } = entry;
    const before = entry.bytesRead;
    const controller = new AbortController();
    extras.isPinged = true;
    extras.pingedAt = this.#timers.now();
    let settle = (_isAlive: boolean) => {};
    const over = new Promise<boolean>((resolve) => {
      settle = resolve;
    });
    const timeout = timer(() => {
      // An event loop that was held up reads what has come in its next turn: that is asked for first.
      setImmediate(() => setImmediate(() => settle(before !== undefined && entry.bytesRead !== before)));
    });
    this.#timers.arm(timeout, pingTimeoutMs);
    const forget = this.#asked(entry, () => {
      if (!entry.isOpen) settle(true); // nobody asks any more; one that drains may run streams that wait
    });
    const answered = outcome(() => entry.ping(controller.signal)).then((failure) => failure === undefined);
    const isAlive = await Promise.race([answered, over]);
    forget();
    this.#timers.disarm(timeout);
    controller.abort();
    extras.isPinged = false;
    if (isAlive) {
      extras.provenAtThaw = this.#thaws;
      extras.quietSince = this.#timers.now();
    }
    extras.bytesSeen = entry.bytesRead;
    extras.owesSince = undefined;
    return isAlive;
  }

  /** Remembers what ends a question about a conn that leaves. Returns what forgets it. */
  #asked(entry: Entry<K, C>, stop: () => void): () => void {
    const asking = this.#asking.get(entry) ?? new Set();
    this.#asking.set(entry, asking.add(stop));
    return () => {
      if (asking.delete(stop) && asking.size === 0) this.#asking.delete(entry);
    };
  }

  /** A conn that shows no life is closed under its streams: they would wait for ever. */
  #probed(entry: Entry<K, C>, isAlive: boolean): void {
    if (!isAlive) this.#core.enter(() => this.#core.entries.destroy(entry, "silent"));
  }

  /** The conn leaves: whatever is being asked about it, the answer is not waited for. */
  stop(entry: Entry<K, C>): void {
    for (const stop of this.#asking.get(entry) ?? []) stop();
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
      return isThenable(answer) ? this.limit(entry, answer, controller) : answer;
    };
    this.#core.entries.hold(entry, limited, reason, done);
  }

  /** What `answer` brings, or a rejection where that takes longer than `dialTimeoutMs`, or the conn leaves. */
  limit(entry: Entry<K, C>, answer: PromiseLike<unknown>, controller?: AbortController): Promise<unknown> {
    const { dialTimeoutMs } = entry.key.rules;
    let stop = () => {};
    const over = new Promise<never>((_, reject) => {
      stop = () => {
        reject(new Error("no answer in time"));
        controller?.abort();
      };
    });
    const forget = this.#asked(entry, stop);
    const timeout = timer(stop);
    if (dialTimeoutMs < Number.POSITIVE_INFINITY) this.#timers.arm(timeout, dialTimeoutMs);
    return Promise.race([answer, over]).finally(() => {
      forget();
      this.#timers.disarm(timeout);
    });
  }
}
