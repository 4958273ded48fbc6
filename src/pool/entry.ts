import type { CloseReason, Conn, PoolConn, Stream } from "../contract.ts";
import { bug } from "../errors.ts";
import type { ConnInfo, Filter } from "../options.ts";
import { attempt, isThenable } from "../runtime/guard.ts";
import type { Linked, List } from "../runtime/list.ts";
import type { Timer } from "../runtime/timers.ts";
import type { KeyPool } from "./key-pool.ts";
import type { Latency } from "./selector.ts";

/** Where one conn stands. */
export type EntryState =
  | { readonly name: "idle" }
  | { readonly name: "leased"; readonly streams: number }
  | { readonly name: "draining"; readonly streams: number; readonly reason: CloseReason }
  | { readonly name: "taken" }
  | { readonly name: "closed"; readonly reason: CloseReason };

// Where a conn stands, in numbers: each call asks several times, and strings are looked at before they are compared.
const taken = 0;
const ready = 1;
const draining = 2;
const closed = 3;

/**
 * What settles the RPCs of a conn: made once per conn, since closures per call would cost half a call. Made for one call,
 * where somebody wants to hear how long that runs.
 */
export interface CallSettlers {
  /** The same conn, known to carry RPCs. */
  readonly conn: Conn;
  readonly streamed: <I, O>(stream: Stream<I, O>) => Stream<I, O>;
  readonly done: <T>(value: T) => T;
  readonly failed: (error: unknown) => never;
}

/** What is kept of a conn only where an option or its own members ask for it. */
export interface EntryExtras<C> {
  /** Why it leaves or has left. */
  reason?: CloseReason;
  /** When the conn was last known to work: for `validate`. Absent: when it was opened. */
  usedAt?: number;
  /** For `"fastest"`. */
  latency?: Latency;
  /** Ends its lifetime. */
  lifetime?: Timer | undefined;
  /** Looks whether its peer's streams are over: the other of two crossing conns stays. */
  peerTimer?: Timer | undefined;
  /** Another conn of its key came for it: both sides had dialed. */
  isCrossed?: boolean;
  /** How much of `lifetimeJitter` is taken off its lifetime. */
  jitter?: number;
  /** When its lifetime ends at the latest, since its key was cleared. */
  cutAt?: number;
  /** What it was last skipped for: the reason with which it would have been closed. */
  heldFor?: CloseReason;
  /** Its lifetime is over, and its replacement has been dialed. */
  isOutlived?: boolean;
  /** Its lifetime is over, and it was to be replaced after another conn of its full key. */
  awaitsTurn?: boolean;
  /** How many streams had begun when `unblocked()` was last pending. */
  blockedAtUses?: number;
  /** How many streams had begun when one last ended unanswered, where nothing else is known. */
  unansweredAtUses?: number;
  /** What a caller gave as the reason for discarding it. */
  cause?: unknown;
  /** The filter of the waiter that it was dialed for, and that it does not pass. */
  failedFilter?: Filter<C> | undefined;
}

/** What is known of whether the peer is there. Times are numbers always, which V8 writes in place. Written by `Health`. */
export class SignsOfLife {
  /** It is asked for one, and skipped meanwhile: others may be dialed in its place. Written by `Entries`. */
  isSuspect = false;
  /** `bytesRead` when a call last began or ended unanswered, or a ping ended; NaN: it does not count them. */
  bytesSeen: number = Number.NaN;
  /** Since when no byte has come though a call runs, or has ended unanswered; NaN: nothing is owed. */
  owesSince: number = Number.NaN;
  /** When its last stream ended, or it last answered a ping; NaN: neither. */
  quietSince: number = Number.NaN;
  /** When a sign of life was last asked for. */
  askedAt: number = Number.NEGATIVE_INFINITY;
  /** For how long calls that ended unanswered have been owed an answer, together, since a byte last came; how many they were. */
  owedMs = 0;
  unanswered = 0;
  /** From when on time is to be counted to `owedMs`: a call last ended unanswered then, or the youngest stream began. */
  countedAt = 0;
  /** How often in a row bytes came, and no answer to the ping. */
  bytesAlone = 0;
  /** How often the process had stood still when the conn came, or last answered a ping. */
  provenAtThaw = 0;
}

/**
 * The pool's record of one conn, and the conn's life from the moment that it is open. Before that it is a `PendingDial`.
 *
 *     taken        -put-> idle             -destroy-> closed
 *     idle         -lease-> leased(1)      -drain, destroy-> closed             -take-> taken
 *     leased(n)    -lease-> leased(n+1)    -release-> leased(n-1), idle at 0    -drain-> draining(n)  -destroy-> closed
 *     draining(n)  -release-> draining(n-1), closed at 0                        -drain-> draining(n)  -destroy-> closed
 *     closed       -release, drain, destroy-> closed
 *
 * `taken`: not the pool's; just dialed, about to be adopted, or taken out by a caller, when a `TakenConn` remembers it. `drain` lets
 * what runs finish: evict, expire, retire, clear, configure, goaway, the pool's close. `destroy`: it died, it shows no sign of life, or
 * the grace of the pool's close is over. Only the methods below write the state; a call that the table does not have throws.
 */
export class Entry<K, C extends PoolConn> implements Linked<Entry<K, C>> {
  prev: Entry<K, C> | undefined = undefined;
  next: Entry<K, C> | undefined = undefined;
  list: List<Entry<K, C>> | undefined = undefined;

  /** Its neighbours among the open conns of its key. Written by the key's pool. */
  older: Entry<K, C> | undefined = undefined;
  younger: Entry<K, C> | undefined = undefined;

  readonly conn: C;
  /** Absent: the conn neither counts the bytes that come nor answers pings. */
  readonly life: SignsOfLife | undefined;
  key: KeyPool<K, C>;
  /** `idle` and `leased` are both "ready", told apart by the stream count. */
  private phase: typeof taken | typeof ready | typeof draining | typeof closed = taken;
  streams = 0;
  /** Streams that the conn took when it was last asked, under the key's cap. Written by the selector. */
  slots = 0;
  /** Streams begun, those of the pool's own not counted. */
  uses = 0;
  /** The pool dialed it. False: it was put in. Written by `Entries`. */
  isDialed = false;
  /** `unblocked()` is worth asking: a stream has ended since the conn came, or it has been in other hands. */
  mustAskUnblocked = false;
  /** For how many reasons it is skipped: `unblocked()`, `reset`, its validation, a sign of life. Written by `Entries`. */
  holdCount = 0;
  /** Numbers the give-backs of all keys, so that ages compare without a clock. Written by `Entries`. */
  releaseSeq = 0;
  /** The tick of its last give-back; negative: it stands in no idle order. Written by the idle order. */
  tick = -1;
  /** Its index among the give-backs that the idle order has not taken in yet; negative: none. */
  noted = -1;
  /** In whole milliseconds, rounded up: a fraction would be an object of its own, and make lifetimes end early. */
  readonly openedAt: number;
  settlers: CallSettlers | undefined = undefined;
  #extras: EntryExtras<C> | undefined = undefined;

  /** `taken`: the conn comes back. */
  constructor(conn: C, key: KeyPool<K, C>, now: number, taken?: TakenConn<C>) {
    this.conn = conn;
    this.life = taken === undefined ? signsOf(conn) : taken.life;
    this.key = key;
    this.openedAt = taken?.openedAt ?? Math.ceil(now);
    this.uses = taken?.uses ?? 0;
    this.#extras = taken?.extras;
  }

  get isReady(): boolean {
    return this.phase === ready;
  }

  get isOpen(): boolean {
    return this.phase === ready || this.phase === draining;
  }

  get isIdle(): boolean {
    return this.streams === 0 && this.phase === ready;
  }

  get isDraining(): boolean {
    return this.phase === draining;
  }

  get isTaken(): boolean {
    return this.phase === taken;
  }

  get isHeld(): boolean {
    return this.holdCount > 0;
  }

  /** Why it leaves or has left. */
  get reason(): CloseReason {
    return this.#extras?.reason ?? "died";
  }

  get state(): EntryState {
    const { streams, reason } = this;
    if (this.phase === ready) return streams === 0 ? { name: "idle" } : { name: "leased", streams };
    if (this.phase === draining) return { name: "draining", streams, reason };
    return this.phase === taken ? { name: "taken" } : { name: "closed", reason };
  }

  get extras(): EntryExtras<C> {
    this.#extras ??= {};
    return this.#extras;
  }

  /** The extras, where there are any. */
  get someExtras(): EntryExtras<C> | undefined {
    return this.#extras;
  }

  lease(): void {
    if (this.phase !== ready) cannot(this, "be leased");
    this.streams++;
    this.uses++;
  }

  /** The same for a stream of the pool's own, which is no use of the conn. */
  leaseUnseen(): void {
    this.lease();
    this.uses--;
  }

  /** Whatever is known of the conn, it is asked before its next stream. */
  doubt(): void {
    this.mustAskUnblocked = true;
  }

  /** A stream has ended. On a conn that has closed meanwhile, nothing. */
  release(): void {
    if (this.phase === closed) return;
    if (this.streams === 0) cannot(this, "be released");
    this.streams--;
    if (this.uses > this.streams) this.mustAskUnblocked = true; // not so after a stream of the pool's own
    if (this.streams === 0 && this.phase === draining) this.phase = closed;
  }

  /** No new streams; closed as soon as none runs. The first reason stays. */
  drain(reason: CloseReason): void {
    if (this.phase === closed) return;
    if (this.phase === taken) cannot(this, "drain");
    this.extras.reason ??= reason;
    this.phase = this.streams === 0 ? closed : draining;
  }

  /** Closed now, whatever runs. */
  destroy(reason: CloseReason): void {
    if (this.phase === closed) return;
    this.extras.reason ??= reason;
    this.phase = closed;
    this.streams = 0;
  }

  /** The caller owns it from now on. */
  take(): void {
    if (!this.isIdle) cannot(this, "be taken");
    this.phase = taken;
  }

  /** The pool's from now on. */
  put(key: KeyPool<K, C>): void {
    if (this.phase !== taken) cannot(this, "be put");
    this.phase = ready;
    this.key = key;
  }

  // What the caller's conn says of itself. Each property is read here and nowhere else, since a getter may throw.

  /** Streams that the conn takes now: 1 where it does not say, 0 where it cannot be asked or says no number. */
  get maxStreams(): number {
    try {
      const { maxStreams } = this.conn;
      if (maxStreams === undefined || maxStreams === null) return 1;
      return typeof maxStreams === "number" && maxStreams > 0 ? maxStreams : 0;
    } catch {
      return 0;
    }
  }

  /** Whether the conn says that no new stream may begin; `undefined`: it cannot be asked. */
  get saysDraining(): boolean | undefined {
    try {
      return this.conn.draining === true;
    } catch {
      return undefined;
    }
  }

  /** What the conn is blocked on; `undefined`: it is free. Throws what `unblocked` throws. */
  askUnblocked(): PromiseLike<unknown> | undefined {
    const until: unknown = this.conn.unblocked?.();
    return until !== undefined && isThenable(until) ? until : undefined; // the usual answer first: it is asked at each lease
  }

  /** Bytes, or frames, that have come from the peer; NaN: not counted. */
  get bytesRead(): number {
    try {
      const { bytesRead } = this.conn;
      return typeof bytesRead === "number" ? bytesRead : Number.NaN;
    } catch {
      return Number.NaN;
    }
  }

  get canPing(): boolean {
    return attempt(() => this.conn.ping !== undefined) ?? false;
  }

  /** Asks the peer for a sign of life. Throws what `ping` throws. */
  ping(signal: AbortSignal): PromiseLike<unknown> | undefined {
    return this.conn.ping?.({ signal });
  }

  /** Streams that the peer runs on the conn. */
  get peerStreams(): number {
    return attempt(() => this.conn.peerStreams) ?? 0;
  }

  /** Milliseconds that the conn may live, where it says so. */
  get maxLifetimeMs(): number | undefined {
    return attempt(() => this.conn.maxLifetimeMs);
  }

  get tags(): Readonly<Record<string, unknown>> | undefined {
    return attempt(() => this.conn.tags);
  }

  /** The pool's only subscription to the conn's changes. Throws what `onChange` throws. */
  subscribe(listener: () => void): void {
    this.conn.onChange?.(listener);
  }

  /** The conn can let the process go while it runs no stream. */
  get canUnref(): boolean {
    return attempt(() => this.conn.ref) !== undefined;
  }

  /** A conn that runs no stream must not hold the process, and one that runs some must. */
  holdProcess(hold: boolean): void {
    try {
      if (hold) this.conn.ref?.();
      else this.conn.unref?.();
    } catch {
      // A conn that cannot be held or let go still carries streams.
    }
  }

  /** What one more call can expect to take, where that is measured. */
  cost(now: number): number {
    return this.#extras?.latency?.cost(this.streams, now) ?? 0;
  }

  /** What filters, selections and `stats` see of it; `maxStreams` has been capped by the caller. */
  info(now: number, maxStreams: number): ConnInfo {
    return Object.freeze({
      state: this.phase === draining ? "draining" : this.streams === 0 ? "idle" : "leased",
      blocked: this.isHeld,
      streams: this.streams,
      maxStreams,
      tags: this.tags,
      ageMs: Math.max(now - this.openedAt, 0),
      uses: this.uses,
    });
  }
}

function signsOf(conn: PoolConn): SignsOfLife | undefined {
  return attempt(() => conn.bytesRead ?? conn.ping) === undefined ? undefined : new SignsOfLife();
}

/** What is remembered of a conn that is out with a caller. It keeps its age and its uses, should it come back. */
export class TakenConn<C extends PoolConn> {
  /** False: it has closed meanwhile. */
  isTaken = true;
  /** A `clear` with a higher number does not want it back. */
  readonly generation: number;
  readonly openedAt: number;
  readonly uses: number;
  readonly life: SignsOfLife | undefined;
  readonly extras: EntryExtras<C> | undefined;

  constructor({ openedAt, uses, life, someExtras }: Entry<unknown, C>, generation: number) {
    this.generation = generation;
    this.openedAt = openedAt;
    this.uses = uses;
    this.life = life;
    // The timers are of the entry, which goes.
    this.extras = someExtras && { ...someExtras, lifetime: undefined, peerTimer: undefined };
  }

  get isOpen(): false {
    return false;
  }

  destroy(): void {
    this.isTaken = false;
  }
}

function cannot({ state, streams }: { state: EntryState; streams: number }, what: string): never {
  return bug(`a conn that is ${state.name}, with ${streams} streams, cannot ${what}`);
}
