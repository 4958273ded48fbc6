import { checkTimeout } from "../argument.ts";
import type { CallOptions, Conn, Dial, PoolConn, Rpc, Stream } from "../contract.ts";
import { ConnClosedError, isPoolError, PoolTypeError } from "../errors.ts";
import type { Filter, GetOptions } from "../options.ts";
import type { Dispatcher } from "./dispatcher.ts";
import type { Settlers } from "./entry.ts";
import type { Member, Peer } from "./key-pool.ts";
import { PooledStream } from "./stream.ts";

/** What a handle needs of its pool. */
export interface HandleOwner<K, C extends PoolConn> {
  readonly dispatcher: Dispatcher<K, C>;
  /** The record of a key, made anew if the key had been forgotten. Throws once the pool is closed. */
  peer(key: K, hash: unknown): Peer<K, C>;
}

/** What `pool.get` returns: a conn that owns no connection. Each RPC takes a slot, and gives it back at its end. */
export class Handle<K, C extends PoolConn> implements Conn {
  readonly #pool: HandleOwner<K, C>;
  readonly #dispatcher: Dispatcher<K, C>;
  readonly #key: K;
  readonly #hash: unknown;
  readonly #dial: Dial<K, C> | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #filter: Filter<C> | undefined;
  readonly #retryUnsent: boolean;
  readonly #waitForReady: boolean;
  /**
   * Kept from call to call, which saves a look-up. If the pool has forgotten it, it has no conn to give, and the call
   * looks its key up again. None once the handle is closed.
   */
  #peer: Peer<K, C> | undefined;
  #isClosed = false;
  #closed: Promise<void> | undefined;
  #settle: (() => void) | undefined;

  constructor(pool: HandleOwner<K, C>, key: K, hash: unknown, dial: Dial<K, C> | undefined, options: GetOptions<C>) {
    this.#pool = pool;
    this.#dispatcher = pool.dispatcher;
    this.#key = key;
    this.#hash = hash;
    this.#dial = dial;
    this.#signal = options.signal;
    this.#filter = options.filter;
    this.#retryUnsent = options.retryUnsent ?? false;
    this.#waitForReady = options.waitForReady ?? false;
  }

  invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
    let member: Member<K, C> | undefined;
    try {
      const call = options === undefined && this.#signal === undefined ? undefined : this.callOptions(options);
      const peer = this.#peer;
      member = peer === undefined ? this.leaseFirst() : this.#dispatcher.tryLease(peer, this.#filter);
      if (member === undefined) return this.invokeLater(rpc, request, call);
      const settlers = member.settlers ?? this.settlers(member);
      return settlers.conn.invoke(rpc, request, call).then(settlers.done, settlers.failed);
    } catch (error) {
      return this.refuse(member, error);
    }
  }

  newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    let member: Member<K, C> | undefined;
    try {
      const call = options === undefined && this.#signal === undefined ? undefined : this.callOptions(options);
      const peer = this.#peer;
      member = peer === undefined ? this.leaseFirst() : this.#dispatcher.tryLease(peer, this.#filter);
      if (member === undefined) return this.streamLater(rpc, call);
      const settlers = member.settlers ?? this.settlers(member);
      return settlers.conn.newStream(rpc, call).then(settlers.streamed, settlers.failed);
    } catch (error) {
      return this.refuse(member, error);
    }
  }

  /** What throws has begun nothing. */
  private refuse(member: Member<K, C> | undefined, error: unknown): Promise<never> {
    if (member !== undefined) this.#dispatcher.release(member);
    return Promise.reject(error);
  }

  /** Stops later calls on this handle. Calls that run, other handles and the pool's conns go on. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.#peer = undefined;
    this.#settle?.();
    return Promise.resolve();
  }

  get closed(): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      this.#settle = resolve;
      if (this.#isClosed) resolve();
    });
    return this.#closed;
  }

  /** A handle is never blocked: the pool skips conns that are. */
  unblocked(): undefined {
    return undefined;
  }

  private callOptions(options: CallOptions | undefined): CallOptions {
    if (this.#isClosed) throw new ConnClosedError("handle", false);
    const signal = this.#signal;
    if (options === undefined) {
      signal?.throwIfAborted();
      return { signal };
    }
    if (options.timeoutMs !== undefined) checkTimeout("timeoutMs", options.timeoutMs);
    const call = signal === undefined || options.signal !== undefined ? options : { ...options, signal };
    if (call.signal?.aborted) throw call.signal.reason;
    return call;
  }

  private leaseFirst(): Member<K, C> | undefined {
    if (this.#isClosed) throw new ConnClosedError("handle", false);
    return this.#retryUnsent ? undefined : this.#dispatcher.tryLease(this.#home(), this.#filter);
  }

  // Apart from their callers, since a closure in those would cost an allocation at each call. What a hit runs, here
  // and below, is private by type alone: V8 inlines 920 bytes of bytecode into a call, and a #name takes up to ten more
  // than a name. All of it fits in: 2.2 times the direct call. When it did not, it was 2.5 times.

  private invokeLater<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options: CallOptions | undefined): Promise<O> {
    return this.#later(options, ({ conn, done, failed }, rest) => conn.invoke(rpc, request, rest).then(done, failed));
  }

  private streamLater<I, O>(rpc: Rpc<I, O>, options: CallOptions | undefined): Promise<Stream<I, O>> {
    return this.#later(options, ({ conn, streamed, failed }, rest) => conn.newStream(rpc, rest).then(streamed, failed));
  }

  /** Waits for a conn, and sends again what was certainly not sent, both within the one budget of the call. */
  async #later<T>(
    options: CallOptions | undefined,
    run: (conn: Settlers, options: CallOptions | undefined) => Promise<T>,
  ): Promise<T> {
    const { roster } = this.#dispatcher;
    const started = roster.now();
    for (let retries = this.#retryUnsent ? 1 : 0; ; retries--) {
      const member =
        this.#dispatcher.tryLease(this.#home(), this.#filter) ??
        (await this.#wait(rest(options, started, roster.now())));
      try {
        return await this.#run(member, rest(options, started, roster.now()), run);
      } catch (error) {
        if (retries === 0 || !unsent(error)) throw error;
      }
    }
  }

  #run<T>(
    member: Member<K, C>,
    options: CallOptions | undefined,
    run: (conn: Settlers, options: CallOptions | undefined) => Promise<T>,
  ): Promise<T> {
    try {
      return run(member.settlers ?? this.settlers(member), options);
    } catch (error) {
      this.#dispatcher.release(member); // what throws has begun nothing
      throw error;
    }
  }

  /** The record of its key, kept for the calls that follow, unless those may be sent again. */
  #home(): Peer<K, C> {
    const peer = this.#pool.peer(this.#key, this.#hash);
    if (!this.#retryUnsent && !this.#isClosed) this.#peer = peer;
    return peer;
  }

  #wait(options: CallOptions | undefined): Promise<Member<K, C>> {
    const peer = this.#home();
    const request = {
      dial: this.#dial,
      filter: this.#filter,
      signal: options?.signal,
      timeoutMs: Math.min(options?.timeoutMs ?? Number.POSITIVE_INFINITY, peer.rules.waitTimeoutMs),
      waitForReady: options?.waitForReady ?? this.#waitForReady,
    };
    return this.#dispatcher.wait(peer, request, (conn) => conn);
  }

  private settlers(member: Member<K, C>): Settlers {
    const dispatcher = this.#dispatcher;
    const settlers: Settlers = {
      conn: carrier(member.conn),
      done: (value) => {
        dispatcher.release(member);
        return value;
      },
      failed: (error) => {
        dispatcher.release(member);
        throw error;
      },
      streamed: (stream) => {
        try {
          return new PooledStream(stream, member, dispatcher);
        } catch (error) {
          dispatcher.release(member); // what newStream brought is no stream
          throw error;
        }
      },
    };
    member.settlers = settlers;
    return settlers;
  }
}

function carrier(conn: PoolConn): Conn {
  if (isCarrier(conn)) return conn;
  throw new PoolTypeError(
    "this pool's conns carry no RPCs (no invoke and newStream): use acquire or use instead of get",
  );
}

function isCarrier(conn: PoolConn): conn is Conn {
  return "invoke" in conn && typeof conn.invoke === "function" && "newStream" in conn;
}

/** What is left of the budget; a timer that is due has not always fired, so that it is never nothing. */
function rest(options: CallOptions | undefined, started: number, now: number): CallOptions | undefined {
  if (options?.timeoutMs === undefined) return options;
  return { ...options, timeoutMs: Math.max(options.timeoutMs - (now - started), 1) };
}

function unsent(error: unknown): boolean {
  return isPoolError(error) && error instanceof Object && "sent" in error && error.sent === false;
}
