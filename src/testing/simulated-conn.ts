import { timeLimit } from "../argument.ts";
import type { CallOptions, Rpc, Stream } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { deferred, ScriptedCall, ScriptedConn, ScriptedStream } from "./conn.ts";
import type { Range, Rate } from "./network.ts";

/** What a simulated conn asks of its network. */
export interface Wire {
  /** Calls `action` after so many milliseconds. Returns what takes that back. */
  after(ms: number, action: () => void): () => void;
  /** A number out of a range. */
  draw(range: Range): number;
  /** Whether a fault happens now. */
  strikes(fault: Rate): boolean;
  /** A range of the faults. */
  range(name: "slowMs" | "blockedMs" | "silentMs"): Range;
  readonly answerMs: Range;
  readonly maxStreams: Range;
  /** The peer's answer. */
  answer(request: unknown, path: string): unknown;
  /** An RPC begins. */
  began(): void;
  /** The conn has gone. */
  left(conn: SimulatedConn): void;
  /** Writes a line of the trace. */
  note(text: string): void;
}

/** A conn of a simulated network: a scripted one whose script is chance. */
export class SimulatedConn extends ScriptedConn {
  /** From 1, in the order in which its network opened them. */
  override readonly id: number;
  /** The name of its peer. */
  readonly peer: string;
  /** Counts what has come from the peer. */
  bytesRead = 0;
  /** Half-open: nothing comes from the peer any more, and nothing says so. */
  silent = false;
  readonly #wire: Wire;
  /** What takes back each thing that is still to happen to it. */
  readonly #pending = new Set<() => void>();

  /** @internal */
  constructor(id: number, peer: string, wire: Wire) {
    super({
      maxStreams: wire.draw(wire.maxStreams),
      close: () => {
        if (wire.strikes("failedCloses")) throw new Error(`the close of ${this.name} fails (simulated)`);
      },
    });
    this.id = id;
    this.peer = peer;
    this.#wire = wire;
  }

  /** How the trace calls it. */
  get name(): string {
    return `conn ${this.id} of ${this.peer}`;
  }

  override async invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O> {
    const call = this.#begin<O>(rpc, options);
    this.exchange(request, rpc.path).then(
      (reply) => call.answer(reply as O),
      (error: unknown) => call.fail(error),
    );
    return call.promise;
  }

  override async newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>> {
    return new SimulatedStream<I, O>(this.#begin<void>(rpc, options), this, rpc.path);
  }

  #begin<O>({ path }: { readonly path: string }, options: CallOptions | undefined): ScriptedCall<O> {
    if (this.dead) throw new ConnClosedError("died", false);
    this.started++;
    this.#wire.began();
    this.#wire.note(`${this.name}: ${path}`);
    const call = new ScriptedCall<O>(this, options);
    this.calls.add(call as ScriptedCall);
    const limitMs = timeLimit(options ?? {}, Date.now);
    if (limitMs === undefined) return call;
    const stop = this.#later(limitMs, () => {
      call.fail(new DOMException("the call was not over in time (simulated)", "TimeoutError"));
      this.#cancelled();
    });
    call.promise.then(stop, stop);
    return call;
  }

  /**
   * @internal The way there, the peer's answer, the way back. What had not reached the peer when it said goaway was not sent. Pending for
   * ever where the conn is gone, or silent.
   */
  async exchange(request: unknown, path: string): Promise<unknown> {
    this.#mishaps();
    const wire = this.#wire;
    const ms = wire.draw(wire.strikes("slowAnswers") ? wire.range("slowMs") : wire.answerMs);
    const thereMs = wire.draw([0, ms]);
    await this.#travel(thereMs);
    if (this.draining) throw new ConnClosedError("goaway", false);
    try {
      return await wire.answer(request, path);
    } finally {
      await this.#travel(ms - thereMs);
      this.bytesRead++;
    }
  }

  #travel(ms: number): Promise<void> {
    return new Promise((arrived) => {
      this.#later(ms, () => {
        if (!this.silent) arrived();
      });
    });
  }

  /** Returns what takes it back. It does not happen to a conn that has gone meanwhile. */
  #later(ms: number, action: () => void): () => void {
    if (this.dead) return () => {};
    const cancel = this.#wire.after(ms, () => {
      this.#pending.delete(stop);
      action();
    });
    const stop = () => {
      this.#pending.delete(stop);
      cancel();
    };
    this.#pending.add(stop);
    return stop;
  }

  /** What befalls it while a call runs, or soon after. */
  #mishaps(): void {
    const wire = this.#wire;
    const befall = (fault: Rate, action: () => void) => {
      if (wire.strikes(fault)) this.#later(2 * wire.draw(wire.answerMs), action);
    };
    befall("deaths", () => this.die());
    befall("silences", () => this.fallSilent());
    befall("goaways", () => {
      if (this.draining) return;
      wire.note(`${this.name} says goaway`);
      this.draining = true;
      this.changed();
    });
    befall("limitChanges", () => {
      this.maxStreams = wire.draw(wire.maxStreams);
      wire.note(`${this.name} takes ${this.maxStreams} streams`);
      this.changed();
    });
  }

  /** Nothing comes any more, until the machine itself gives it up. */
  fallSilent(): void {
    if (this.dead || this.silent) return;
    this.silent = true;
    this.#wire.note(`${this.name} falls silent`);
    const silentMs = this.#wire.draw(this.#wire.range("silentMs"));
    if (silentMs > 0) this.#later(silentMs, () => this.die());
  }

  /** A sign of life, after a way there and back. */
  async ping(): Promise<void> {
    await this.#travel(this.#wire.draw(this.#wire.answerMs));
    this.bytesRead++;
  }

  override die(error: unknown = new ConnClosedError("died", true)): void {
    if (this.dead) return;
    this.#wire.note(`${this.name} ${this.closes > 0 ? "is closed" : "dies"}`);
    for (const stop of this.#pending) stop();
    super.die(error);
    this.#wire.left(this);
  }

  /** @internal Called by the call itself. */
  override ended(call: ScriptedCall): void {
    const isCancelled = call.isRunning && call.options?.signal?.aborted === true;
    super.ended(call);
    if (isCancelled) this.#cancelled();
  }

  /** A call was cancelled, or its time was up: that may leave the conn blocked for a while. */
  #cancelled(): void {
    if (this.dead || this.blockedUntil !== undefined || !this.#wire.strikes("blocks")) return;
    this.#wire.note(`${this.name} is blocked`);
    const { promise, resolve } = deferred();
    this.blockedUntil = promise;
    this.#later(this.#wire.draw(this.#wire.range("blockedMs")), () => {
      this.blockedUntil = undefined;
      resolve();
    });
  }
}

/** A stream on a simulated conn: one response to each message, in order; the end after `closeSend`. */
class SimulatedStream<I, O> extends ScriptedStream<I, O> {
  readonly #conn: SimulatedConn;
  readonly #path: string;
  readonly #received: { readonly value: O }[] = [];
  /** The exchange of the newest message. */
  #newest: Promise<unknown> = Promise.resolve();
  #isSendClosed = false;
  #changed = deferred();

  constructor(call: ScriptedCall<void>, conn: SimulatedConn, path: string) {
    super(call);
    this.#conn = conn;
    this.#path = path;
    void this.closed.then(() => this.#tell());
  }

  /** All who wait look again. */
  #tell(): void {
    const { resolve } = this.#changed;
    this.#changed = deferred();
    resolve();
  }

  override async send(message: I): Promise<void> {
    if (!this.call.isRunning) await this.call.promise; // throws the RPC's error
    if (this.#isSendClosed || !this.call.isRunning) throw new Error("the stream sends no more");
    this.sent.push(message);
    const exchange = this.#conn.exchange(message, this.#path);
    this.#newest = Promise.all([exchange, this.#newest]).then(
      ([reply]) => {
        this.#received.push({ value: reply as O });
        this.#tell();
      },
      (error: unknown) => this.call.fail(error),
    );
  }

  override async closeSend(last?: I): Promise<void> {
    if (this.#isSendClosed) return;
    if (last !== undefined) await this.send(last);
    this.#isSendClosed = true;
    void this.#newest.then(() => this.call.answer());
  }

  override [Symbol.asyncIterator](): AsyncIterator<O, undefined> {
    const next = async (): Promise<IteratorResult<O, undefined>> => {
      for (;;) {
        const [reply] = this.#received.splice(0, 1);
        if (reply !== undefined) return { done: false, value: reply.value };
        if (!this.call.isRunning) break;
        await this.#changed.promise;
      }
      await this.call.promise;
      return { done: true, value: undefined };
    };
    return { next, return: () => this.close().then(() => ({ done: true, value: undefined })) };
  }
}
