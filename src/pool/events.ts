import type { AsyncResource } from "node:async_hooks";
import { type Channel, channel } from "node:diagnostics_channel";
import { show } from "../argument.ts";
import type { CloseReason, PoolConn } from "../contract.ts";
import type { DialError, WaitTimeoutError } from "../errors.ts";
import { inMicrotask } from "../runtime/clock.ts";
import { type Failure, inNoContext, isThenable } from "../runtime/guard.ts";
import type { Timers } from "../runtime/timers.ts";
import type { Entry } from "./entry.ts";

interface EventBase<K> {
  /** As it was given to the pool. */
  readonly key: K;
}

interface ConnEvent<K, C> extends EventBase<K> {
  /** What the dial function returned, or `put` was given. */
  readonly conn: C;
}

/** What happens for one caller, and in nobody's async context. */
interface CallerEvent {
  /**
   * The async context of the caller that waits, or for whom was dialed: `caller.runInAsyncScope(() => …)`. Known where
   * `waiting` had a listener when the caller came; nobody's where the pool dials by itself.
   */
  readonly caller?: AsyncResource | undefined;
}

interface EndEvent<K, C> extends ConnEvent<K, C> {
  /** Why it left, first of all. */
  readonly reason: CloseReason;
  /** Milliseconds since it was dialed or put in. */
  readonly ageMs: number;
  /** Streams that it carried. */
  readonly uses: number;
  /** With the reason `discarded`: what was given to `discard`. */
  readonly cause?: unknown;
}

/** The transitions of a pool, by name. Times are in milliseconds. */
export interface PoolEvents<K, C> {
  /** A dial brought a conn, after `ms`. */
  readonly dialed: ConnEvent<K, C> & CallerEvent & { readonly ms: number };
  /** A dial failed, or was not done in time. */
  readonly dialFailed: EventBase<K> & CallerEvent & { readonly error: DialError; readonly ms: number };
  /** A dial was given up before it was done, since nobody wanted it any more. */
  readonly abandoned: EventBase<K> & CallerEvent & { readonly why: string; readonly ms: number };
  /** A stream begins. */
  readonly leased: ConnEvent<K, C>;
  /** A stream has ended, which ran for `ms`. Absent, where nobody had listened before it began. */
  readonly released: ConnEvent<K, C> & { readonly ms?: number | undefined };
  /** A caller begins to wait. */
  readonly waiting: EventBase<K> & CallerEvent;
  /** It has a lease, after `ms`. */
  readonly served: ConnEvent<K, C> & CallerEvent & { readonly ms: number };
  /** It got none in time, which it had waited for `ms`. */
  readonly timedOut: EventBase<K> & CallerEvent & { readonly error: WaitTimeoutError; readonly ms: number };
  /** It may not wait: `maxWaiters` others do, a backoff runs, or `queue: "codel"` serves newer ones. */
  readonly refused: EventBase<K> & CallerEvent & { readonly error: unknown; readonly ms: number };
  /** Its signal aborted; `error` is the signal's reason. */
  readonly aborted: EventBase<K> & CallerEvent & { readonly error: unknown; readonly ms: number };
  /** It failed otherwise: its dial did, nothing can dial, no conn passes its filter, or the pool was closed. */
  readonly failed: EventBase<K> & CallerEvent & { readonly error: unknown; readonly ms: number };
  /** A conn leaves for a cap, or makes way for another. */
  readonly evicted: EndEvent<K, C>;
  /** A conn leaves that was idle for `expirationMs`. */
  readonly expired: EndEvent<K, C>;
  /** A conn leaves whose lifetime or uses are spent. */
  readonly retired: EndEvent<K, C>;
  /** The last stream of a draining conn has ended. */
  readonly drained: EndEvent<K, C>;
  /** Its `close()` has settled, with `error` if that failed; or it has died. */
  readonly closed: EndEvent<K, C> & { readonly error?: unknown };
  /** `key` is undefined where all keys were cleared. */
  readonly cleared: EventBase<K | undefined>;
  /** With `leakAfterMs`: a lease was not given back in time, or never can be (`collected`), since nothing refers to it any more. `stack`: who took it. */
  readonly leaked: ConnEvent<K, C> & { readonly ms: number; readonly collected: boolean; readonly stack: string };
}

export type PoolEventName = keyof PoolEvents<unknown, unknown>;

/** An event as listeners get it: with the name of its pool. */
export type Named<E> = E & {
  /** The pool's `name`. */
  readonly pool: string;
};

/** Called with each event of one name. */
export type Listener<E> = Listening<E>["hear"];

/** A method's parameters are compared both ways, so that a `Pool<K, GrpcConn>` is a `Pool<K, Conn>`. */
interface Listening<E> {
  hear(event: Named<E>): void;
}

/**
 * One kind of event, for the pool's own listeners and for `node:diagnostics_channel`. Delivered in order, in a
 * microtask and in no caller's async context: a listener may do with the pool what it likes. One that throws or rejects
 * raises a warning.
 */
export class Topic<E extends object> {
  readonly #pool: string;
  readonly #channel: Channel;
  readonly #listeners = new Set<Listener<E>>();
  #heard = false;

  constructor(pool: string, name: PoolEventName) {
    this.#pool = pool;
    this.#channel = channel(`rpc-conn-pool:${name}`);
  }

  /** Whether anybody listens: the fast path asks before it makes a closure. */
  get isActive(): boolean {
    return this.#heard || this.#channel.hasSubscribers;
  }

  /** Returns what stops the listening. */
  listen(listener: Listener<E>): () => void {
    this.#listeners.add(listener);
    this.#heard = true;
    return () => {
      this.#listeners.delete(listener);
      this.#heard = this.#listeners.size > 0;
    };
  }

  /** An event that nobody hears is not made. */
  emit(make: () => E): void {
    if (!this.isActive) return;
    const event: Named<E> = { ...make(), pool: this.#pool };
    inNoContext(() => inMicrotask(() => this.#deliver(event)));
  }

  #deliver(event: Named<E>): void {
    this.#channel.publish(event);
    const listeners = [...this.#listeners]; // one that replaces itself is called once
    for (const listener of listeners) {
      try {
        const result: unknown = listener(event);
        if (isThenable(result)) Promise.resolve(result).catch(warn);
      } catch (error) {
        warn(error);
      }
    }
  }
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : new Error(`a listener of the pool threw ${show(error)}`));
}

/** All topics of a pool. */
export type Events<K, C> = { readonly [N in PoolEventName]: Topic<PoolEvents<K, C>[N]> };

export function makeEvents<K, C>(pool: string): Events<K, C> {
  return {
    dialed: new Topic(pool, "dialed"),
    dialFailed: new Topic(pool, "dialFailed"),
    abandoned: new Topic(pool, "abandoned"),
    leased: new Topic(pool, "leased"),
    released: new Topic(pool, "released"),
    waiting: new Topic(pool, "waiting"),
    served: new Topic(pool, "served"),
    timedOut: new Topic(pool, "timedOut"),
    refused: new Topic(pool, "refused"),
    aborted: new Topic(pool, "aborted"),
    failed: new Topic(pool, "failed"),
    evicted: new Topic(pool, "evicted"),
    expired: new Topic(pool, "expired"),
    retired: new Topic(pool, "retired"),
    drained: new Topic(pool, "drained"),
    closed: new Topic(pool, "closed"),
    cleared: new Topic(pool, "cleared"),
    leaked: new Topic(pool, "leaked"),
  };
}

/** The events of conns. Apart from who emits them: a closure there would cost an allocation at each call. */
export class ConnEvents<K, C extends PoolConn> {
  readonly #events: Events<K, C>;
  readonly #timers: Timers;

  constructor(events: Events<K, C>, timers: Timers) {
    this.#events = events;
    this.#timers = timers;
  }

  leased({ key, conn }: Entry<K, C>): void {
    this.#events.leased.emit(() => ({ key: key.id, conn }));
  }

  /** `since`: when the stream began, where somebody listened then. */
  released(entry: Entry<K, C>, since: number | undefined): void {
    const { key, conn } = entry;
    entry.settlers = undefined; // the next call makes settlers of its own, which know when it began
    const ms = since === undefined ? undefined : this.#timers.now() - since;
    this.#events.released.emit(() => ({ key: key.id, conn, ms }));
  }

  drained(entry: Entry<K, C>): void {
    this.#events.drained.emit(() => this.#end(entry));
  }

  /** `closing`: what its `close()` brings; absent: it died. */
  closed(entry: Entry<K, C>, closing: Promise<Failure | undefined> | undefined): void {
    const { reason } = entry;
    if (reason === "evicted" || reason === "expired" || reason === "retired") {
      this.#events[reason].emit(() => this.#end(entry));
    }
    const { closed } = this.#events;
    if (closing === undefined) closed.emit(() => this.#end(entry));
    else if (closed.isActive) {
      const end = this.#end(entry);
      void closing.then((failure) => closed.emit(() => ({ ...end, ...failure })));
    }
  }

  #end({ key, conn, reason, openedAt, uses, someExtras }: Entry<K, C>): PoolEvents<K, C>["evicted"] {
    const end = { key: key.id, conn, reason, ageMs: Math.max(this.#timers.now() - openedAt, 0), uses };
    return someExtras?.cause === undefined ? end : { ...end, cause: someExtras.cause };
  }
}
