import type { CallOptions, Conn, Rpc, Stream } from "../../../src/contract.ts";
import { ConnClosedError } from "../../../src/errors.ts";
import { type Deferred, deferred } from "../conn.ts";

/** What a conn of the network tells the world around it. */
export interface ConnOwner {
  /** An RPC begins. */
  started(conn: SimConn, call: SimCall): void;
  /** The pool calls `close()`; what it returns is what the pool gets. */
  closeConn(conn: SimConn): unknown;
  /** The pool asks whether it is free. */
  asked(conn: SimConn): PromiseLike<unknown> | undefined;
  /** The pool asks for a sign of life. */
  pinged(conn: SimConn): PromiseLike<unknown>;
  /** A stream on it has ended. */
  ended(conn: SimConn, call: SimCall | undefined, error: unknown): void;
  /** The pool reads a property, which is `value` where nothing is wrong with it. */
  read<T>(conn: SimConn, name: string, value: T, wrong: T): T;
}

/** One RPC that runs until the network answers it, or its conn dies. */
export class SimCall {
  readonly conn: SimConn;
  readonly options: CallOptions | undefined;
  readonly #done: Deferred<void> = deferred();
  readonly #abort = (): void => this.end(this.options?.signal?.reason);

  constructor(conn: SimConn, options: CallOptions | undefined) {
    this.conn = conn;
    this.options = options;
    this.#done.promise.catch(() => {});
    options?.signal?.addEventListener("abort", this.#abort);
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  /** Ends the RPC; without an error, well. */
  end(error?: unknown): void {
    if (!this.conn.calls.delete(this)) return;
    this.options?.signal?.removeEventListener("abort", this.#abort);
    this.conn.streamEnded(this, error);
    if (error === undefined) this.#done.resolve();
    else this.#done.reject(error);
  }
}

export interface ConnScript {
  readonly key: string;
  readonly color: number;
  readonly slots: number | undefined;
  readonly lifetimeMs: number | undefined;
  /** Without: the pool hears of changes only when it looks. */
  readonly notifies: boolean;
  /** It tells how many bytes have come, and, two of three, answers pings. */
  readonly showsLife: boolean;
}

/** A conn of the simulated network, and what the world knows of it without asking the pool. */
export class SimConn implements Conn {
  readonly id: number;
  readonly key: string;
  readonly color: number;
  readonly notifies: boolean;
  slots: number | undefined;
  /** The peer has said GOAWAY. */
  leaving = false;
  /** The peer does not answer. */
  silent = false;
  /** It has been silent: a ping that it did not answer then may end it later. */
  wasSilent = false;
  /** Calls that failed, where it cannot be asked for a sign of life: it may be skipped after one, and closed after two. */
  unanswered = 0;
  dead = false;
  /** The pool has it, as far as the world can tell. */
  given = false;
  /** The pool is being given it, and has not said yet whether it takes it. */
  putting = false;
  /** A caller took it out of the pool. */
  taken = false;
  /** `close()` was called so many times. */
  closes = 0;
  /** Leases on it that callers hold. */
  leases = 0;
  uses = 0;
  endedStreams = 0;
  /** Numbers the ends of streams on all conns: the lowest is longest idle. */
  released = 0;
  readonly calls = new Set<SimCall>();
  bytes = 0;
  /** The most slots that it has shown since the world last settled. */
  mostSlots = 0;
  /** A property misbehaved, or changed without a word: what the pool makes of it is not known. */
  doubtful = false;
  givenAt = 0;
  idleSince = 0;
  /** The bursts of commands in which these began: the pool knows them from the next on. */
  unfitSince: number = Number.POSITIVE_INFINITY;
  blockedSince: number = Number.POSITIVE_INFINITY;
  diedIn: number = Number.POSITIVE_INFINITY;
  /** The world asked for an orderly end: open only as long as streams run. */
  mustDrain = false;
  /** The pool may have let it drain: for a limit, for its age, for its uses. */
  mayDrain = false;
  /** The pool has asked whether it is free, and has no answer yet. */
  askPending = false;
  /** When it asked. */
  askedAt = 0;
  /** A caller said that it is broken. */
  discarded = false;
  subscriptions = 0;
  onChange: ((listener: () => void) => void) | undefined;
  ping: (() => PromiseLike<unknown>) | undefined;
  readonly #owner: ConnOwner;
  readonly #script: ConnScript;
  readonly #closed: Deferred<void> = deferred();
  readonly #listeners: (() => void)[] = [];
  block: Deferred<void> | undefined;

  constructor(id: number, script: ConnScript, owner: ConnOwner) {
    this.id = id;
    this.key = script.key;
    this.color = script.color;
    this.slots = script.slots;
    this.notifies = script.notifies;
    this.#script = script;
    this.#owner = owner;
    if (script.notifies) {
      this.onChange = (listener) => {
        this.subscriptions++;
        this.#listeners.push(listener);
      };
    }
    if (script.showsLife && id % 3 > 0) this.ping = () => this.#owner.pinged(this);
  }

  get name(): string {
    return `conn ${this.id} of ${this.key}`;
  }

  /** Streams of callers that run on it. */
  get running(): number {
    return this.calls.size + this.leases;
  }

  /** The pool holds it, draining or not. */
  get open(): boolean {
    return this.given && !this.taken && !this.dead && this.closes === 0;
  }

  get closed(): Promise<void> {
    return this.#owner.read(this, "closed", this.#closed.promise, this.#closed.promise);
  }

  get maxStreams(): number | undefined {
    const slots = this.#owner.read(this, "maxStreams", this.slots, (this.slots ?? 1) + 1);
    this.mostSlots = Math.max(this.mostSlots, slots ?? 1);
    return slots;
  }

  get draining(): boolean {
    return this.#owner.read(this, "draining", this.leaving, this.leaving);
  }

  get maxLifetimeMs(): number | undefined {
    return this.#owner.read(this, "maxLifetimeMs", this.#script.lifetimeMs, this.#script.lifetimeMs);
  }

  get tags(): Readonly<Record<string, unknown>> {
    return this.#owner.read<Record<string, unknown>>(this, "tags", { color: this.color }, { color: 1 - this.color });
  }

  get bytesRead(): number | undefined {
    return this.#script.showsLife ? this.#owner.read(this, "bytesRead", this.bytes, Number.NaN) : undefined;
  }

  unblocked(): PromiseLike<unknown> | undefined {
    return this.#owner.asked(this);
  }

  close(): Promise<void> {
    this.closes++;
    try {
      return Promise.resolve(this.#owner.closeConn(this)).then(() => {});
    } finally {
      for (const call of this.calls) call.end(new ConnClosedError("pool", true));
    }
  }

  streamEnded(call: SimCall | undefined, error: unknown): void {
    this.endedStreams++;
    if (error !== undefined && this.#script.showsLife && this.ping === undefined) this.unanswered++;
    this.#owner.ended(this, call, error);
  }

  /** From now on it is not free; an RPC that was cancelled is being flushed. */
  beginBlock(): void {
    if (this.block !== undefined) return;
    this.block = deferred();
    this.block.promise.catch(() => {});
  }

  endBlock(error?: unknown): void {
    const { block } = this;
    this.block = undefined;
    this.blockedSince = Number.POSITIVE_INFINITY;
    this.askPending = false;
    if (error === undefined) block?.resolve();
    else block?.reject(error);
  }

  invoke<I, O>(rpc: Rpc<I, O>, _request: NoInfer<I>, options?: CallOptions): Promise<O> {
    return this.#call(options).done.then(() => rpc.responseDeserialize(Buffer.alloc(0)));
  }

  async newStream<I, O>(_rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    return new SimStream<I, O>(this.#call(options));
  }

  #call(options: CallOptions | undefined): SimCall {
    const call = new SimCall(this, options);
    this.calls.add(call);
    this.#owner.started(this, call);
    if (this.dead || this.closes > 0) call.end(new ConnClosedError("died", false));
    else if (options?.signal?.aborted) call.end(options.signal.reason);
    return call;
  }

  /** The connection breaks: `closed` settles before the RPCs reject. */
  die(): void {
    if (this.dead) return;
    this.dead = true;
    this.#closed.resolve();
    for (const call of this.calls) call.end(new ConnClosedError("died", this.id % 2 === 0));
  }

  /** Tells the pool that something has changed. */
  changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

class SimStream<I, O> implements Stream<I, O> {
  readonly #call: SimCall;
  readonly closed: Promise<void>;

  constructor(call: SimCall) {
    this.#call = call;
    this.closed = call.done.catch(() => {});
  }

  async send(_message: I): Promise<void> {}

  async closeSend(_last?: I): Promise<void> {}

  async close(): Promise<void> {
    this.#call.end();
    await this.closed;
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
