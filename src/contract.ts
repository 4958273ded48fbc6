/**
 * What a conn is. Types only: adapters implement them, callers program against them, the pool holds them.
 */

/**
 * How one RPC is named and encoded. A grpc-js `MethodDefinition` is one, so the service definitions that people
 * already generate drive gRPC and DRPC conns alike.
 */
export interface Rpc<I, O> {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly requestSerialize: (message: I) => Uint8Array;
  readonly responseDeserialize: (bytes: Buffer) => O;
}

/** What travels beside the messages. Bytes stand under keys that end in `-bin`; DRPC carries text only. */
export type Metadata = Record<string, string | Uint8Array | readonly (string | Uint8Array)[]>;

/** Options of one RPC. */
export interface CallOptions {
  /** Cancels the RPC, whether it waits, dials or runs. The RPC rejects with `signal.reason`, untouched. */
  signal?: AbortSignal | undefined;
  /**
   * Milliseconds: one budget for waiting, dialing and the call (a stream: until its end). Default: none. 0 or less: it is
   * over, and the call fails at once. NaN and infinity are refused.
   */
  timeoutMs?: number | undefined;
  /** The same as a point in time: a `Date`, or milliseconds since the epoch. The earlier of both counts. Default: none. */
  deadline?: Date | number | undefined;
  /** Sent with the request. */
  metadata?: Metadata | undefined;
  /** Called once, when the peer's header metadata has come. */
  onHeader?: ((metadata: Metadata) => void) | undefined;
  /** Called once, when the peer's trailer metadata has come, with an error's too. */
  onTrailer?: ((metadata: Metadata) => void) | undefined;
  /** Wait on through failed dials until the time is up. Default: false, the first failed dial ends the wait. */
  waitForReady?: boolean | undefined;
}

/** What a pool can hold: anything that closes. `socketConn(socket)` makes one of a net or TLS socket. */
export interface PoolConn {
  /** Closes the conn. Idempotent; may return a promise. */
  close(): unknown;
  /**
   * Settles when the conn is closed, whatever the cause, and before the RPCs that die with it reject. A pool
   * watches it once.
   */
  readonly closed: PromiseLike<unknown>;
  /**
   * Asked before each hand-out. `undefined`: free. A promise: the conn is skipped, and not asked again until that
   * promise settles; a rejection closes the conn.
   */
  readonly unblocked?: (() => PromiseLike<unknown> | undefined) | undefined;
  /** How many streams may run at once, now. Default 1; 0: none now. */
  readonly maxStreams?: number | undefined;
  /**
   * True when no new stream may begin: a GOAWAY came, or the conn's end has begun. The pool reads it before each
   * hand-out, so a conn of your own should say it from the moment that `close()` is called: `closed` comes later.
   */
  readonly draining?: boolean | undefined;
  /** Milliseconds that this conn may live; overrides the pool's `maxLifetimeMs`. 0: no limit. */
  readonly maxLifetimeMs?: number | undefined;
  /** Facts for filters, stats and events; read live. */
  readonly tags?: Readonly<Record<string, unknown>> | undefined;
  /** Called when a first stream begins: from now on an open socket may hold the process. */
  readonly ref?: (() => unknown) | undefined;
  /** Called when the last stream has ended, and when the pool gets the conn: it must not hold the process any more. */
  readonly unref?: (() => unknown) | undefined;
  /**
   * Grows with every byte, or frame, that comes from the peer. With it the pool can tell a conn that is silent from a
   * peer that is slow: a call that ended unanswered makes a conn suspect only if this has not grown meanwhile. Without
   * `ping`, only the time counts in which calls that ended so were running.
   */
  readonly bytesRead?: number | undefined;
  /**
   * Asks the peer for a sign of life, and settles when it came. The pool calls it on suspicion only, and with the first
   * request after a long quiet time. A rejection, or no answer in time, closes the conn with the reason `silent`.
   */
  readonly ping?: ((options: { signal: AbortSignal }) => PromiseLike<unknown>) | undefined;
  /** Streams that the peer runs on this conn now: while there are some, it does not expire, nor does `prefer` close it where `maxConns` has room. Default 0. */
  readonly peerStreams?: number | undefined;
  /** The pool subscribes once, to hear that `maxStreams` or `draining` has changed. */
  readonly onChange?: ((listener: () => void) => void) | undefined;
}

/** A connection that RPCs run on. `dial` returns one; `pool.get` returns one. */
export interface Conn extends PoolConn {
  /** Runs an RPC with one request and exactly one response; any other number of responses rejects. */
  invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options?: CallOptions): Promise<O>;
  /** Starts an RPC of any kind. */
  newStream<I, O>(rpc: Rpc<I, O>, options?: CallOptions): Promise<Stream<I, O>>;
  close(): Promise<void>;
  unblocked(): PromiseLike<unknown> | undefined;
}

/**
 * One running RPC. Iterate it for the responses: one consumer, a second throws. The iterator throws the RPC's
 * error, and `send` then rejects with the same.
 */
export interface Stream<I, O> extends AsyncIterable<O>, AsyncDisposable {
  /** Sends a message; resolves when there is room for the next. Rejects after `closeSend` or the RPC's end. */
  send(message: I): Promise<void>;
  /** Says that no more messages follow, after `last` if one is given. Idempotent. */
  closeSend(last?: I): Promise<void>;
  /** Cancels what still runs. Idempotent. Breaking out of the loop over the responses does the same. */
  close(): Promise<void>;
  /** Settles at the RPC's end, after its slot has been given back. Never rejects. */
  readonly closed: Promise<void>;
}

/** Opens a conn to the peer that `key` names. Its signal aborts when nobody wants the conn any more. */
export interface Dial<K, C> {
  (key: K, options: { signal: AbortSignal }): C | PromiseLike<C>;
  /** How many streams a conn that this function dials will take, where that is known beforehand (DRPC: 1). */
  readonly maxStreams?: number | undefined;
}

/** The right to run one stream on a conn. */
export interface Lease<C> extends Disposable {
  readonly conn: C;
  /**
   * Gives the slot back. Idempotent; nothing after `discard`. `unanswered`: the call was given up, by its time limit or its
   * signal, before any answer came: if no byte has come from the conn either, it is suspect, and asked for a sign of life. One that
   * cannot be asked is skipped while another can be had, and closed once it has owed answers for 5 s in all, to two calls at least.
   */
  release(outcome?: { readonly unanswered?: boolean | undefined }): void;
  /**
   * Says that the conn is broken: it takes no new streams, and is closed after its last. `error`, if given, goes with the
   * `closed` event. Idempotent; nothing after `release`.
   */
  discard(error?: unknown): void;
}

/** Why a conn was closed. */
export type CloseReason =
  /** for `capacity`, `keyCapacity`, or to make room for another key */
  | "evicted"
  /** idle for `expirationMs` */
  | "expired"
  /** its lifetime or its uses were spent */
  | "retired"
  /** `clear()` */
  | "cleared"
  /** `configure()` lowered a limit */
  | "configured"
  /** `validate` refused it */
  | "invalid"
  /** `reset` failed */
  | "reset"
  /** its `unblocked()` promise rejected, or did not settle in time */
  | "blocked"
  /** it owed an answer, showed no sign of life, and did not answer a ping, or cannot be asked and owed two calls or more their answers, for 5 s in all */
  | "silent"
  /** a lease's user said that it is broken */
  | "discarded"
  /** it closed by itself */
  | "died"
  /** the peer asked for no more streams */
  | "goaway"
  /** the pool was closed */
  | "pool";
