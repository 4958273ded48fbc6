import { showKey } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import type { KeyEvent } from "../explanation.ts";
import { List } from "../runtime/list.ts";
import type { KeyRules } from "./config.ts";
import type { Entry } from "./entry.ts";
import type { IdleQueue } from "./expiry.ts";
import { Pending } from "./pending.ts";
import type { EntriesByLoad } from "./selector.ts";
import { Counters } from "./stats.ts";

/** Events that a key remembers. */
const mostRemembered = 5;

/** Something that has happened to a key. */
export type Remembered = Omit<KeyEvent, "agoMs"> & { readonly at: number };

/** Lists that most keys never need. Written by the selector. */
export interface SharedLists<K, C extends PoolConn> {
  /** Free, with streams: the one longest with room first. */
  readonly roomy: List<Entry<K, C>>;
  /** Instead of `roomy`, where the load decides. */
  readonly byLoad: EntriesByLoad<Entry<K, C>> | undefined;
  /** Free, but due for validation: a search has moved them here, so that the next does not meet them again. */
  readonly due: List<Entry<K, C>>;
}

/** What many keys never need. */
class KeyExtras<K, C extends PoolConn> {
  /** What tells the key from others, where that is not the key itself. */
  hash: unknown = undefined;
  /** Conns that drain; that are asked for a sign of life; that are skipped for now. Written by `Entries`. */
  draining = 0;
  suspect = 0;
  blocked = 0;
  /** Streams that ended here while another key waited for a place. Written by `Capacity`. */
  streamsSinceYield = 0;
  /** Where `nextInTurn` has come to. */
  cursor: Entry<K, C> | undefined = undefined;
  /** What happened to it that does not happen all the time, the last first. */
  readonly history: Remembered[] = [];
  /** All that is counted, but hits. */
  readonly counters: Counters = new Counters();
}

/** All that the pool knows about one key. It lives while the key has a conn, a dial, a waiter or a running backoff. */
export class KeyPool<K, C extends PoolConn> {
  /** The key, as callers give it. */
  readonly id: K;
  rules: KeyRules;
  /** In whole milliseconds: a fraction would be an object of its own. */
  readonly since: number;
  /** Free, no stream: the one longest idle first. Written by the selector, like the next. */
  readonly idle: List<Entry<K, C>> = new List();
  shared: SharedLists<K, C> | undefined = undefined;
  /** Slots of the key's last conn; undefined: nothing is known yet. */
  lastSlots: number | undefined = undefined;
  /** All open conns, free or not, draining ones included: a chain from the one longest here. */
  #oldest: Entry<K, C> | undefined = undefined;
  #youngest: Entry<K, C> | undefined = undefined;
  /** Conns that are open, draining ones included; idle, blocked ones included. Written by `Entries`. */
  open = 0;
  idleCount = 0;
  /** Where its idle conns stand in the order of all, if there is one. Written by `Capacity`. */
  idleQueue: IdleQueue<Entry<K, C>> | undefined = undefined;
  /** Something is to be done at each lease and give-back beside counting. Written by `Hooks`. */
  hasHooks = false;
  /** False: forgotten by the pool; who holds it looks the key up again. Written by the key table. */
  isAlive = true;
  /** To be read; `ownPending` gives one that may be changed. */
  pending: Pending<K, C>;
  /** Leases that found a conn with room at once. */
  hits = 0;
  #extras: KeyExtras<K, C> | undefined = undefined;

  constructor(key: K, hash: unknown, rules: KeyRules, since: number, resting: Pending<K, C>) {
    this.id = key;
    this.rules = rules;
    this.since = Math.floor(since);
    this.pending = resting;
    if (hash !== key) this.extras.hash = hash;
  }

  get extras(): KeyExtras<K, C> {
    this.#extras ??= new KeyExtras<K, C>();
    return this.#extras;
  }

  /** What tells the key from others. */
  get hash(): unknown {
    const own = this.#extras?.hash;
    return own === undefined ? this.id : own;
  }

  /** How messages call it. */
  get name(): string {
    return showKey(this.id, this.hash);
  }

  /** Remembers something that has happened at a time; of such things, the last few. */
  remember(what: KeyEvent["what"], why: string, at: number): void {
    const { history } = this.extras;
    if (history.unshift({ what, why, at }) > mostRemembered) history.pop();
  }

  get history(): readonly Remembered[] {
    return this.#extras?.history ?? [];
  }

  get counters(): Counters {
    return this.extras.counters;
  }

  /** Adds what was counted to `sum`. */
  addTo(sum: Counters): void {
    sum.hits += this.hits;
    if (this.#extras !== undefined) sum.add(this.#extras.counters);
  }

  get isResting(): boolean {
    return this.pending.key === undefined;
  }

  /** A record of what is pending that is this key's own. */
  ownPending(): Pending<K, C> {
    if (this.isResting) this.pending = new Pending(this);
    return this.pending;
  }

  /** Lets go of a record in which nothing is pending, for the one of all keys that rest. */
  rest(resting: Pending<K, C>): void {
    if (this.pending.isOver) this.pending = resting;
  }

  /** Nothing is left of it. */
  get isEmpty(): boolean {
    return this.open === 0 && this.pending.isEmpty;
  }

  get drainingCount(): number {
    return this.#extras?.draining ?? 0;
  }

  /** Of the usable conns, those that are asked for a sign of life: others may be dialed in their place. */
  get suspectCount(): number {
    return this.#extras?.suspect ?? 0;
  }

  /** Of the open conns, those that are skipped for now. */
  get blockedCount(): number {
    return this.#extras?.blocked ?? 0;
  }

  /** Conns that may take streams: open, and not draining. */
  get usable(): number {
    return this.open - this.drainingCount;
  }

  get leasedCount(): number {
    return this.open - this.idleCount - this.drainingCount;
  }

  enter(entry: Entry<K, C>): void {
    entry.older = this.#youngest;
    if (this.#youngest === undefined) this.#oldest = entry;
    else this.#youngest.younger = entry;
    this.#youngest = entry;
  }

  leave(entry: Entry<K, C>): void {
    entry.list?.remove(entry);
    const { older, younger } = entry;
    if (this.#extras?.cursor === entry) this.#extras.cursor = younger;
    if (older === undefined) this.#oldest = younger;
    else older.younger = younger;
    if (younger === undefined) this.#youngest = older;
    else younger.older = older;
    entry.older = undefined;
    entry.younger = undefined;
  }

  get oldest(): Entry<K, C> | undefined {
    return this.#oldest;
  }

  /** The open conns, one at each call, over and over. */
  nextInTurn(): Entry<K, C> | undefined {
    const { extras } = this;
    const entry = extras.cursor ?? this.#oldest;
    extras.cursor = entry?.younger;
    return entry;
  }

  /** All open conns, oldest first. A copy: what is done to one conn may close others. */
  entries(): Entry<K, C>[] {
    const entries: Entry<K, C>[] = [];
    for (let entry = this.#oldest; entry !== undefined; entry = entry.younger) entries.push(entry);
    return entries;
  }

  /** What is known of the slots of a conn whose dial function announced `announced`; infinite: nothing. At least 1. */
  expectedSlots(announced: number | undefined): number {
    const { maxStreams } = this.rules;
    const known = announced ?? this.lastSlots ?? (maxStreams === 1 ? 1 : Number.POSITIVE_INFINITY);
    if (known === Number.POSITIVE_INFINITY) return known;
    return Math.max(Math.min(known, maxStreams), 1) || 1; // NaN would stay in every sum
  }

  /** A conn of the key takes so many streams: what the next one is expected to take. */
  learn(slots: number): void {
    const isFirst = this.lastSlots === undefined;
    this.lastSlots = slots;
    if (isFirst && !this.isResting) this.pending.learn(this.expectedSlots(undefined));
  }
}
