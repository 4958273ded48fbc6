import { type CallCredentials, Metadata, propagate, type StatusObject, status } from "@grpc/grpc-js";
import { isPoolError } from "../errors.ts";
import { statusOfPoolError } from "../net/rpc-status.ts";
import type { CallHost, CreateCall, GrpcCall, GrpcListener, HostedCall } from "./call.ts";
import { afterWait, GrpcError, isGivenUp, messageOf } from "./status.ts";

type SendContext = Parameters<GrpcCall["sendMessageWithContext"]>[0];

/** grpc-js clones what a call starts with. */
const none = new Metadata();

/** How long a call waits for a lease. */
export interface LeaseOptions {
  readonly signal: AbortSignal;
  /** A time; `Infinity` for none. */
  readonly deadline: number;
  readonly waitForReady: boolean;
}

/** A conn, as a call needs it. */
export interface CallConn extends CallHost {
  readonly draining: boolean;
}

/** A slot on a conn. */
export interface CallLease<C> {
  readonly conn: C;
  /** `unanswered`: the call was given up before any answer came, which makes a silent conn suspect. */
  release(how?: { readonly unanswered?: boolean | undefined }): void;
}

/** What a call needs of the channel that made it. */
export interface CallOwner<C extends CallConn> {
  readonly retryUnsent: boolean;
  getTarget(): string;
  /** A lease as soon as the pool gives one. The slot is taken in the same tick, if one is free. */
  lease(options: LeaseOptions): Promise<CallLease<C>>;
  /** The call is to run on this conn. Throws for one that must not be used. */
  accept(conn: C): void;
  /** The call got no conn. */
  refused(error: unknown): void;
  begin(waiting: PooledCall<C>): void;
  end(waiting: PooledCall<C>): void;
}

/**
 * A grpc-js call whose connection is chosen when it starts. Until it has one it keeps what it is told, and tells it
 * to the real call then. It takes one slot at `start()`, and gives it back before the caller gets the status.
 */
export class PooledCall<C extends CallConn> implements GrpcCall, GrpcListener, HostedCall {
  place = -1;
  readonly #owner: CallOwner<C>;
  readonly #arguments: CreateCall;
  #credentials: CallCredentials | undefined;
  #metadata: Metadata = none;
  #listener: GrpcListener | undefined;
  #lease: CallLease<C> | undefined;
  #real: GrpcCall | undefined;
  #waiting: AbortController | undefined;
  #reading = false;
  #message: { context: SendContext; bytes: Buffer } | undefined;
  #halfClosed = false;
  #status: StatusObject | undefined;
  /** Something of the peer's answer has come. */
  #answered = false;
  /** How long it waited for its connection, where it has a deadline. */
  #waitedMs = 0;
  /** Nothing more will run: it was cancelled, or it ended while it waited. */
  #over = false;
  /** Whether all that was sent is still kept, to be sent again. */
  #repeatable: boolean;

  constructor(owner: CallOwner<C>, args: CreateCall) {
    this.#owner = owner;
    this.#arguments = args;
    this.#repeatable = owner.retryUnsent;
  }

  start(metadata: Metadata, listener: GrpcListener): void {
    this.#listener = listener;
    if (this.#over) return;
    this.#metadata = metadata;
    void this.#wait();
  }

  startRead(): void {
    this.#reading = true;
    this.#real?.startRead();
  }

  sendMessageWithContext(context: SendContext, bytes: Buffer): void {
    const first = this.#message === undefined;
    const message = { context: this.#repeatable ? once(context) : context, bytes };
    if (this.#real === undefined) {
      this.#message = message;
      return;
    }
    if (this.#repeatable && first) this.#message = message;
    else this.#forget();
    this.#real.sendMessageWithContext(message.context, bytes);
  }

  halfClose(): void {
    this.#halfClosed = true;
    this.#real?.halfClose();
  }

  cancelWithStatus(code: status, details: string): void {
    if (this.#real === undefined) this.#finish({ code, details, metadata: new Metadata() });
    else this.cancel(code, details);
  }

  /** What the conn calls when it is closed under the call. */
  cancel(code: status, details: string): void {
    this.#over = true;
    this.#real?.cancelWithStatus(code, details);
  }

  setCredentials(credentials: CallCredentials): void {
    this.#credentials = credentials;
    this.#real?.setCredentials(credentials);
  }

  getPeer(): string {
    return this.#real?.getPeer() ?? this.#owner.getTarget();
  }

  getCallNumber(): number {
    return this.#real?.getCallNumber() ?? 0;
  }

  getAuthContext(): ReturnType<GrpcCall["getAuthContext"]> {
    return this.#real?.getAuthContext() ?? null;
  }

  onReceiveMetadata(metadata: Metadata): void {
    this.#answered = true;
    this.#forget();
    this.#listener?.onReceiveMetadata(metadata);
  }

  onReceiveMessage(message: Buffer): void {
    this.#listener?.onReceiveMessage(message);
  }

  onReceiveStatus(result: StatusObject): void {
    this.#status = result;
    this.#lease?.conn.end(this, result);
  }

  // The slot first: whoever gets the status and calls again finds it free. A listener that throws has had it freed.
  settle(): void {
    const lease = this.#lease;
    const result = this.#status;
    const real = this.#real;
    if (lease === undefined || result === undefined || real === undefined) return;
    const again = this.#repeatable && !this.#over && lease.conn.unsent(real, result) !== undefined;
    this.#lease = undefined;
    if (this.#answered || !isGivenUp(result)) lease.release();
    else lease.release({ unanswered: true });
    if (!again) {
      this.#listener?.onReceiveStatus(afterWait(result, this.#waitedMs));
      return;
    }
    this.#real = undefined;
    this.#repeatable = false;
    void this.#wait();
  }

  #run(lease: CallLease<C>): void {
    this.#lease = lease;
    try {
      const real = lease.conn.channel.createCall(...this.#arguments);
      this.#real = real;
      if (this.#credentials !== undefined) real.setCredentials(this.#credentials);
      real.start(this.#metadata, this);
      lease.conn.begin(this);
      if (this.#reading) real.startRead();
      if (this.#message !== undefined) real.sendMessageWithContext(this.#message.context, this.#message.bytes);
      if (!this.#repeatable) this.#message = undefined;
      if (this.#halfClosed) real.halfClose();
    } catch (error) {
      this.#finish(statusOf(error));
    }
  }

  async #wait(): Promise<void> {
    const waiting = takeController();
    this.#waiting = waiting;
    this.#owner.begin(this);
    const [, ownDeadline, , parent, flags] = this.#arguments;
    const inherited = flags ?? propagate.DEFAULTS;
    const onCancelled = (): void => this.cancelWithStatus(status.CANCELLED, "Cancelled by parent call");
    if (parent !== null && inherited & propagate.CANCELLATION) parent.on("cancelled", onCancelled);
    const parentDeadline = inherited & propagate.DEADLINE ? parent?.getDeadline() : undefined;
    const deadline = Math.min(Number(ownDeadline), Number(parentDeadline ?? Number.POSITIVE_INFINITY));
    const waitForReady = this.#metadata.getOptions().waitForReady ?? false;
    const begun = deadline === Number.POSITIVE_INFINITY ? 0 : Date.now();
    let lease: CallLease<C> | undefined;
    try {
      // A conn may begin to leave in the tick in which the pool hands it out: nothing is sent on such a one.
      for (;;) {
        lease = await this.#owner.lease({ signal: waiting.signal, deadline, waitForReady });
        if (!lease.conn.draining || this.#over) break;
        lease.release();
      }
      if (begun > 0) this.#waitedMs += Date.now() - begun;
      if (!this.#over) this.#owner.accept(lease.conn);
    } catch (error) {
      lease?.release();
      lease = undefined;
      this.#owner.refused(error);
      this.#finish(statusOf(error));
    }
    parent?.off("cancelled", onCancelled);
    this.#waiting = undefined;
    giveBackController(waiting);
    this.#owner.end(this);
    if (this.#over) lease?.release();
    else if (lease !== undefined) this.#run(lease);
  }

  /** The end of a call that has no real one. As with grpc-js, the status finds the listener of that moment. */
  #finish(result: StatusObject): void {
    if (this.#over) return;
    this.#over = true;
    this.#waiting?.abort();
    this.#lease?.release();
    process.nextTick(() => this.#listener?.onReceiveStatus(result));
  }

  #forget(): void {
    this.#repeatable = false;
    this.#message = undefined;
  }
}

/** A write's callback must not be called again for a write that is repeated. */
function once({ callback, ...context }: SendContext): SendContext {
  if (callback === undefined) return context;
  let called = false;
  return {
    ...context,
    callback(error) {
      if (!called) callback(error);
      called = true;
    },
  };
}

/** grpc-js copies what a status has into the error that a stub gets. */
interface StatusWithCause extends StatusObject {
  readonly cause?: unknown;
}

/** What grpc-js users expect of a call that got no connection. The pool's error is the `cause`. */
function statusOf(error: unknown): StatusWithCause {
  if (error instanceof GrpcError) {
    const { code, details, metadata, cause } = error;
    return cause === undefined ? { code, details, metadata } : { code, details, metadata, cause };
  }
  if (!isPoolError(error)) {
    return { code: status.UNAVAILABLE, details: messageOf(error), metadata: new Metadata() };
  }
  if (error.cause instanceof GrpcError && error.code === "ERR_POOL_DIAL") {
    const { code, details, metadata } = error.cause;
    return { code, details, metadata, cause: error };
  }
  return { code: statusOfPoolError[error.code], details: error.message, metadata: new Metadata(), cause: error };
}

/** Those whose signals nobody watches and nothing has aborted: to make one costs Node more than the rest of a wait. */
const spareControllers: AbortController[] = [];
const maxSpareControllers = 1_000;

/** An abort controller for something that is rarely aborted. */
function takeController(): AbortController {
  return spareControllers.pop() ?? new AbortController();
}

/** Nobody else may hold it, or its signal. */
function giveBackController(controller: AbortController): void {
  if (!controller.signal.aborted && spareControllers.length < maxSpareControllers) spareControllers.push(controller);
}
