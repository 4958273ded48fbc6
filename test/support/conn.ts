import assert from "node:assert/strict";
import type { CallOptions, Conn, Dial, PoolConn, Rpc, Stream } from "../../src/contract.ts";
import { ConnClosedError } from "../../src/errors.ts";

/** A promise and the two functions that settle it. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** An RPC that a script answers. */
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

  get promise(): Promise<O> {
    return this.#deferred.promise;
  }

  answer(value: O): void {
    this.conn.ended(this);
    this.#deferred.resolve(value);
  }

  fail(error: unknown): void {
    this.conn.ended(this);
    this.#deferred.reject(error);
  }
}

/** Everything that a scripted conn does unless the test says otherwise. */
export interface Script {
  readonly maxStreams?: number | undefined;
  readonly maxLifetimeMs?: number | undefined;
  readonly tags?: Record<string, unknown> | undefined;
  /** Answers each call; absent: the test does, through `calls`. */
  readonly answer?: ((request: unknown) => unknown) | undefined;
  readonly close?: (() => unknown) | undefined;
}

/** A conn that does what the test says, and counts what is done to it. */
export class ScriptedConn implements Conn {
  static #count = 0;
  readonly id: number = ++ScriptedConn.#count;
  readonly #closed = deferred();
  readonly #script: Script;
  readonly #listeners: (() => void)[] = [];
  readonly calls = new Set<ScriptedCall>();
  readonly tags: Record<string, unknown> | undefined;
  readonly maxLifetimeMs: number | undefined;
  maxStreams: number | undefined;
  draining = false;
  /** While set, `unblocked()` answers with it. */
  blockedUntil: PromiseLike<unknown> | undefined;
  closes = 0;
  asked = 0;
  started = 0;
  subscriptions = 0;
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
      queueMicrotask(() => {
        try {
          call.answer(answer(request) as O);
        } catch (error) {
          call.fail(error);
        }
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

  ended(call: object): void {
    for (const running of this.calls) if (running === call) this.calls.delete(running);
  }

  async close(): Promise<void> {
    this.closes++;
    this.die(new ConnClosedError("pool", true));
    await this.#script.close?.();
  }

  /** The connection breaks: `closed` settles before the RPCs reject. */
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

/** The one RPC that runs on `conn`. */
export function running(conn: ScriptedConn | undefined): ScriptedCall {
  const [call] = conn?.calls ?? [];
  assert.ok(call !== undefined && conn?.calls.size === 1, `${conn?.calls.size} calls run`);
  return call;
}

/** A conn that can keep the process alive, and tells whether it does. */
export class HeldConn extends ScriptedConn {
  held = true;

  ref(): void {
    this.held = true;
  }

  unref(): void {
    this.held = false;
  }
}

/** The least that a conn can be, at next to no cost: exclusive, without RPCs. It counts its closes. */
export class PlainConn implements PoolConn {
  readonly #closed: Deferred<void> = deferred();
  closes = 0;

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  close(): void {
    this.closes++;
    this.#closed.resolve();
  }

  die(): void {
    this.#closed.resolve();
  }
}

export class ScriptedStream<I, O> implements Stream<I, O> {
  readonly call: ScriptedCall<void>;
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

/** Named conns of one key, in this order; each is tagged with its name. */
export function namedConns<T extends string>(...names: T[]): Record<T, ScriptedConn> {
  const conns: Record<string, ScriptedConn> = {};
  for (const name of names) conns[name] = new ScriptedConn({ tags: { name } });
  return conns as Record<T, ScriptedConn>;
}

/** The script of conns that answer each call at once. */
export const answered: Script = { answer: () => "world" };

/** A dial function whose dials the test settles, or that answers at once with conns made by `make`. */
export interface ScriptedDial<K> extends Dial<K, ScriptedConn> {
  readonly pending: {
    readonly key: K;
    readonly signal: AbortSignal;
    arrive(conn?: ScriptedConn): ScriptedConn;
    fail(error: unknown): void;
  }[];
  readonly conns: ScriptedConn[];
  count: number;
}

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

/** Dials that the test settles. Each brings so many slots, and says so before; without a number one, and says nothing. */
export function manualDial(maxStreams?: number): ScriptedDial<string> {
  return scriptedDial({ maxStreams }, { manual: true, ...(maxStreams === undefined ? {} : { maxStreams }) });
}
