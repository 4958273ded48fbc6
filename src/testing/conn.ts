import type { CallOptions, Conn, Dial, Rpc, Stream } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { outcome } from "../runtime/guard.ts";

/** A promise and the two functions that settle it. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

/** A promise that a test settles when it wants to. */
export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** An RPC to call a scripted conn with: strings, as UTF-8. */
export const echo: Rpc<string, string> = {
  path: "/test.Echo/Echo",
  requestSerialize: (text) => Buffer.from(text),
  responseDeserialize: (bytes) => bytes.toString(),
};

/** One RPC that runs on a scripted conn until the test ends it. */
export class ScriptedCall<O = unknown> {
  readonly #deferred = deferred<O>();
  readonly conn: ScriptedConn;
  readonly options: CallOptions | undefined;

  constructor(conn: ScriptedConn, options: CallOptions | undefined) {
    this.conn = conn;
    this.options = options;
    options?.signal?.addEventListener("abort", () => this.fail(options.signal?.reason), { once: true });
    this.#deferred.promise.catch(() => {});
  }

  /** What the caller waits for. */
  get promise(): Promise<O> {
    return this.#deferred.promise;
  }

  /** It has not ended yet. */
  get isRunning(): boolean {
    const running: ReadonlySet<object> = this.conn.calls;
    return running.has(this);
  }

  /** The RPC ends well. */
  answer(value: O): void {
    this.conn.ended(this);
    this.#deferred.resolve(value);
  }

  /** The RPC ends with `error`. */
  fail(error: unknown): void {
    this.conn.ended(this);
    this.#deferred.reject(error);
  }
}

/** What a scripted conn does. */
export interface Script {
  /** Streams at once. Default: absent, which is 1. */
  readonly maxStreams?: number | undefined;
  /** As in `PoolConn`. Default: absent. */
  readonly maxLifetimeMs?: number | undefined;
  /** As in `PoolConn`. Default: absent. */
  readonly tags?: Record<string, unknown> | undefined;
  /** Answers each call; absent: the test does, through `calls`. */
  readonly answer?: ((request: unknown) => unknown) | undefined;
  /** Awaited by `close()`; may throw or reject. */
  readonly close?: (() => unknown) | undefined;
}

/**
 * A conn that does what the test says, and counts what is done to it. Without `answer` in its script each RPC runs until
 * the test ends it:
 *
 * ```ts
 * const dial = scriptedDial({ maxStreams: 2 });
 * const pool = new Pool({ dial });
 * const answer = pool.get("peer").invoke(echo, "hello");
 * await settle();
 * for (const call of dial.conns[0]?.calls ?? []) call.answer("hello yourself");
 * ```
 */
export class ScriptedConn implements Conn {
  static #count = 0;
  /** From 1, in the order in which they were made. */
  readonly id: number = ++ScriptedConn.#count;
  readonly #closed = deferred();
  readonly #script: Script;
  readonly #listeners: (() => void)[] = [];
  /** RPCs that run, streams included. */
  readonly calls: Set<ScriptedCall> = new Set();
  readonly tags: Record<string, unknown> | undefined;
  readonly maxLifetimeMs: number | undefined;
  /** Streams at once; call `changed()` after a change. */
  maxStreams: number | undefined;
  /** Whether it takes no new streams; call `changed()` after a change. */
  draining = false;
  /** While set, `unblocked()` answers with it. */
  blockedUntil: PromiseLike<unknown> | undefined;
  /** How often `close` was called. */
  closes = 0;
  /** How often `unblocked` was called. */
  asked = 0;
  /** RPCs that were begun. */
  started = 0;
  /** How often `onChange` was called. */
  subscriptions = 0;
  /** Closed, by `close` or by `die`. */
  dead = false;

  constructor(script: Script = {}) {
    this.#script = script;
    this.maxStreams = script.maxStreams;
    this.maxLifetimeMs = script.maxLifetimeMs;
    this.tags = script.tags;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  async invoke<I, O>(_rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
    if (this.dead) throw new ConnClosedError("died", false);
    this.started++;
    const call = new ScriptedCall<O>(this, options);
    this.calls.add(call as ScriptedCall);
    if (this.#script.answer !== undefined) {
      const { answer } = this.#script;
      void outcome(async () => call.answer((await answer(request)) as O)).then((failed) => {
        if (failed !== undefined) call.fail(failed.error);
      });
    }
    return call.promise;
  }

  async newStream<I, O>(_rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    if (this.dead) throw new ConnClosedError("died", false);
    this.started++;
    const call = new ScriptedCall<void>(this, options);
    this.calls.add(call as ScriptedCall);
    return new ScriptedStream<I, O>(call);
  }

  /** @internal Called by the call itself. */
  ended(call: object): void {
    for (const running of this.calls) if (running === call) this.calls.delete(running);
  }

  async close(): Promise<void> {
    this.closes++;
    this.die(new ConnClosedError("pool", true));
    await this.#script.close?.();
  }

  /** The connection breaks: `closed` settles before the RPCs reject, and the pool knows a microtask later, as of any conn. */
  die(error: unknown = new ConnClosedError("died", true)): void {
    this.dead = true;
    this.#closed.resolve();
    for (const call of this.calls) call.fail(error);
  }

  unblocked(): PromiseLike<unknown> | undefined {
    this.asked++;
    return this.blockedUntil;
  }

  onChange(listener: () => void): void {
    this.subscriptions++;
    this.#listeners.push(listener);
  }

  /** Tells the pool that `maxStreams` or `draining` has changed. */
  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** A stream on a scripted conn: it keeps what is sent, brings no responses, and ends when the test ends its call. */
export class ScriptedStream<I, O> implements Stream<I, O> {
  readonly call: ScriptedCall<void>;
  /** What the caller has sent. */
  readonly sent: I[] = [];
  readonly closed: Promise<void>;

  constructor(call: ScriptedCall<void>) {
    this.call = call;
    this.closed = call.promise.catch(() => {});
  }

  async send(message: I): Promise<void> {
    this.sent.push(message);
  }

  async closeSend(last?: I): Promise<void> {
    if (last !== undefined) this.sent.push(last);
  }

  async close(): Promise<void> {
    this.call.answer();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** No responses: the end of the call is the end of the stream. */
  [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    return {
      next: () => this.call.promise.then(() => ({ done: true, value: undefined })),
      return: () => this.close().then(() => ({ done: true, value: undefined })),
    };
  }
}

/** A dial function whose dials the test settles, or that answers at once with conns made by `make`. */
export interface ScriptedDial<K> extends Dial<K, ScriptedConn> {
  /** With `manual`: all dials so far, in order, also those that are settled. */
  readonly pending: {
    readonly key: K;
    readonly signal: AbortSignal;
    readonly arrive: (conn?: ScriptedConn) => ScriptedConn;
    readonly fail: (error: unknown) => void;
  }[];
  /** Conns that were dialed so far, in order. */
  readonly conns: ScriptedConn[];
  /** Dials so far. */
  count: number;
}

/**
 * Makes a dial function. `script`: of its conns, or of each key's. `options.manual`: no dial ends before the test settles it
 * through `pending`; default false, a conn at once. `options.maxStreams`: announced to the pool before the first dial.
 */
export function scriptedDial<K = string>(
  script: Script | ((key: K) => Script) = {},
  options: { manual?: boolean; maxStreams?: number } = {},
): ScriptedDial<K> {
  const dial = (key: K, { signal }: { signal: AbortSignal }): ScriptedConn | Promise<ScriptedConn> => {
    scripted.count++;
    const make = () => new ScriptedConn(typeof script === "function" ? script(key) : script);
    if (!options.manual) {
      const conn = make();
      scripted.conns.push(conn);
      return conn;
    }
    const { promise, resolve, reject } = deferred<ScriptedConn>();
    scripted.pending.push({
      key,
      signal,
      arrive: (conn = make()) => {
        scripted.conns.push(conn);
        resolve(conn);
        return conn;
      },
      fail: reject,
    });
    return promise;
  };
  const scripted: ScriptedDial<K> = Object.assign(dial, {
    pending: [],
    conns: [],
    count: 0,
    ...(options.maxStreams === undefined ? {} : { maxStreams: options.maxStreams }),
  });
  return scripted;
}
