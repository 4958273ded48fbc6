import type { CallOptions, Conn, Rpc, Stream } from "../../../src/contract.ts";
import { ConnClosedError } from "../../../src/errors.ts";
import { type Deferred, deferred } from "../conn.ts";

/** What a conn tells the test that made it. */
export interface ConnOwner {
  /** The pool runs an RPC on it. */
  onStart(conn: StressConn, call: StressCall): void;
  /** A stream on it has ended. */
  onEnd(conn: StressConn, call?: StressCall, error?: unknown): void;
  /** The pool calls `close()`. */
  onClose(conn: StressConn): unknown;
  /** The pool asks whether it is free. */
  onAsk(conn: StressConn): void;
}

/** One RPC that runs until the test ends it. */
export class StressCall {
  readonly conn: StressConn;
  /** Which request of the test it carries. */
  readonly ask: number;
  readonly timeoutMs: number | undefined;
  readonly #done: Deferred<void> = deferred();
  readonly #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.end(this.#signal?.reason);

  constructor(conn: StressConn, options: CallOptions | undefined) {
    this.conn = conn;
    this.ask = Number(options?.metadata?.["ask"]);
    this.timeoutMs = options?.timeoutMs;
    this.#signal = options?.signal;
    this.#done.promise.catch(() => {});
    this.#signal?.addEventListener("abort", this.#abort);
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  /** Ends the RPC; without an error, well. */
  end(error?: unknown): void {
    if (!this.conn.calls.delete(this)) return;
    this.conn.streamEnded(this, error);
    this.#signal?.removeEventListener("abort", this.#abort);
    if (error === undefined) this.#done.resolve();
    else this.#done.reject(error);
  }
}

export interface StressScript {
  readonly key: string;
  readonly color: number;
  readonly maxStreams: number | undefined;
  readonly maxLifetimeMs: number | undefined;
  /** Without: the pool hears of changes only when it looks. */
  readonly notifies: boolean;
}

/** A conn that counts what is done to it. What the pool may know of it, and since when, is for the checks. */
export class StressConn implements Conn {
  readonly key: string;
  readonly id: number;
  readonly tags: { readonly color: number };
  readonly maxLifetimeMs: number | undefined;
  maxStreams: number | undefined;
  draining = false;
  readonly calls = new Set<StressCall>();
  readonly #owner: ConnOwner;
  readonly #closed: Deferred<void> = deferred();
  readonly #listeners: (() => void)[] = [];
  #block: Deferred<void> | undefined;
  readonly onChange: ((listener: () => void) => void) | undefined;

  /** Given to the pool, and accepted as far as the test can know. */
  held = false;
  taken = false;
  dead = false;
  closes = 0;
  /** Leases that the test holds on it. */
  leases = 0;
  ended = 0;
  uses = 0;
  openedAt = 0;
  idleSince = 0;
  /** `unblocked()` has been answered with a promise that is pending. */
  answerPending = false;
  /** The most slots that it has had since the last check. */
  peakSlots = 0;
  /** The pool may have begun to drain it, for a reason that the test cannot see. */
  mayDrain = false;
  /** The pool was told to drain it. */
  mustDrain = false;
  /** Its slots changed and nobody was told. */
  changedSilently = false;
  /** Since which burst of actions it must not be handed out any more. */
  unfitSince = Number.POSITIVE_INFINITY;
  blockedSince = Number.POSITIVE_INFINITY;
  diedIn = Number.POSITIVE_INFINITY;

  constructor(id: number, script: StressScript, owner: ConnOwner) {
    this.id = id;
    this.key = script.key;
    this.tags = { color: script.color };
    this.maxStreams = script.maxStreams;
    this.maxLifetimeMs = script.maxLifetimeMs;
    this.#owner = owner;
    this.onChange = script.notifies ? (listener) => void this.#listeners.push(listener) : undefined;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /** Streams that run, as far as the conn and its leaseholders know. */
  get running(): number {
    return this.calls.size + this.leases;
  }

  /** The pool holds it open. */
  get open(): boolean {
    return this.held && !this.taken && !this.dead && this.closes === 0;
  }

  get blocked(): boolean {
    return this.#block !== undefined;
  }

  get subscriptions(): number {
    return this.#listeners.length;
  }

  async invoke<I, O>(_rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
    await this.#start(options).done;
    return request as unknown as O; // an echo
  }

  async newStream<I, O>(_rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    return new StressStream<I, O>(this.#start(options));
  }

  #start(options: CallOptions | undefined): StressCall {
    const call = new StressCall(this, options);
    this.calls.add(call);
    this.#owner.onStart(this, call);
    if (this.dead || this.closes > 0) call.end(new ConnClosedError("died", false));
    else if (options?.signal?.aborted) call.end(options.signal.reason);
    return call;
  }

  close(): Promise<void> {
    this.closes++;
    try {
      return Promise.resolve(this.#owner.onClose(this)).then(() => {});
    } finally {
      this.#end(new ConnClosedError("pool", true));
    }
  }

  /** Its owner, not the pool, closes it; or it breaks. */
  die(): void {
    this.dead = true;
    this.#end(new ConnClosedError("died", true));
  }

  #end(error: unknown): void {
    this.#closed.resolve();
    for (const call of this.calls) call.end(error);
  }

  unblocked(): PromiseLike<unknown> | undefined {
    this.#owner.onAsk(this);
    const block = this.#block;
    if (block === undefined) return undefined;
    this.answerPending = true;
    return block.promise;
  }

  streamEnded(call?: StressCall, error?: unknown): void {
    this.ended++;
    this.#owner.onEnd(this, call, error);
  }

  block(): void {
    this.#block ??= deferred();
    this.#block.promise.catch(() => {});
  }

  unblock(error?: unknown): void {
    const block = this.#block;
    this.#block = undefined;
    this.answerPending = false;
    if (error === undefined) block?.resolve();
    else block?.reject(error);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

class StressStream<I, O> implements Stream<I, O> {
  readonly #call: StressCall;
  readonly closed: Promise<void>;

  constructor(call: StressCall) {
    this.#call = call;
    this.closed = call.done.catch(() => {});
  }

  async send(): Promise<void> {}
  async closeSend(): Promise<void> {}

  async close(): Promise<void> {
    this.#call.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** No responses: the end of the call is the end of the stream. */
  [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    return {
      next: () => this.#call.done.then(() => ({ done: true, value: undefined })),
      return: () => this.close().then(() => ({ done: true, value: undefined })),
    };
  }
}
