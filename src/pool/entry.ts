import type { CloseReason, Conn, PoolConn, Stream } from "../contract.ts";
import { bug } from "../errors.ts";
import type { ConnInfo } from "../options.ts";
import { attempt } from "../runtime/guard.ts";
import type { Linked, List } from "../runtime/list.ts";
import type { Task } from "../runtime/timers.ts";
import type { Latency } from "./selection.ts";

/** Where one conn stands. */
export type ConnState =
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

/** Run when an RPC that came through a handle ends: they give the slot back before the caller learns. */
export interface Settlers {
  /** The same conn, known to carry RPCs. */
  readonly conn: Conn;
  readonly streamed: <I, O>(stream: Stream<I, O>) => Stream<I, O>;
  readonly done: <T>(value: T) => T;
  readonly failed: (error: unknown) => never;
}

/**
 * The life of one connection, from the moment it is open. Before that it is a `Dialing`.
 *
 *     taken        -put-> idle             -cut-> closed
 *     idle         -lease-> leased(1)      -end, cut-> closed                   -take-> taken
 *     leased(n)    -lease-> leased(n+1)    -release-> leased(n-1), idle at 0    -end-> draining(n)    -cut-> closed
 *     draining(n)  -release-> draining(n-1), closed at 0                        -end-> draining(n)    -cut-> closed
 *     closed       -release, end, cut-> closed
 *
 * `taken`: not the pool's; just dialed, about to be adopted, or taken out by a caller. `end` is an orderly leave:
 * evict, expire, retire, clear, configure, goaway, the pool's close. `cut`: it died, or the grace of the pool's
 * close is over. Only the methods below write the state; a call that the table does not have throws.
 */
export class PooledConn<C extends PoolConn, H> implements Linked<PooledConn<C, H>> {
  prev: PooledConn<C, H> | undefined = undefined;
  next: PooledConn<C, H> | undefined = undefined;
  list: List<PooledConn<C, H>> | undefined = undefined;

  /** Its neighbours among the open conns of its key. */
  older: PooledConn<C, H> | undefined = undefined;
  younger: PooledConn<C, H> | undefined = undefined;

  readonly conn: C;
  /** It can let the process go while it runs no stream. */
  readonly holds: boolean;
  /** The record of its key. */
  home: H;
  /** `idle` and `leased` are both "ready", told apart by the stream count. */
  #phase: typeof taken | typeof ready | typeof draining | typeof closed = taken;
  #reason: CloseReason | undefined = undefined;
  streams = 0;
  /** Streams that it took when it was last asked. */
  slots = 0;
  /** Streams begun. */
  uses = 0;
  /** `unblocked()` is worth asking: a stream has ended on it, or it has been in other hands. */
  asks = false;
  /** What it is skipped for: its last `unblocked()` is pending, its `reset`, its validation. */
  blocks = 0;
  /** How many streams had begun when it was last blocked; none: never. */
  blockedAt = -1;
  /** When it was last known to work, where validation asks for it; undefined: when it was opened. */
  usedAt: number | undefined = undefined;
  /** Measured where selection asks for it. */
  latency: Latency | undefined = undefined;
  /** Closes it at the end of its lifetime. */
  lifetime: Task | undefined = undefined;
  /** Made once per conn, by the first handle that uses it: closures per call would cost half a call. */
  settlers: Settlers | undefined = undefined;
  /** A clear() with a higher number closes it. */
  readonly generation: number;
  /** In whole milliseconds, rounded up: a fraction would be an object of its own, and make lifetimes end early. */
  readonly openedAt: number;
  /** Numbers the give-backs of all keys, so that ages compare without a clock. */
  givenBack = 0;
  /** The expiry tick of its last give-back; negative: it stands in no order. */
  stamp = -1;
  /** Its place among those that the order has not taken in yet; negative: none. */
  late = -1;

  constructor(conn: C, home: H, generation: number, openedAt: number) {
    this.conn = conn;
    this.holds = attempt(() => conn.ref) !== undefined;
    this.home = home;
    this.generation = generation;
    this.openedAt = Math.ceil(openedAt);
  }

  get ready(): boolean {
    return this.#phase === ready;
  }

  get open(): boolean {
    return this.#phase === ready || this.#phase === draining;
  }

  get idle(): boolean {
    return this.streams === 0 && this.#phase === ready;
  }

  get draining(): boolean {
    return this.#phase === draining;
  }

  get blocked(): boolean {
    return this.blocks > 0;
  }

  get taken(): boolean {
    return this.#phase === taken;
  }

  /** Why it leaves or has left. */
  get reason(): CloseReason {
    return this.#reason ?? "died";
  }

  get state(): ConnState {
    const { streams, reason } = this;
    if (this.#phase === ready) return streams === 0 ? { name: "idle" } : { name: "leased", streams };
    if (this.#phase === draining) return { name: "draining", streams, reason };
    return this.#phase === taken ? { name: "taken" } : { name: "closed", reason };
  }

  lease(): void {
    if (this.#phase !== ready) cannot(this, "be leased");
    this.streams++;
    this.uses++;
  }

  /** A stream has ended. On a conn that has closed meanwhile, nothing. */
  release(): void {
    if (this.#phase === closed) return;
    if (this.streams === 0) cannot(this, "be released");
    this.streams--;
    if (this.uses > this.streams) this.asks = true; // not so after a stream of the pool's own
    if (this.streams === 0 && this.#phase === draining) this.#phase = closed;
  }

  /** No new streams; closed as soon as none runs. The first reason stays. */
  end(reason: CloseReason): void {
    if (this.#phase === closed) return;
    if (this.#phase === taken) cannot(this, "end");
    this.#reason ??= reason;
    this.#phase = this.streams === 0 ? closed : draining;
  }

  /** Closed now, whatever runs. */
  cut(reason: CloseReason): void {
    if (this.#phase === closed) return;
    this.#reason ??= reason;
    this.#phase = closed;
    this.streams = 0;
  }

  /** The caller owns it from now on. */
  take(): void {
    if (!this.idle) cannot(this, "be taken");
    this.#phase = taken;
  }

  /** The pool's from now on. What `take` took keeps its age, uses and generation. */
  put(home: H): void {
    if (this.#phase !== taken) cannot(this, "be put");
    this.#phase = ready;
    this.home = home;
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
    return this.latency?.cost(this.streams, now) ?? 0;
  }

  /** What filters and `stats` see of it; `maxStreams` has been capped by the caller. */
  info(now: number, maxStreams: number): ConnInfo {
    return Object.freeze({
      state: this.#phase === draining ? "draining" : this.streams === 0 ? "idle" : "leased",
      blocked: this.blocked,
      streams: this.streams,
      maxStreams,
      tags: this.conn.tags,
      ageMs: Math.max(now - this.openedAt, 0),
      uses: this.uses,
    });
  }
}

function cannot({ state, streams }: { state: ConnState; streams: number }, what: string): never {
  return bug(`a conn that is ${state.name}, with ${streams} streams, cannot ${what}`);
}
