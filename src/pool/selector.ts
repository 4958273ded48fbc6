import type { CloseReason, PoolConn } from "../contract.ts";
import type { NotFree } from "../explanation.ts";
import type { ConnInfo, Filter, Select, Selection } from "../options.ts";
import { isThenable } from "../runtime/guard.ts";
import { type Linked, List } from "../runtime/list.ts";
import type { Timers } from "../runtime/timers.ts";
import type { KeyRules } from "./config.ts";
import type { Entries } from "./entries.ts";
import type { Entry, SignsOfLife } from "./entry.ts";
import type { KeyPool, SharedLists } from "./key-pool.ts";

/** Conns that `"fastest"` compares at a choice; those that lose go to the end, so that each has its turn. */
const compared = 16;
/** Conns whose slots are read again when nothing has room, since they may have changed without a word; bounded, so that a miss stays O(1). */
const rereads = 8;

type IsDue<K, C extends PoolConn> = (entry: Entry<K, C>, rules?: KeyRules) => boolean;

/**
 * Which conn of a key is taken, and whether it is really free. The conns that are free as far as the pool knows stand in
 * lists of their key; one that is chosen is asked before it is handed out.
 */
export class Selector<K, C extends PoolConn> {
  readonly selection: Selection<C>;
  /** Whether a conn that can show life need not do so before it is used. */
  private readonly trustOrAsk: (entry: Entry<K, C>, life: SignsOfLife) => boolean;
  /** Whether a conn must be validated before it is used. Absent: none ever must. */
  readonly #isDue: IsDue<K, C> | undefined;
  /** The conn to use is the first, or the last, of its list, always. */
  private readonly takesFirst: boolean;
  private readonly takesLast: boolean;
  readonly #timers: Timers;
  readonly #entries: Entries<K, C>;
  /** What filters threw: the cause of a `NoMatchError`. */
  readonly #thrown = new WeakMap<Filter<C>, unknown>();

  constructor(
    selection: Selection<C>,
    isDue: IsDue<K, C> | undefined,
    trustOrAsk: (entry: Entry<K, C>, life: SignsOfLife) => boolean,
    timers: Timers,
    entries: Entries<K, C>,
  ) {
    this.selection = selection;
    this.#isDue = isDue;
    this.trustOrAsk = trustOrAsk;
    this.takesFirst = selection === "oldest" && isDue === undefined;
    this.takesLast = selection === "newest" && isDue === undefined;
    this.#timers = timers;
    this.#entries = entries;
  }

  /** The conn to use next; the caller leases it before anything else happens. */
  pick(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    const entry = filter === undefined ? this.first(key) : undefined;
    return entry !== undefined && this.confirm(entry) ? entry : this.pickElse(key, filter);
  }

  /** The conn to ask first, where that is simply the first or the last of its list. */
  private first({ idle, shared }: KeyPool<K, C>): Entry<K, C> | undefined {
    const list = shared === undefined || shared.roomy.head === undefined ? idle : shared.roomy;
    if (this.takesLast) return list.tail;
    return this.takesFirst ? list.head : undefined;
  }

  private pickElse(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    if (filter !== undefined) return this.#search(key, filter, false);
    for (let entry = this.#choose(key); entry !== undefined; entry = this.#choose(key)) {
      if (this.#isDue?.(entry)) {
        entry.list?.remove(entry);
        this.#shared(key).due.push(entry);
      } else if (this.confirm(entry)) return entry;
    }
    return undefined;
  }

  /** The same, but for a conn that runs no stream. */
  pickIdle(key: KeyPool<K, C>): Entry<K, C> | undefined {
    this.#restoreDue(key);
    for (let entry = key.idle.head; entry !== undefined; entry = key.idle.head) {
      if (this.confirm(entry) && entry.isIdle) return entry;
    }
    return undefined;
  }

  /** A conn that may be used once it has been validated. `pick` has found none that may be used now. */
  pickDue(key: KeyPool<K, C>, filter: Filter<C> | undefined): Entry<K, C> | undefined {
    if (this.#isDue === undefined) return undefined;
    if (filter !== undefined) return this.#search(key, filter, true);
    for (let entry = key.shared?.due.head; entry !== undefined; entry = key.shared?.due.head)
      if (this.confirm(entry)) return entry;
    return undefined;
  }

  /** Whether any conn is worth asking for. Where none is, a long queue need not be walked. */
  hasFree({ idle, shared }: KeyPool<K, C>): boolean {
    if (idle.head !== undefined) return true;
    return shared !== undefined && (shared.roomy.head !== undefined || shared.byLoad?.least !== undefined);
  }

  /** Whether `entry` could ever serve a request with that filter. */
  suits(entry: Entry<K, C>, filter: Filter<C> | undefined): boolean {
    return this.slotsOf(entry) > 0 && this.passes(entry, filter);
  }

  passes(entry: Entry<K, C>, filter: Filter<C> | undefined): boolean {
    if (filter === undefined) return true;
    try {
      const verdict: unknown = filter(entry.conn, this.info(entry));
      if (isThenable(verdict)) Promise.resolve(verdict).catch(() => {}); // an async filter passes nothing
      return verdict === true;
    } catch (error) {
      this.#thrown.set(filter, error);
      return false;
    }
  }

  /** What `filter` threw when it was last asked and threw. */
  thrownBy(filter: Filter<C>): unknown {
    return this.#thrown.get(filter);
  }

  /** Slots now, read each time: a peer may raise or lower its limit at any moment. */
  slotsOf(entry: Entry<K, C>, rules: KeyRules = entry.key.rules): number {
    return Math.min(entry.maxStreams, rules.maxStreams);
  }

  info(entry: Entry<K, C>): ConnInfo {
    return entry.info(this.#timers.now(), this.slotsOf(entry));
  }

  /** Puts a conn into the list that its state asks for: one that is full, held or draining into none. */
  place(entry: Entry<K, C>): void {
    const slots = entry.isReady && !entry.isHeld ? this.slotsOf(entry) : 0;
    if (!entry.isOpen) return; // to ask for its slots has closed it
    const list = entry.isReady && !entry.isHeld && entry.streams < slots ? this.listFor(entry) : undefined;
    if (entry.list === list) return;
    entry.list?.remove(entry);
    if (list === entry.key.idle) this.#pushIdle(entry);
    else list?.push(entry);
  }

  /** A stream has begun on the conn that `pick` chose. */
  begun(entry: Entry<K, C>): void {
    const list = entry.streams < entry.slots ? this.listFor(entry) : undefined;
    if (entry.list === list) return;
    entry.list?.remove(entry);
    list?.push(entry);
  }

  /** A stream has ended. An idle conn is listed unasked: its slots are read when it is picked. */
  ended(entry: Entry<K, C>): void {
    if (entry.streams > 0 || entry.isHeld) {
      this.place(entry);
      return;
    }
    entry.list?.remove(entry);
    entry.key.idle.push(entry);
  }

  /** Looks for slots that a conn has gained without a word; each has its turn. */
  reread(key: KeyPool<K, C>, most: number = rereads): boolean {
    for (let left = Math.min(most, key.open); left > 0; left--) {
      const entry = key.nextInTurn();
      if (entry === undefined) return false;
      if (entry.list !== undefined || entry.isHeld || entry.streams >= this.slotsOf(entry)) continue;
      this.place(entry);
      if (entry.list !== undefined) return true;
    }
    return false;
  }

  /** The idle conn that was given back first, held ones included. */
  oldestIdle(key: KeyPool<K, C>): Entry<K, C> | undefined {
    this.#restoreDue(key);
    const isSorted = this.selection !== "fastest"; // that one turns the list over
    let oldest = isSorted ? key.idle.head : undefined;
    if (isSorted && key.idleCount === key.idle.size) return oldest;
    for (let entry = key.oldest; entry !== undefined; entry = entry.younger) {
      if (entry.isIdle && (oldest === undefined || entry.releaseSeq < oldest.releaseSeq)) oldest = entry;
    }
    return oldest;
  }

  #shared(key: KeyPool<K, C>): SharedLists<K, C> {
    const byLoad = this.selection === "least-loaded" ? new EntriesByLoad<Entry<K, C>>() : undefined;
    key.shared ??= { roomy: new List(), byLoad, due: new List() };
    return key.shared;
  }

  private listFor({ key, streams }: Entry<K, C>): List<Entry<K, C>> {
    if (streams === 0) return key.idle;
    const { roomy, byLoad } = key.shared ?? this.#shared(key);
    return byLoad?.of(streams) ?? roomy;
  }

  /** A conn that was held goes back to the place that its give-back earned. */
  #pushIdle(entry: Entry<K, C>): void {
    const { idle } = entry.key;
    if (idle.tail === undefined || idle.tail.releaseSeq <= entry.releaseSeq) {
      idle.push(entry);
      return;
    }
    let next = idle.head;
    while (next !== undefined && next.releaseSeq < entry.releaseSeq) next = next.next;
    if (next === undefined) idle.push(entry);
    else idle.insert(entry, next);
  }

  /** Puts back what was moved away for validation. From the youngest on: each goes to the front, without a walk. */
  #restoreDue({ shared }: KeyPool<K, C>): void {
    for (let entry = shared?.due.tail; entry !== undefined; entry = shared?.due.tail) this.place(entry);
  }

  #choose({ idle, shared }: KeyPool<K, C>): Entry<K, C> | undefined {
    const { selection } = this;
    switch (selection) {
      case "oldest":
        return shared?.roomy.head ?? idle.head;
      case "newest":
        return shared?.roomy.tail ?? idle.tail;
      case "least-loaded":
        return idle.head ?? shared?.byLoad?.least;
      case "fastest":
        return this.#fastest(shared === undefined ? [idle] : [shared.roomy, idle]);
      default:
        return this.#ask(selection, [...(shared?.roomy ?? []), ...idle]);
    }
  }

  #fastest(lists: readonly List<Entry<K, C>>[]): Entry<K, C> | undefined {
    const now = this.#timers.now();
    let best: Entry<K, C> | undefined;
    for (const list of lists) {
      for (let left = Math.min(compared, list.size); left > 0; left--) {
        const entry = list.head;
        if (entry === undefined) break;
        list.remove(entry);
        list.push(entry);
        if (best === undefined || entry.cost(now) < best.cost(now)) best = entry;
      }
    }
    return best;
  }

  /** A copy of what is free, best first where an order is known. */
  #inOrder({ idle, shared }: KeyPool<K, C>): Entry<K, C>[] {
    const due = shared?.due ?? [];
    const entries = [...due, ...(shared?.roomy ?? []), ...idle];
    switch (this.selection) {
      case "newest":
        return entries.reverse();
      case "least-loaded":
        return [...due, ...idle, ...(shared?.byLoad ?? [])].sort((a, b) => a.streams - b.streams);
      case "fastest": {
        const now = this.#timers.now();
        return entries.sort((a, b) => a.cost(now) - b.cost(now));
      }
      default:
        return entries;
    }
  }

  /** What the caller's function chooses; the first, if it throws or chooses none of them. */
  #ask(select: Select<C>, entries: readonly Entry<K, C>[]): Entry<K, C> | undefined {
    if (entries.length === 0) return undefined;
    let chosen: C | undefined;
    try {
      const infos = entries.map((entry) => this.info(entry));
      chosen = select(
        entries.map(({ conn }) => conn),
        infos,
      );
    } catch {
      // The first, then.
    }
    const listed = entries.filter((entry) => entry.list !== undefined); // to ask may have changed them
    return listed.find(({ conn }) => conn === chosen) ?? listed[0];
  }

  /** Filters may change anything, so a copy is walked, and each conn is looked at again after its filter. */
  #search(key: KeyPool<K, C>, filter: Filter<C>, mustBeDue: boolean): Entry<K, C> | undefined {
    const { selection } = this;
    const select = typeof selection === "function" ? selection : undefined;
    const fit: Entry<K, C>[] = [];
    for (const entry of this.#inOrder(key)) {
      if (entry.list === undefined || (this.#isDue?.(entry) ?? false) !== mustBeDue || !this.passes(entry, filter))
        continue;
      if (entry.list === undefined || entry.key !== key || !this.confirm(entry)) continue;
      if (select === undefined) return entry;
      fit.push(entry);
    }
    return select === undefined ? undefined : this.#ask(select, fit);
  }

  /** Asks a listed conn whether it may be used now. One that may not leaves the list. */
  private confirm(entry: Entry<K, C>): boolean {
    const { list, saysDraining } = entry;
    if (saysDraining !== false) return this.refuse(entry, saysDraining ? "goaway" : "blocked");
    // A conn just dialed is free: only after its first stream is it asked, or once it has been in other hands.
    const until = entry.mustAskUnblocked ? this.askUnblocked(entry) : undefined;
    entry.slots = this.slotsOf(entry);
    // To ask it may have changed it, and even moved it to another key.
    if (until === undefined && entry.list === list && entry.streams < entry.slots) return true;
    return this.skip(entry, until, list);
  }

  /** Why a caller with that filter does not get the conn. It asks what `confirm` and a search ask, and changes nothing. */
  notFree(entry: Entry<K, C>, filter: Filter<C> | undefined, rules: KeyRules): NotFree | undefined {
    if (entry.isDraining) return "draining";
    if (entry.isHeld) return holds[entry.someExtras?.heldFor ?? "blocked"] ?? "blocked";
    const { saysDraining } = entry;
    if (saysDraining !== false) return saysDraining ? "draining" : "unreadable";
    const slots = this.slotsOf(entry, rules);
    if (entry.streams >= slots) return slots === 0 ? "noSlots" : "full";
    if (!this.passes(entry, filter)) return "filter";
    if (this.#isDue?.(entry, rules)) return "validationDue";
    if (!entry.mustAskUnblocked) return undefined;
    try {
      const until = entry.askUnblocked();
      if (until === undefined) return undefined;
      Promise.resolve(until).catch(() => {}); // it is heard by whoever asks to use the conn
      return "blocked";
    } catch {
      return "unreadable";
    }
  }

  private askUnblocked(entry: Entry<K, C>): PromiseLike<unknown> | undefined {
    const { life } = entry;
    if (life !== undefined && entry.streams === 0 && !this.trustOrAsk(entry, life)) return undefined; // it is held, or closed
    try {
      return entry.askUnblocked();
    } catch {
      this.refuse(entry, "blocked");
      return undefined;
    }
  }

  private refuse(entry: Entry<K, C>, reason: CloseReason): false {
    this.#entries.drain(entry, reason);
    return false;
  }

  private skip(
    entry: Entry<K, C>,
    until: PromiseLike<unknown> | undefined,
    list: List<Entry<K, C>> | undefined,
  ): false {
    if (until !== undefined) this.#entries.block(entry, until);
    else if (entry.list === list) this.place(entry);
    return false;
  }
}

/** What a conn is held for, by the reason with which it would be closed. */
const holds: Partial<Record<CloseReason, NotFree>> = { reset: "reset", invalid: "validating", silent: "suspect" };

/** Conns with one number of streams. */
interface Load<M extends Linked<M>> {
  readonly streams: number;
  readonly entries: List<M>;
  more: Load<M> | undefined;
}

/** Conns that run streams, by how many. Loads that no conn has any more are forgotten when a search meets them. */
export class EntriesByLoad<M extends Linked<M>> {
  readonly #loads = new Map<number, Load<M>>();
  #lowest: Load<M> | undefined = undefined;

  /** The list of the conns with so many streams. */
  of(streams: number): List<M> {
    const known = this.#loads.get(streams);
    if (known !== undefined) return known.entries;
    let before = this.#loads.get(streams - 1);
    if (before === undefined && this.#lowest !== undefined && this.#lowest.streams < streams) {
      before = this.#lowest;
      while (before.more !== undefined && before.more.streams < streams) before = before.more;
    }
    const load: Load<M> = { streams, entries: new List(), more: before === undefined ? this.#lowest : before.more };
    if (before === undefined) this.#lowest = load;
    else before.more = load;
    this.#loads.set(streams, load);
    return load.entries;
  }

  get least(): M | undefined {
    for (let load = this.#lowest; load !== undefined; load = load.more) {
      if (load.entries.head !== undefined) return load.entries.head;
      this.#loads.delete(load.streams);
      this.#lowest = load.more;
    }
    return undefined;
  }

  *[Symbol.iterator](): Generator<M, void, undefined> {
    for (let load = this.#lowest; load !== undefined; load = load.more) yield* load.entries;
  }
}

/** Half of what is known of a conn's latency is forgotten after this. */
const halfLifeMs = 10_000;

/**
 * How long a conn's calls take: a moving average that follows a rise at once and a fall slowly (peak EWMA,
 * https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/). No start time is kept per call: by
 * Little's law the streams that ran, times how long, over the calls that ended, is their mean time. As many calls
 * make one sample as ran side by side; one alone is a sample of its own.
 */
export class Latency {
  #meanMs = 0;
  #sampledAt: number;
  #streamMs = 0;
  #calls = 0;
  #most = 1;
  #changedAt: number;

  constructor(now: number) {
    this.#changedAt = now;
    this.#sampledAt = now;
  }

  /** `streams` have run since the last change. */
  changed(streams: number, now: number): void {
    this.#streamMs += streams * (now - this.#changedAt);
    this.#changedAt = now;
    if (streams > this.#most) this.#most = streams;
  }

  /** One of `streams` has ended. */
  ended(streams: number, now: number): void {
    this.changed(streams, now);
    if (++this.#calls < this.#most) return;
    const sample = this.#streamMs / this.#calls;
    const kept = this.#kept(now);
    this.#meanMs = sample > this.#meanMs ? sample : this.#meanMs * kept + sample * (1 - kept);
    this.#sampledAt = now;
    this.#streamMs = 0;
    this.#calls = 0;
    this.#most = Math.max(streams - 1, 1);
  }

  /** What one more call can expect beside `streams` others. A conn that has never answered is tried first. */
  cost(streams: number, now: number): number {
    const pending = streams === 0 ? 0 : (this.#streamMs + streams * (now - this.#changedAt)) / (this.#calls + streams);
    return Math.max(this.#meanMs * this.#kept(now), pending) * (streams + 1);
  }

  /** A conn that was slow once is tried again some time. */
  #kept(now: number): number {
    return 0.5 ** ((now - this.#sampledAt) / halfLifeMs);
  }
}
