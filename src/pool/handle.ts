import { checkCallOptions, timeLimit } from "../argument.ts";
import type { CallOptions, Conn, Dial, PoolConn, Rpc, Stream } from "../contract.ts";
import { ConnClosedError, isPoolError, PoolTypeError } from "../errors.ts";
import { spentMs, spentOf } from "../explanation.ts";
import type { Filter, GetOptions } from "../options.ts";
import { inNextTurn, wallNow } from "../runtime/clock.ts";
import type { Core } from "./core.ts";
import type { CallSettlers, Entry } from "./entry.ts";
import type { KeyPool } from "./key-pool.ts";

/** What a handle needs of its pool. */
export interface HandlePool<K, C extends PoolConn> {
  readonly core: Core<K, C>;
  /** The record of a key; a new one if the key had been forgotten. Throws once the pool is closed. */
  keyPool(key: K, hash: unknown): KeyPool<K, C>;
}

/** What `pool.get` returns: a conn that owns no connection. Each RPC takes a slot, and gives it back at its end. */
export class Handle<K, C extends PoolConn> implements Conn {
  readonly #pool: HandlePool<K, C>;
  private readonly core: Core<K, C>;
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
  private keyPool: KeyPool<K, C> | undefined;
  #isClosed = false;
  #closed: Promise<void> | undefined;
  #settle: (() => void) | undefined;

  constructor(pool: HandlePool<K, C>, key: K, hash: unknown, dial: Dial<K, C> | undefined, options: GetOptions<C>) {
    this.#pool = pool;
    this.core = pool.core;
    this.#key = key;
    this.#hash = hash;
    this.#dial = dial;
    this.#signal = options.signal;
    this.#filter = options.filter;
    this.#retryUnsent = options.retryUnsent ?? false;
    this.#waitForReady = options.waitForReady ?? false;
  }

  invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
    let entry: Entry<K, C> | undefined;
    try {
      const call = options === undefined && this.#signal === undefined ? undefined : this.callOptions(options);
      const key = this.keyPool;
      entry = key === undefined ? this.leaseFirst() : this.core.tryLease(key, this.#filter);
      if (entry === undefined) return this.invokeLater(rpc, request, call);
      const settlers = entry.settlers ?? this.settlers(entry);
      return settlers.conn.invoke(rpc, request, call).then(settlers.done, settlers.failed);
    } catch (error) {
      return this.refuse(entry, error);
    }
  }

  newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    let entry: Entry<K, C> | undefined;
    try {
      const call = options === undefined && this.#signal === undefined ? undefined : this.callOptions(options);
      const key = this.keyPool;
      entry = key === undefined ? this.leaseFirst() : this.core.tryLease(key, this.#filter);
      if (entry === undefined) return this.streamLater(rpc, call);
      const settlers = entry.settlers ?? this.settlers(entry);
      return settlers.conn.newStream(rpc, call).then(settlers.streamed, settlers.failed);
    } catch (error) {
      return this.refuse(entry, error);
    }
  }

  /** What throws has begun nothing. */
  private refuse(entry: Entry<K, C> | undefined, error: unknown): Promise<never> {
    if (entry !== undefined) this.core.release(entry);
    return Promise.reject(error);
  }

  /** Stops later calls on this handle. Calls that run, other handles and the pool's conns go on. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.keyPool = undefined;
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
    checkCallOptions(options);
    const call = signal === undefined || options.signal !== undefined ? options : { ...options, signal };
    if (call.signal?.aborted) throw call.signal.reason;
    return call.timeoutMs === undefined && call.deadline === undefined ? call : this.#inTime(call);
  }

  /** The same with one time limit, which is not over. */
  #inTime({ deadline, ...options }: CallOptions): CallOptions {
    const timeoutMs = timeLimit({ deadline, timeoutMs: options.timeoutMs }, () => wallNow(this.core.timers.clock));
    if (timeoutMs === undefined || timeoutMs > 0) return { ...options, timeoutMs };
    throw this.core.refuseLate(this.#home(), timeoutMs);
  }

  private leaseFirst(): Entry<K, C> | undefined {
    if (this.#isClosed) throw new ConnClosedError("handle", false);
    return this.#retryUnsent ? undefined : this.core.tryLease(this.#home(), this.#filter);
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
    run: (conn: CallSettlers, options: CallOptions | undefined) => Promise<T>,
  ): Promise<T> {
    const { timers } = this.core;
    const started = timers.now();
    for (let retries = this.#retryUnsent ? 1 : 0; ; retries--) {
      const entry =
        this.core.tryLease(this.#home(), this.#filter) ?? (await this.#wait(rest(options, started, timers.now())));
      try {
        return await this.#run(entry, rest(options, started, timers.now()), run);
      } catch (error) {
        if (retries === 0 || !unsent(error)) throw error;
      }
    }
  }

  #run<T>(
    entry: Entry<K, C>,
    options: CallOptions | undefined,
    run: (conn: CallSettlers, options: CallOptions | undefined) => Promise<T>,
  ): Promise<T> {
    try {
      return run(entry.settlers ?? this.settlers(entry), options);
    } catch (error) {
      this.core.release(entry); // what throws has begun nothing
      throw error;
    }
  }

  /** The record of its key, kept for the calls that follow, unless those may be sent again. */
  #home(): KeyPool<K, C> {
    const key = this.#pool.keyPool(this.#key, this.#hash);
    if (!this.#retryUnsent && !this.#isClosed) this.keyPool = key;
    return key;
  }

  #wait(options: CallOptions | undefined): Promise<Entry<K, C>> {
    const key = this.#home();
    const request = {
      dial: this.#dial,
      filter: this.#filter,
      signal: options?.signal,
      timeoutMs: Math.min(options?.timeoutMs ?? Number.POSITIVE_INFINITY, key.rules.waitTimeoutMs),
      waitForReady: options?.waitForReady ?? this.#waitForReady,
      spentMs: spentOf(options),
    };
    return this.core.wait(key, request, (conn) => conn);
  }

  private settlers(entry: Entry<K, C>): CallSettlers {
    const { core } = this;
    const since = core.entries.clock();
    const settlers: CallSettlers = {
      conn: carrier(entry.conn),
      done: (value) => {
        core.release(entry, since);
        return value;
      },
      failed: (error) => {
        if (entry.life !== undefined) core.unanswered(entry); // an error that the peer has sent is a sign of life
        core.release(entry, since);
        throw error;
      },
      streamed: (stream) => {
        try {
          return new PooledStream(stream, entry, core, since);
        } catch (error) {
          core.release(entry, since); // what newStream brought is no stream
          throw error;
        }
      },
    };
    if (since === undefined) entry.settlers = settlers;
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

/** What is left of the budget, and how much is not; a timer that is due has not always fired, so that it is never nothing. */
function rest(options: CallOptions | undefined, started: number, now: number): CallOptions | undefined {
  if (options?.timeoutMs === undefined || now <= started) return options;
  const timeoutMs = Math.max(options.timeoutMs - (now - started), 1);
  return Object.assign({ ...options, timeoutMs }, { [spentMs]: now - started });
}

function unsent(error: unknown): boolean {
  return isPoolError(error) && error instanceof Object && "sent" in error && error.sent === false;
}

/** A stream on a pooled conn: the same stream, but that its slot is free before anybody learns of its end. */
class PooledStream<I, O, K, C extends PoolConn> implements Stream<I, O> {
  readonly closed: Promise<void>;
  readonly #inner: Stream<I, O>;
  /** Until its slot has been given back. */
  #entry: Entry<K, C> | undefined;
  readonly #core: Core<K, C>;
  readonly #since: number | undefined;

  constructor(inner: Stream<I, O>, entry: Entry<K, C>, core: Core<K, C>, since: number | undefined) {
    this.#inner = inner;
    this.#entry = entry;
    this.#core = core;
    this.#since = since;
    const ended = () => this.#end();
    this.closed = inner.closed.then(ended, ended);
  }

  send(message: I): Promise<void> {
    return this.#inner.send(message);
  }

  closeSend(last?: I): Promise<void> {
    return last === undefined ? this.#inner.closeSend() : this.#inner.closeSend(last);
  }

  close(): Promise<void> {
    return this.#inner.close().then(() => this.#settled());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    const messages = this.#inner[Symbol.asyncIterator]();
    const pass = async (result: IteratorResult<O>): Promise<IteratorResult<O, undefined>> => {
      if (!result.done) return result;
      await this.#settled();
      return { done: true, value: undefined };
    };
    const fail = (error: unknown): never => {
      const entry = this.#entry;
      if (entry?.life !== undefined) this.#core.unanswered(entry); // what the peer has sent is a sign of life
      this.#end();
      throw error;
    };
    return {
      next: () => messages.next().then((result) => (result.done ? pass(result) : result), fail),
      return: async () => {
        await (messages.return?.() ?? this.#inner.close());
        await this.#settled();
        return { done: true, value: undefined };
      },
    };
  }

  #end(): void {
    const entry = this.#entry;
    this.#entry = undefined;
    if (entry !== undefined) this.#core.release(entry, this.#since);
  }

  /**
   * The last response is not the end where this side may still send, but where the RPC has ended, `closed` says so
   * within this turn of the event loop.
   */
  #settled(): Promise<void> | undefined {
    if (this.#entry === undefined) return undefined;
    return Promise.race([this.closed, new Promise<void>((resolve) => inNextTurn(resolve))]);
  }
}
