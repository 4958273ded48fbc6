import type { Dial, PoolConn } from "../contract.ts";
import type { DialError } from "../errors.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { processAnchor } from "../runtime/clock.ts";
import { type Timer, timer } from "../runtime/timers.ts";
import type { Asking } from "./account.ts";
import type { Core } from "./core.ts";
import type { Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";
import type { PendingDial, Request } from "./pending.ts";

/** How long a key stays in use after its last use, where its conns do not expire. */
const inUseMs = 60_000;

/** What is known of a key in use whose conns are kept ready. */
interface Kept<K, C extends PoolConn> {
  usedAt: number;
  /** Ends it, some time after the last use. */
  readonly timer: Timer;
  /** Idle conns past their lifetime, which stay until their replacements have come. */
  readonly outlived: Set<Entry<K, C>>;
  /** Conns whose idle time was over, and the give-back that it was counted from. */
  readonly outstayed: Map<Entry<K, C>, number>;
}

/** Conns that are kept ready though nobody waits for them: `minIdle`, `warm`, and what comes for those of `minIdle` that are old. */
export class MinIdle<K, C extends PoolConn> {
  readonly #dial: Dial<K, C> | undefined;
  readonly #core: Core<K, C>;
  readonly #kept = new Map<KeyPool<K, C>, Kept<K, C>>();
  readonly #warming = new Map<KeyPool<K, C>, Set<WarmRequest<K, C>>>();
  /** Keys that lack conns which the limits did not allow when they were last looked at. */
  readonly #heldBack = new Set<KeyPool<K, C>>();

  constructor(dial: Dial<K, C> | undefined, core: Core<K, C>) {
    this.#dial = dial;
    this.#core = core;
  }

  /** Nothing is kept ready, of any key. */
  get isUnused(): boolean {
    return this.#kept.size + this.#warming.size + this.#heldBack.size === 0;
  }

  /** A key with `minIdle` is in use: its idle conns do not expire, and are refilled. */
  used(key: KeyPool<K, C>): void {
    const now = this.#core.timers.now();
    const known = this.#kept.get(key);
    if (known !== undefined) {
      known.usedAt = now;
      return;
    }
    if (this.#dial === undefined || !key.isAlive) return;
    const unused = timer(() => this.#core.enter(() => this.#unused(key)));
    this.#kept.set(key, { usedAt: now, timer: unused, outlived: new Set(), outstayed: new Map() });
    this.#core.timers.arm(unused, keptMs(key));
  }

  /** Whether an idle conn whose time is over stays, since its key was used within that time. */
  keepOutstayed(entry: Entry<K, C>): boolean {
    const { key } = entry;
    const kept = this.#kept.get(key);
    if (kept === undefined || key.idleCount - kept.outlived.size > key.rules.minIdle) return false;
    kept.outstayed.set(entry, entry.releaseSeq);
    return true;
  }

  /** The end of a conn's lifetime. True: it may stay until its replacement has come. */
  beginReplacing(entry: Entry<K, C>): boolean {
    const { key } = entry;
    const kept = this.#kept.get(key);
    if (kept === undefined || kept.outlived.has(entry) || !entry.isIdle || !this.#core.capacity.mayPrepare(key))
      return false;
    kept.outlived.add(entry);
    if (key.pending.backgroundDials < this.#wanted(key)) return true;
    kept.outlived.delete(entry);
    return false;
  }

  /** A conn has been closed, drains, or has been taken. */
  left(entry: Entry<K, C>): void {
    const { key, reason } = entry;
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    kept.outlived.delete(entry);
    kept.outstayed.delete(entry);
    if (entry.someExtras?.isCrossed) return; // another conn of the key came for it
    // What another key's conn was evicted for is refilled on the next use, not before: it wanted the place.
    const { minIdle, keyCapacity } = key.rules;
    if (reason === "evicted" && key.idleCount < Math.min(minIdle, keyCapacity)) this.#drop(key);
  }

  /** Starts the dials that bring a key to what it should have, as far as the limits allow. */
  refill(key: KeyPool<K, C>): void {
    if (this.isUnused) return;
    const kept = this.#kept.get(key);
    for (const entry of kept?.outlived ?? []) {
      if (!entry.isIdle || key.idleCount > key.rules.minIdle) this.#core.entries.drain(entry, "retired");
    }
    for (const warm of this.warming(key)) {
      if (this.#lacking(key, warm) <= 0) warm.resolve();
      else if (warm.request.dial === undefined) warm.reject(this.#core.account.hopeless(warm, "dial"));
    }
    this.#heldBack.delete(key);
    while (key.pending.backgroundDials < this.#wanted(key)) {
      const [warm] = this.warming(key);
      const dial = warm?.request.dial ?? this.#dial;
      if (dial === undefined) return;
      if (!this.#core.capacity.mayPrepare(key) || !this.#core.dialer.start(key, dial, true)) {
        this.#heldBack.add(key);
        return;
      }
    }
  }

  /** A conn has become idle. Who warms another key cannot hope for its place any more: `warm` evicts none. */
  becameIdle(): void {
    for (const [key, warming] of this.#warming) {
      for (const warm of warming) if (this.#heldBack.has(key) && this.#lacking(key, warm) <= 0) warm.resolve();
    }
  }

  /** More conns are on their way than are wanted. */
  hasSpareDials(key: KeyPool<K, C>): boolean {
    return key.pending.backgroundDials > this.#wanted(key);
  }

  /** A key that lacks conns, and now may have them. */
  get next(): KeyPool<K, C> | undefined {
    if (this.#heldBack.size === 0 || !this.#core.capacity.hasRoom) return undefined;
    for (const key of this.#heldBack) if (this.#core.capacity.mayPrepare(key)) return key;
    return undefined;
  }

  /** A background dial has brought a conn: who warms with a filter that refuses it would dial for ever. */
  dialed(dial: PendingDial<K, C>, entry: Entry<K, C>): void {
    if (!dial.isBackground) return;
    const { key } = dial;
    for (const warm of this.warming(key)) {
      if (warm.request.dial !== dial.dial || this.#core.selector.passes(entry, warm.request.filter)) continue;
      warm.reject(this.#core.account.hopeless(warm, "filter"));
    }
  }

  /** A background dial has failed. `isSpent`: nobody is to wait any longer. */
  failed(key: KeyPool<K, C>, error: DialError, isSpent: boolean): void {
    const isOver = isSpent || error.final;
    if (isOver) this.#drop(key);
    for (const warm of this.warming(key)) {
      if (isOver || !warm.request.waitForReady) warm.reject(this.#core.account.dialFailed(warm, error));
    }
  }

  /** Whether conns of the key are kept ready, or somebody waits until they are. */
  keepsAlive(key: KeyPool<K, C>): boolean {
    return this.#warming.has(key) || (key.pending.backoff !== undefined && this.keeps(key));
  }

  /** Whether conns of the key are kept ready. */
  keeps(key: KeyPool<K, C>): boolean {
    return this.#kept.has(key);
  }

  /** The callers of `warm` who wait. */
  warming(key: KeyPool<K, C>): Iterable<WarmRequest<K, C>> {
    return this.#warming.get(key) ?? [];
  }

  /** Whether a key that has nothing is needed all the same: it is warmed, or a place for its next conn is on its way. */
  needs(key: KeyPool<K, C>): boolean {
    return this.#warming.has(key) || (this.#heldBack.has(key) && this.#core.entries.closing > 0);
  }

  /** Resolves when the key has so many conns. The caller serves the key then. */
  warm(key: KeyPool<K, C>, count: number, request: Request<K, C>): Promise<void> {
    const warm = new WarmRequest(key, count, request, this.#core);
    this.#warming.set(key, (this.#warming.get(key) ?? new Set()).add(warm));
    if (request.signal?.aborted)
      warm.reject(request.signal.reason); // by `hashKey` or `limits`, just now
    else if (this.#lacking(key, warm) > 0 && this.#core.backoffs.holdsNewcomers(key) && !request.waitForReady) {
      const { account } = this.#core;
      warm.reject(request.dial === undefined ? account.hopeless(warm, "dial") : account.refused(warm, "backoff", 0));
    }
    return warm.promise;
  }

  /** No place is on its way any more: keys that have nothing else are forgotten. */
  letGo(): void {
    const empty = [...this.#heldBack].filter((key) => key.isEmpty);
    for (const key of empty) this.#core.serve(key);
  }

  /** It waits no longer. */
  warmed(key: KeyPool<K, C>, warm: WarmRequest<K, C>): void {
    const warming = this.#warming.get(key);
    if (warming?.delete(warm) && warming.size === 0) this.#warming.delete(key);
  }

  /** Nothing is left of the key. */
  forget(key: KeyPool<K, C>): void {
    this.#drop(key);
    this.#heldBack.delete(key);
  }

  rejectAll(key: KeyPool<K, C>, error: (warm: WarmRequest<K, C>) => unknown): void {
    this.forget(key);
    for (const warm of this.warming(key)) warm.reject(error(warm));
  }

  /** Background dials that the key should have in flight. */
  #wanted(key: KeyPool<K, C>): number {
    const kept = this.#kept.get(key);
    let wanted = 0;
    if (kept !== undefined) {
      wanted = Math.min(key.rules.minIdle, this.#mostIdle(key)) + kept.outlived.size - key.idleCount;
    }
    for (const warm of this.warming(key)) wanted = Math.max(wanted, this.#lacking(key, warm));
    return wanted;
  }

  #lacking(key: KeyPool<K, C>, { count, request: { filter } }: WarmRequest<K, C>): number {
    const ready =
      filter === undefined
        ? key.usable
        : key.entries().filter((entry) => entry.isReady && this.#core.selector.passes(entry, filter)).length;
    return Math.min(count, this.#mostIdle(key), this.#mostOpen(key)) - ready;
  }

  /** Conns that the key can come to without an eviction, once streams end: other keys keep what is idle there. */
  #mostOpen(key: KeyPool<K, C>): number {
    return this.#core.keys.rules.maxConns - (this.#core.entries.idle - key.idleCount);
  }

  /** Conns that the key may have idle. */
  #mostIdle(key: KeyPool<K, C>): number {
    const { keyCapacity, maxKeyConns } = key.rules;
    const { capacity, maxConns } = this.#core.keys.rules;
    return Math.min(keyCapacity, maxKeyConns, maxConns, capacity - this.#core.entries.idle + key.idleCount);
  }

  #drop(key: KeyPool<K, C>): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#kept.delete(key);
    this.#core.timers.disarm(kept.timer);
  }

  /** Stops keeping a key that nobody has used for its expiration. What has outstayed its time goes with that. */
  #unused(key: KeyPool<K, C>): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    if (key.leasedCount > 0) kept.usedAt = this.#core.timers.now(); // a stream runs
    const left = kept.usedAt + keptMs(key) - this.#core.timers.now();
    if (left > 0) {
      this.#core.timers.arm(kept.timer, left);
      return;
    }
    this.#drop(key);
    for (const [entry, releaseSeq] of kept.outstayed) {
      if (entry.isIdle && entry.releaseSeq === releaseSeq) this.#core.entries.drain(entry, "expired");
    }
    this.#core.freed(key);
  }
}

function keptMs<K, C extends PoolConn>({ rules: { expirationMs } }: KeyPool<K, C>): number {
  return expirationMs === Number.POSITIVE_INFINITY ? inUseMs : expirationMs;
}

/** A caller of `warm`, who waits for conns to be ready. While there is one, the process stays. */
class WarmRequest<K, C extends PoolConn> implements Timer, AbortWatcher, Asking<K, C> {
  rank = 0;
  index = -1;
  readonly key: KeyPool<K, C>;
  readonly since: number;
  readonly dialedBefore: number;
  readonly blockedBefore: number;
  readonly count: number;
  readonly request: Request<K, C>;
  readonly promise: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  readonly #core: Core<K, C>;
  #isWaiting = true;

  constructor(key: KeyPool<K, C>, count: number, request: Request<K, C>, core: Core<K, C>) {
    const pending = key.ownPending();
    this.key = key;
    this.since = core.timers.now();
    pending.count(this.since);
    this.dialedBefore = pending.dialedMs;
    this.blockedBefore = pending.blockedMs;
    this.count = count;
    this.request = request;
    this.#core = core;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = request;
    if (signal !== undefined) watchAbort(signal, this);
    if (timeoutMs < Number.POSITIVE_INFINITY) core.timers.arm(this, timeoutMs);
    processAnchor().hold();
  }

  run(): void {
    this.#core.enter(() => {
      this.reject(this.#core.account.notWarm(this));
      this.#core.freed(this.key);
    });
  }

  /** Others may have the same signal: nobody is served before all of them have left. */
  onAbort(reason: unknown): void {
    this.#core.enter(() => this.reject(reason));
  }

  afterAbort(): void {
    this.#core.enter(() => this.#core.freed(this.key));
  }

  resolve(): void {
    if (this.#stop()) this.#resolve();
  }

  reject(error: unknown): void {
    if (this.#stop()) this.#reject(error);
  }

  #stop(): boolean {
    if (!this.#isWaiting) return false;
    this.#isWaiting = false;
    processAnchor().drop();
    this.#core.timers.disarm(this);
    if (this.request.signal !== undefined) unwatchAbort(this.request.signal, this);
    this.#core.minIdle.warmed(this.key, this);
    return true;
  }
}
