import type { ClientHttp2Session } from "node:http2";
import {
  type ChannelCredentials,
  type ChannelInterface,
  connectivityState,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import type { CallOptions, Conn, Rpc, Stream } from "../contract.ts";
import { ConnClosedError } from "../errors.ts";
import { type Goaway, lingerMs, usualMaxStreams } from "../net/http2.ts";
import { Lifecycle } from "../net/lifecycle.ts";
import { pingHttp2 } from "../net/ping.ts";
import { outliveStreams } from "../net/session-memory.ts";
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
  /**
   * Asks the peer for a sign of life, and resolves when one has come: the answer to an HTTP/2 PING, or any other byte.
   * Where Node sends none (ten are on their way, or the conn drains), the byte is waited for. Resolves at once when the
   * session is over. Rejects with the signal's reason, and with nothing else. `undefined` where the session cannot be
   * reached. Some servers punish PINGs that come often.
   *
   * @see https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md#server-enforcement
   */
  readonly ping: ((options: { signal: AbortSignal }) => Promise<void>) | undefined;

  readonly #life: Lifecycle = new Lifecycle(() => this.#end());
  #maxStreams: number;
  readonly #mostStreams: number | undefined;
  readonly #sockets: SocketTracking;
  readonly #session: ClientHttp2Session | undefined;
  readonly #running = new CallSet<HostedCall>();
  #failing: HostedCall[] = [];
  #goaway: Goaway | undefined;

  /** @internal Of a channel that has become READY. `maxStreams`: what the caller of `dialGrpc` allows. */
  constructor(channel: ChannelInterface, sockets: SocketTracking, maxStreams: number | undefined) {
    this.channel = channel;
    this.#mostStreams = maxStreams;
    this.#maxStreams = maxStreams ?? usualMaxStreams;
    this.#sockets = sockets;
    // grpc-js takes all listeners off a session before it is READY: those of now stay.
    const session = sockets.session();
    this.#session = session;
    this.ping = session === undefined ? undefined : ({ signal }) => pingHttp2(session, () => sockets.bytesRead, signal);
    if (session !== undefined) {
      outliveStreams(session);
      this.#maxStreams = this.#limitOf(session);
      session.on("remoteSettings", () => this.#changeLimit(this.#limitOf(session)));
      // Before grpc-js, which fails calls.
      session.prependListener("goaway", (code: number, lastStreamId: number, data?: Buffer) => {
        this.#goaway = { code: this.#goaway?.code || code, lastStreamId, data };
        if (this.#sockets.open === 1) this.#leave();
      });
    }
    this.#life.onChange(() => this.#life.draining && announceLeave());
    // An `Infinity` deadline sets no timer, which would hold the process.
    channel.watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, () => this.#leave());
    if (channel.getConnectivityState(false) !== connectivityState.READY) this.#leave();
  }

  /** Settles when the conn has closed for good, before the RPCs that die with it reject. */
  get closed(): Promise<void> {
    return this.#life.closed;
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
    return this.#life.draining || this.#session?.destroyed === true || this.#sockets.open === 0;
  }

  /** The peer's GOAWAY, if one has come. `undefined`, too, where the session cannot be reached. */
  get goaway(): Goaway | undefined {
    return this.#goaway;
  }

  /** Grows with what comes from the peer, on every connection that the channel has made. In bytes, TLS included. */
  get bytesRead(): number {
    return this.#sockets.bytesRead;
  }

  /** Calls `listener` when `draining` or `maxStreams` has changed. */
  onChange(listener: () => void): void {
    this.#life.onChange(listener);
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
    if (this.#life.beginEnd("pool")) {
      this.#end();
      for (const call of this.#running.all()) call.cancel(status.CANCELLED, "the conn was closed");
    }
    return this.closed;
  }

  /** @internal */
  begin(call: HostedCall): void {
    this.#running.add(call);
    this.#life.streamBegan();
  }

  /** @internal */
  end(call: HostedCall, { code }: StatusObject): void {
    this.#running.delete(call);
    this.#life.streamEnded();
    if (code === status.OK || !this.#life.draining) {
      call.settle();
      return;
    }
    // A lost connection fails all its calls within one turn of the event loop, one by one. Held back for a turn,
    // they reject after the last of them has closed the conn.
    if (this.#failing.push(call) === 1) setImmediate(() => this.#settleFailing());
    if (this.#running.size === 0) this.#settleFailing();
  }

  /**
   * @internal A call that never had a stream has no auth context. One that was retried by service config may have
   * had one before.
   * @see https://github.com/grpc/proposal/blob/master/A6-client-retries.md#exposed-retry-metadata
   */
  unsent(call: GrpcCall, { code, details, metadata }: StatusObject): ConnClosedError | undefined {
    if (!this.#life.draining || code !== status.UNAVAILABLE || call.getAuthContext() !== null) return undefined;
    if (metadata.get("grpc-previous-rpc-attempts").length > 0) return undefined;
    return new ConnClosedError(this.#life.reason, false, undefined, { cause: new Error(details) });
  }

  /** @internal The credentials that it was dialed with. */
  get credentials(): ChannelCredentials {
    return this.#sockets.original;
  }

  #assertReady(): void {
    if (this.#life.draining) throw new ConnClosedError(this.#life.reason, false);
  }

  #limitOf(session: ClientHttp2Session): number {
    const most = this.#mostStreams;
    const allowed = session.remoteSettings.maxConcurrentStreams ?? unlimited;
    return allowed === unlimited ? (most ?? usualMaxStreams) : Math.min(most ?? allowed, allowed);
  }

  #changeLimit(maxStreams: number): void {
    if (maxStreams === this.#maxStreams) return;
    this.#maxStreams = maxStreams;
    this.#life.changed();
  }

  #leave(): void {
    if (this.#sockets.open > 0) this.#life.drain("goaway");
    else this.#life.lose("died");
  }

  /** The one way to end the connection from this side. */
  #end(): void {
    this.#sockets.close(this.channel);
    this.#life.markClosed("pool"); // why, has been said before
    setTimeout(() => this.#sockets.destroySockets(), lingerMs).unref();
  }

  #settleFailing(): void {
    const failing = this.#failing;
    this.#failing = [];
    for (const call of failing) call.settle();
  }
}
