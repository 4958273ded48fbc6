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
import { type CallHost, CallSet, type GrpcCall, type HostedCall, invoke } from "./call.ts";
import { learnLimit } from "./limit.ts";
import type { SocketTracking } from "./socket-tracking.ts";
import { RpcStream } from "./stream.ts";

const noOptions: CallOptions = {};

/**
 * One HTTP/2 connection to one peer. It leaves when grpc-js' channel leaves READY, be it for a GOAWAY or for a lost
 * connection: no new RPC, and it closes when its last one has ended.
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

  #state: "ready" | "leaving" | "closed" = "ready";
  #reason: CloseReason = "goaway";
  #maxStreams: number;
  readonly #forgetLimit: () => void;
  readonly #sockets: SocketTracking;
  readonly #running = new CallSet<HostedCall>();
  readonly #listeners: (() => void)[] = [];
  #failing: HostedCall[] = [];
  #markClosed!: () => void;

  /** @internal Of a channel that has become READY. */
  constructor(channel: ChannelInterface, sockets: SocketTracking, maxStreams: number | undefined) {
    this.channel = channel;
    this.#maxStreams = maxStreams ?? usualMaxStreams;
    this.#sockets = sockets;
    this.closed = new Promise((resolve) => {
      this.#markClosed = resolve;
    });
    this.#forgetLimit = learnLimit(sockets.sockets, (limit) => {
      this.#forgetLimit();
      this.#limitStreams(Math.min(maxStreams ?? Number.POSITIVE_INFINITY, limit ?? maxStreams ?? usualMaxStreams));
    });
    // An `Infinity` deadline sets no timer, which would hold the process.
    channel.watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, () => this.#leave());
    if (channel.getConnectivityState(false) !== connectivityState.READY) this.#leave();
  }

  /**
   * How many RPCs may run at once: what the peer allows, as soon as the first RPC has shown it (newer Nodes), at most
   * what `dialGrpc` was told; until then, and where Node does not show it, what `dialGrpc` was told, else 100.
   */
  get maxStreams(): number {
    return this.#maxStreams;
  }

  /** True once a GOAWAY has come or the connection is lost. */
  get draining(): boolean {
    return this.#state !== "ready";
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
   * Rejects with a `GrpcError` (the peer's status), with `signal.reason`, or with a `ConnClosedError` whose `sent` is
   * false when the conn was gone before the request was sent.
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

  /** @internal */
  isDialedWith(credentials: ChannelCredentials): boolean {
    return this.#sockets.standFor(credentials);
  }

  #assertReady(): void {
    if (this.#state !== "ready") throw new ConnClosedError(this.#reason, false);
  }

  #limitStreams(limit: number): void {
    // A limit of 0 would be for ever: no stream, no news of another limit.
    const maxStreams = Math.max(limit, 1);
    if (maxStreams === this.#maxStreams) return;
    this.#maxStreams = maxStreams;
    this.#tellListeners();
  }

  #leave(): void {
    if (this.#state !== "ready") return;
    this.#state = "leaving";
    this.#reason = this.#sockets.connected ? "goaway" : "died";
    if (this.#reason === "goaway") this.#tellListeners();
    // A lost connection fails its calls within this turn, and then `closed` says it all, unless grpc-js sends some again.
    else setImmediate(() => this.#state === "leaving" && this.#tellListeners());
    if (this.#running.size === 0) this.#shutDown(this.#reason);
  }

  #shutDown(reason: CloseReason): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#reason = reason;
    this.#forgetLimit();
    this.channel.close();
    this.#markClosed();
    setTimeout(() => this.#sockets.destroySockets(), lingerMs).unref();
  }

  #tellListeners(): void {
    for (const listener of this.#listeners) listener();
  }

  #settleFailing(): void {
    const failing = this.#failing;
    this.#failing = [];
    for (const call of failing) call.settle();
  }
}
