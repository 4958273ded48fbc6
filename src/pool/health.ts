import type { PoolConn } from "../contract.ts";
import type { Filter } from "../options.ts";
import { inNextTurn, systemClock, wallNow } from "../runtime/clock.ts";
import { outcome } from "../runtime/guard.ts";
import { isArmed, type Timer, type Timers, timer } from "../runtime/timers.ts";
import type { KeyRules } from "./config.ts";
import type { Core } from "./core.ts";
import type { Entry, SignsOfLife } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** A conn that ran no stream for so long may have been forgotten by a NAT or a firewall between. */
const longQuietMs = 30_000;
/** A peer that has answered nothing for so long may be gone; callers may give up sooner for reasons of their own. */
const leastSilenceMs = 1_000;
/** Servers punish pings: https://github.com/grpc/grpc/blob/master/doc/keepalive.md ("too_many_pings"). */
const pingEveryMs = 10_000;
/** How long a conn has to show life: one that can be asked from then on, one that cannot in all the time in which it owed an answer. */
const patienceMs = 5_000;
/** Calls that a conn which cannot be asked leaves unanswered before it is closed: one alone may be slow for reasons of its own. */
const leastUnanswered = 2;
/** How often a conn that cannot be asked is looked at while it is skipped. */
const lookEveryMs = 250;
/** How often the clock is looked at while conns are open that can show life. */
const watchEveryMs = 1_000;
/** If that happens so much later, the process or the machine has stood still. */
const frozenMs = 1_500;

/** An event loop that was held up reads what has come in its next turn: `then` runs behind that. */
function whenRead(then: () => void): void {
  inNextTurn(() => inNextTurn(then));
}

/** Whether conns live: pings of those that owe an answer and are silent, and what is done with those that know none. */
export class Health<K, C extends PoolConn> {
  readonly #timers: Timers;
  readonly #core: Core<K, C>;
  /** Conns that cannot be asked and are skipped while others can be had, the one longest skipped first; the timers look for late bytes. */
  readonly #aside = new Map<KeyPool<K, C>, Map<Entry<K, C>, Timer>>();
  /** Of the conns that are asked for a sign of life now: whether it comes. */
  readonly #questions = new Map<Entry<K, C>, Promise<boolean>>();
  readonly #watch: Timer = timer(() => this.#core.enter(() => this.#lookAtClock()));
  /** The time of day when it was last looked at. */
  #lookedAt = 0;
  /** How often the process has gone on after it had stood still. */
  #thaws = 0;

  constructor(timers: Timers, core: Core<K, C>) {
    this.#timers = timers;
    this.#core = core;
  }

  /** One more stream has begun beside others. */
  beganBeside(life: SignsOfLife): void {
    life.countedAt = this.#timers.now();
  }

  /** A first stream has begun. A conn that was quiet for long is asked for a sign of life along with it: nobody waits for that. */
  began(entry: Entry<K, C>): void {
    const { life, bytesRead } = entry;
    if (life === undefined) return;
    const now = this.#timers.now();
    if (bytesRead !== life.bytesSeen) this.#showsLife(life, now);
    else if (Number.isNaN(life.owesSince)) life.owesSince = now;
    life.countedAt = now;
    life.bytesSeen = bytesRead;
    if (now - life.quietSince >= longQuietMs && entry.canPing)
      void this.#ask(entry, life).then((isAlive) => this.#judge(entry, isAlive));
  }

  /** The last stream has ended. */
  ended({ life }: Entry<K, C>): void {
    if (life !== undefined) life.quietSince = this.#timers.now();
  }

  #showsLife(life: SignsOfLife, now: number): void {
    life.owesSince = now;
    life.owedMs = 0;
    life.unanswered = 0;
  }

  /**
   * A call has ended that the peer owed an answer to. Where no byte has come meanwhile either, the conn is suspect: it is
   * skipped until it shows life, and closed if it does not. A peer that is only slow answers the ping.
   */
  unanswered(entry: Entry<K, C>): void {
    const { life, bytesRead } = entry;
    if (life === undefined) {
      this.#unansweredUnasked(entry);
      return;
    }
    const now = this.#timers.now();
    const isSilent = Number.isNaN(bytesRead) || bytesRead === life.bytesSeen;
    life.bytesSeen = bytesRead;
    if (!isSilent) this.#showsLife(life, now);
    else life.owedMs += now - life.countedAt; // it ran at least as long as the youngest
    life.countedAt = now;
    if (!isSilent) return;
    life.unanswered++;
    if (now - life.owesSince < leastSilenceMs) return;
    if (!entry.canPing) this.#doubt(entry, life);
    else if (this.#questions.has(entry) || now - life.askedAt >= pingEveryMs) this.#suspect(entry, life);
  }

  /**
   * A conn that cannot be asked has been silent. A peer that is slow and answers nothing to calls that were given up, as DRPC
   * does, looks the same, so that it is closed only after as long a time as an answer to a ping may take; that in which it
   * owed nothing does not count. Until then it is skipped while another can be had, and no limit makes way for that.
   */
  #doubt(entry: Entry<K, C>, life: SignsOfLife): void {
    if (!entry.isReady) return;
    this.#setAside(entry, life);
    if (life.owedMs < patienceMs || life.unanswered < leastUnanswered) return;
    const { bytesSeen } = life;
    const close = () => Object.is(entry.bytesRead, bytesSeen) && this.#core.entries.drain(entry, "silent");
    whenRead(() => this.#core.enter(close));
  }

  #setAside(entry: Entry<K, C>, { bytesSeen }: SignsOfLife): void {
    const { key } = entry;
    const aside = this.#aside.get(key) ?? new Map<Entry<K, C>, Timer>();
    if (aside.has(entry)) return;
    const endsAt = this.#timers.now() + patienceMs;
    const look = timer(() => {
      const { pending } = key;
      const now = this.#timers.now();
      const isOver = !Object.is(entry.bytesRead, bytesSeen) || now >= endsAt;
      // Somebody has waited for a while in vain for the conns that are in use.
      const isMissed = pending.heldBack > 0 && now - (pending.waiters.head?.since ?? now) >= lookEveryMs;
      if (isOver || isMissed) this.#core.enter(() => this.#takeBack(entry) && this.#core.available(key));
      else this.#timers.arm(look, lookEveryMs);
    });
    this.#aside.set(key, aside.set(entry, look));
    this.#timers.arm(look, lookEveryMs);
    this.#core.entries.skip(entry, "silent");
    this.#core.dispatcher.recheck(key); // who waits may find that there is no other
  }

  /** The conn is skipped no more, or has left. Returns whether it was. */
  #takeBack(entry: Entry<K, C>): boolean {
    const { key } = entry;
    const aside = this.#aside.get(key);
    const look = aside?.get(entry);
    if (aside === undefined || look === undefined) return false;
    this.#timers.disarm(look);
    aside.delete(entry);
    if (aside.size === 0) this.#aside.delete(key);
    this.#core.entries.unskip(entry);
    return true;
  }

  /** Conns that a caller with that filter gets where no other can be had: they have room, but are doubtful. */
  *lastResort(key: KeyPool<K, C>, filter: Filter<C> | undefined): Generator<Entry<K, C>, void, undefined> {
    const { selector } = this.#core;
    for (const entry of this.#aside.get(key)?.keys() ?? []) {
      const isFree = entry.holdCount === 1 && entry.streams < selector.slotsOf(entry);
      if (isFree && selector.passes(entry, filter)) yield entry;
    }
  }

  /**
   * How many may wait a moment for another conn before they get one that is doubtful: where there is none that may come back, in use
   * or blocked, nobody, else as many as may wait at all.
   */
  mayHope(key: KeyPool<K, C>, { maxWaiters }: KeyRules = key.rules): number {
    return key.usable - key.suspectCount > (this.#aside.get(key)?.size ?? 0) ? maxWaiters : 0;
  }

  /** So many of those who wait cannot have another conn. Returns whether there are any for them. */
  resort(key: KeyPool<K, C>, lacking: number): boolean {
    let left = lacking;
    let waiter = key.pending.waiters.head;
    for (; waiter !== undefined && left > 0 && this.#aside.has(key); waiter = waiter.next) {
      const { filter } = waiter.request;
      const [entry] = this.lastResort(key, filter);
      if (entry !== undefined && this.#takeBack(entry)) left--;
      else if (filter === undefined) break;
    }
    return left < lacking;
  }

  /** Of a conn of which nothing is known but that its calls end unanswered. */
  #unansweredUnasked(entry: Entry<K, C>): void {
    const { extras, uses } = entry;
    const { unansweredAtUses } = extras;
    extras.unansweredAtUses = uses;
    if (unansweredAtUses !== undefined && uses - unansweredAtUses <= 1) this.#core.entries.drain(entry, "silent");
  }

  /** A conn is skipped until it shows life. One that does not is closed under its streams. */
  #suspect(entry: Entry<K, C>, life: SignsOfLife): void {
    if (entry.life?.isSuspect) return;
    const { key } = entry;
    const { entries, capacity, drain } = this.#core;
    const answer = this.#ask(entry, life);
    const isAlive = answer.then((alive) => {
      if (!alive) throw new Error("the conn shows no sign of life");
    });
    entries.suspect(entry, isAlive, () => {
      void answer.then((alive) => this.#judge(entry, alive));
      const { maxKeyConns } = key.rules;
      if (capacity.ofKey(key) > maxKeyConns) drain.fit([key], "evicted", "the conn that it was to replace shows life");
      this.#core.available(key);
    });
  }

  // After a stop of the process (SIGSTOP, a sleeping laptop, a frozen function) the peers may have gone without a word.

  /** A conn has come that can show life: from now on the clock is looked at. */
  entered(life: SignsOfLife): void {
    life.provenAtThaw = this.#thaws;
    if (!isArmed(this.#watch)) this.#lookAtClock(true);
  }

  /** No conn is left. */
  rest(): void {
    this.#timers.disarm(this.#watch);
  }

  #lookAtClock(isFirst = false): void {
    const hasStoodStill = !isFirst && this.#hasStoodStill();
    this.#lookedAt = this.#wallNow();
    this.#timers.arm(this.#watch, watchEveryMs);
    if (hasStoodStill) this.#thawed();
  }

  #hasStoodStill(): boolean {
    return this.#wallNow() - this.#lookedAt > watchEveryMs + frozenMs;
  }

  /** The time of day, which goes on while the machine sleeps; a clock that has none is asked for its own time. */
  #wallNow(): number {
    const { clock } = this.#timers;
    return clock === systemClock || clock.wallNow !== undefined ? wallNow(clock) : clock.now();
  }

  /** Conns in use are pinged now, idle ones at their next use. */
  #thawed(): void {
    this.#thaws++;
    for (const key of this.#core.keys) {
      for (const entry of key.entries()) {
        const { life } = entry;
        entry.doubt();
        if (life !== undefined && entry.isReady && !entry.isIdle && entry.canPing) this.#suspect(entry, life);
      }
    }
  }

  /** The process has not stood still since the conn was last known to live. */
  isProven(life: SignsOfLife): boolean {
    return life.provenAtThaw === this.#thaws && !this.#hasStoodStill();
  }

  /** A conn is about to be used. False: it must show life first, or has been closed since it cannot. */
  trustOrAsk(entry: Entry<K, C>, life: SignsOfLife): boolean {
    if (this.#hasStoodStill()) this.#lookAtClock();
    if (life.provenAtThaw === this.#thaws) return true;
    if (entry.canPing) this.#suspect(entry, life);
    else this.#core.entries.drain(entry, "silent");
    return false;
  }

  /**
   * Whether the conn shows life within a time: it answers a ping, or bytes come. Those count once: what they are part of may never
   * come to its end. Never rejects.
   */
  #ask(entry: Entry<K, C>, life: SignsOfLife): Promise<boolean> {
    const asked = this.#questions.get(entry);
    if (asked !== undefined) return asked;
    const answer = this.#pingOrBytes(entry, life).finally(() => this.#questions.delete(entry));
    this.#questions.set(entry, answer);
    return answer;
  }

  async #pingOrBytes(entry: Entry<K, C>, life: SignsOfLife): Promise<boolean> {
    const { bytesRead: before } = entry;
    const controller = new AbortController();
    life.askedAt = this.#timers.now();
    let settle = (_isAlive: boolean) => {};
    const over = new Promise<boolean>((resolve) => {
      settle = resolve;
    });
    const lastWord = () => {
      life.bytesAlone = Object.is(entry.bytesRead, before) ? 0 : life.bytesAlone + 1;
      settle(life.bytesAlone === 1);
    };
    const patience = timer(() => whenRead(lastWord));
    this.#timers.arm(patience, patienceMs);
    const forget = this.#core.hooks.untilLeft(entry, () => {
      if (!entry.isOpen) settle(true); // nobody asks any more; one that drains may run streams that wait
    });
    const ping = async () => {
      const isAnswered = (await outcome(() => entry.ping(controller.signal))) === undefined;
      if (isAnswered) life.bytesAlone = 0;
      return isAnswered;
    };
    const isAlive = await Promise.race([ping(), over]);
    forget();
    this.#timers.disarm(patience);
    controller.abort();
    if (isAlive) {
      life.provenAtThaw = this.#thaws;
      life.quietSince = this.#timers.now();
    }
    life.bytesSeen = entry.bytesRead;
    life.owesSince = Number.NaN;
    return isAlive;
  }

  /** A conn that shows no life is closed under its streams: they would wait for ever. */
  #judge(entry: Entry<K, C>, isAlive: boolean): void {
    if (!isAlive) this.#core.enter(() => this.#core.entries.destroy(entry, "silent"));
  }

  /** The conn leaves. */
  left(entry: Entry<K, C>): void {
    this.#takeBack(entry);
  }
}
