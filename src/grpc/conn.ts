import type { ClientHttp2Session } from "node:http2";
import {
  type ChannelCredentials,
  type ChannelInterface,
  connectivityState,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import type { CallOptions, CloseReason, Conn, Rpc, Stream } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { lingerMs, usualMaxStreams } from "../net/http2.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { type CallHost, CallSet, type GrpcCall, type HostedCall, invoke } from "./call.ts";
import { announceLeave } from "./connectivity.ts";
import type { SocketTracking } from "./socket-tracking.ts";
import { RpcStream } from "./stream.ts";

const noOptions: CallOptions = {};

/** HTTP/2's word for no limit. */
const unlimited = 2 ** 32 - 1;

/**
 * One HTTP/2 connection to one peer. It leaves when a GOAWAY comes or the connection is lost: no new RPC, and it closes
 * when its last one has ended.
 *
 * While it leaves, the channel stays open for its calls: those that the peer certainly never saw are sent again by
 * grpc-js, once, on a connection that it makes for them.
 *
 * @see https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries
 */
export class GrpcConn implements Conn, CallHost {
  /** The real grpc-js channel, for what a conn does not offer. Closing it closes the conn. */
  readonly channel: ChannelInterface;
  /** Settles when the conn has closed for good, before the RPCs that die with it reject. */
  readonly closed: Promise<void>;
  /**
   * Resolves when the peer has answered an HTTP/2 PING; rejects with the signal's reason, and with nothing else. One
   * that cannot be sent, since too many are under way or the conn closes, says nothing about the peer, and resolves.
   * `undefined` where the session cannot be reached. Some servers punish PINGs that come often.
   *
   * @see https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md#server-enforcement
   */
  readonly ping: ((options: { signal: AbortSignal }) => Promise<void>) | undefined;

  #state: "ready" | "leaving" | "closed" = "ready";
  #reason: CloseReason = "goaway";
  #maxStreams: number;
  readonly #mostStreams: number | undefined;
  readonly #sockets: SocketTracking;
  readonly #session: ClientHttp2Session | undefined;
  readonly #running = new CallSet<HostedCall>();
  readonly #listeners: (() => void)[] = [];
  #failing: HostedCall[] = [];
  #markClosed!: () => void;

  /** @internal Of a channel that has become READY. `maxStreams`: what the caller of `dialGrpc` allows. */
  constructor(channel: ChannelInterface, sockets: SocketTracking, maxStreams: number | undefined) {
    this.channel = channel;
    this.#mostStreams = maxStreams;
    this.#maxStreams = maxStreams ?? usualMaxStreams;
    this.#sockets = sockets;
    this.closed = new Promise((resolve) => {
      this.#markClosed = resolve;
    });
    // grpc-js takes all listeners off a session before it is READY: those of now stay.
    const session = sockets.session();
    this.#session = session;
    this.ping = session === undefined ? undefined : ({ signal }) => new Ping(session, signal).answered;
    if (session !== undefined) {
      this.#maxStreams = this.#limitOf(session);
      session.on("remoteSettings", () => this.#changeLimit(this.#limitOf(session)));
      // Before grpc-js, which fails calls.
      session.prependListener("goaway", () => this.#sockets.open === 1 && this.#leave());
    }
    // An `Infinity` deadline sets no timer, which would hold the process.
    channel.watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, () => this.#leave());
    if (channel.getConnectivityState(false) !== connectivityState.READY) this.#leave();
  }

  /**
   * How many RPCs may run at once, now: what the peer allows in its SETTINGS, 100 where it sets no limit, and at most
   * what `dialGrpc` was told. Where the session cannot be reached: what `dialGrpc` was told, else 100.
   */
  get maxStreams(): number {
    return this.#maxStreams;
  }

  /** True once a GOAWAY has come, the connection is lost, or `close()` was called. */
  get draining(): boolean {
    return this.#state !== "ready" || this.#session?.destroyed === true || this.#sockets.open === 0;
  }

  /** Grows with what comes from the peer, on every connection that the channel has made. In bytes, TLS included. */
  get bytesRead(): number {
    return this.#sockets.bytesRead;
  }

  /** Calls `listener` when `draining` or `maxStreams` has changed. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** Always `undefined`: HTTP/2 resets a cancelled stream without disturbing the others. */
  unblocked(): undefined {
    return undefined;
  }

  /**
   * Rejects with a `GrpcError` (the peer's status; DEADLINE_EXCEEDED, with nothing sent, where the time is up already), with
   * `signal.reason`, or with a `ConnClosedError` whose `sent` is false when the conn was gone before the request was sent.
   * Wrong options, and names that are none, reject with a `PoolTypeError` or `PoolRangeError`.
   */
  invoke<I, O>(rpc: Rpc<I, O>, request: NoInfer<I>, options: CallOptions = noOptions): Promise<O> {
    try {
      this.#assertReady();
      return invoke(this, rpc, request, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Resolves as soon as the RPC has begun; what becomes of it, the stream tells. Rejects as `invoke` does. */
  newStream<I, O>(rpc: Rpc<I, O>, options: CallOptions = noOptions): Promise<Stream<I, O>> {
    try {
      this.#assertReady();
      return Promise.resolve(new RpcStream(this, rpc, options));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Closes the conn; RPCs that still run are cancelled. Idempotent. */
  close(): Promise<void> {
    if (this.#state !== "closed") {
      this.#shutDown("pool");
      for (const call of this.#running.all()) call.cancel(status.CANCELLED, "the conn was closed");
    }
    return this.closed;
  }

  /** @internal */
  begin(call: HostedCall): void {
    this.#running.add(call);
  }

  /** @internal */
  end(call: HostedCall, { code }: StatusObject): void {
    this.#running.delete(call);
    if (this.#state === "ready") {
      call.settle();
      return;
    }
    // A lost connection fails all its calls within one turn of the event loop, one by one. Held back for a turn,
    // they reject after the last of them has closed the conn.
    if (code !== status.OK && this.#failing.push(call) === 1) setImmediate(() => this.#settleFailing());
    if (this.#running.size === 0) {
      this.#shutDown(this.#reason);
      this.#settleFailing();
    }
    if (code === status.OK) call.settle();
  }

  /**
   * @internal A call that never had a stream has no auth context. One that was retried by service config may have
   * had one before.
   * @see https://github.com/grpc/proposal/blob/master/A6-client-retries.md#exposed-retry-metadata
   */
  unsent(call: GrpcCall, { code, details, metadata }: StatusObject): ConnClosedError | undefined {
    if (this.#state === "ready" || code !== status.UNAVAILABLE || call.getAuthContext() !== null) return undefined;
    if (metadata.get("grpc-previous-rpc-attempts").length > 0) return undefined;
    return new ConnClosedError(this.#reason, false, undefined, { cause: new Error(details) });
  }

  /** @internal The credentials that it was dialed with. */
  get credentials(): ChannelCredentials {
    return this.#sockets.original;
  }

  #assertReady(): void {
    if (this.#state !== "ready") throw new ConnClosedError(this.#reason, false);
  }

  #limitOf(session: ClientHttp2Session): number {
    const most = this.#mostStreams;
    const allowed = session.remoteSettings.maxConcurrentStreams ?? unlimited;
    return allowed === unlimited ? (most ?? usualMaxStreams) : Math.min(most ?? allowed, allowed);
  }

  #changeLimit(maxStreams: number): void {
    if (maxStreams === this.#maxStreams) return;
    this.#maxStreams = maxStreams;
    this.#tellListeners();
  }

  #leave(): void {
    if (this.#state !== "ready") return;
    this.#state = "leaving";
    this.#reason = this.#sockets.open > 0 ? "goaway" : "died";
    if (this.#reason === "goaway") this.#tellListeners();
    // A lost connection fails its calls within this turn, and then `closed` says it all, unless grpc-js sends some again.
    else setImmediate(() => this.#state === "leaving" && this.#tellListeners());
    if (this.#running.size === 0) this.#shutDown(this.#reason);
  }

  #shutDown(reason: CloseReason): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#reason = reason;
    this.channel.close();
    this.#markClosed();
    setTimeout(() => this.#sockets.destroySockets(), lingerMs).unref();
  }

  #tellListeners(): void {
    for (const listener of this.#listeners) listener();
    if (this.#state !== "ready") announceLeave();
  }

  #settleFailing(): void {
    const failing = this.#failing;
    this.#failing = [];
    for (const call of failing) call.settle();
  }
}

/** One question to the peer whether it is there. */
class Ping implements AbortWatcher {
  /** Rejects with the signal's reason only. */
  readonly answered: Promise<void>;
  readonly #signal: AbortSignal;
  #resolve!: () => void;
  #reject!: (reason: unknown) => void;

  constructor(session: ClientHttp2Session, signal: AbortSignal) {
    this.#signal = signal;
    this.answered = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    if (signal.aborted) {
      this.#reject(signal.reason);
      return;
    }
    watchAbort(signal, this);
    if (!send(session, () => this.#end())) this.#end();
  }

  onAbort(reason: unknown): void {
    this.#reject(reason);
  }

  #end(): void {
    unwatchAbort(this.#signal, this);
    this.#resolve();
  }
}

/** Sends a PING; `ended` is called when it was answered, and when the session ends. False: it cannot be sent. */
function send(session: ClientHttp2Session, ended: () => void): boolean {
  try {
    return session.ping(ended); // false when ten are under way, https://nodejs.org/api/http2.html#http2sessionpingpayload-callback
  } catch {
    return false; // the session is destroyed
  }
}
