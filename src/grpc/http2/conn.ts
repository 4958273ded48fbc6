import type { ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { TLSSocket } from "node:tls";
import { Channel, type ChannelCredentials, credentials, type StatusObject, status } from "@grpc/grpc-js";
import type { CallOptions, CloseReason, Conn, Rpc, Stream } from "../../contract.ts";
import { ConnClosedError } from "../../errors.ts";
import type { Goaway, Http2Conn } from "../../net/http2.ts";
import { type CallHost, CallSet, type CreateCall, type GrpcCall, type HostedCall, invoke } from "../call.ts";
import { announceLeave } from "../connectivity.ts";
import { RpcStream } from "../stream.ts";
import { type CallSettings, Http2Call } from "./call.ts";
import type { Encoding } from "./compression.ts";
import { type KeepaliveOptions, keepAlive } from "./keepalive.ts";

const noOptions: CallOptions = {};

/** What a dial knows of the conn that it has opened. */
export interface GrpcHttp2Setup {
  readonly settings: CallSettings;
  readonly credentials: ChannelCredentials;
  readonly encoding: Encoding;
  readonly keepalive: KeepaliveOptions;
  /** Opens another session to the same peer. */
  readonly redial: (signal: AbortSignal) => Promise<Http2Conn>;
}

/**
 * One HTTP/2 session to a gRPC peer, without grpc-js' channel. It leaves at a GOAWAY: no new RPC, and it closes when its
 * last one has ended.
 *
 * An RPC that the peer has certainly not processed is sent again, once: on this session after a REFUSED_STREAM, and after a
 * GOAWAY that leaves it out on a session that is opened for such RPCs alone, as grpc-js does it.
 *
 * @see https://github.com/grpc/proposal/blob/master/A6-client-retries.md#transparent-retries
 */
export class GrpcHttp2Conn implements Conn, CallHost {
  /** Settles when the conn has closed, before the RPCs that die with it reject. */
  readonly closed: Promise<void>;
  /** @internal */
  readonly settings: CallSettings;
  /** @internal The credentials that it was dialed with. */
  readonly credentials: ChannelCredentials;

  readonly #session: Http2Conn;
  readonly #redial: GrpcHttp2Setup["redial"];
  readonly #running = new CallSet<HostedCall>();
  readonly #closing = new AbortController();
  #encoding: Encoding;
  #failing: HostedCall[] = [];
  /** Sessions for RPCs that a GOAWAY left out, those that are opened included; the one that takes such RPCs now. */
  readonly #successors = new Set<Promise<Http2Conn>>();
  #successor: Promise<Http2Conn> | undefined;

  /** @internal */
  constructor(session: Http2Conn, { settings, credentials, encoding, keepalive, redial }: GrpcHttp2Setup) {
    this.settings = settings;
    this.credentials = credentials;
    this.#session = session;
    this.#redial = redial;
    this.#encoding = encoding;
    this.closed = this.#gone();
    session.onChange(() => session.draining && announceLeave());
    keepAlive(session, keepalive, () => session.socket.destroy());
  }

  /** What makes this conn's calls, for whoever takes a grpc-js channel to that end. */
  get channel(): this {
    return this;
  }

  /** How many RPCs may run at once, now: what the peer allows, 100 where it sets no limit, at most what was configured. */
  get maxStreams(): number {
    return this.#session.maxStreams;
  }

  /** True once a GOAWAY has come, the connection is lost, or its end has begun. */
  get draining(): boolean {
    return this.#session.draining;
  }

  /** The peer's GOAWAY, if one has come. */
  get goaway(): Goaway | undefined {
    return this.#session.goaway;
  }

  /** How many bytes have come from the peer. */
  get bytesRead(): number {
    return this.#session.bytesRead;
  }

  /** Asks the peer for a sign of life, and resolves when one has come. Rejects with the signal's reason. */
  ping(options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#session.ping(options);
  }

  ref(): void {
    this.#session.ref();
  }

  unref(): void {
    this.#session.unref();
  }

  /** Calls `listener` when `draining` or `maxStreams` may have changed. */
  onChange(listener: () => void): void {
    this.#session.onChange(listener);
  }

  /** Always `undefined`: HTTP/2 resets a cancelled stream without disturbing the others. */
  unblocked(): undefined {
    return undefined;
  }

  /**
   * Rejects with a `GrpcError` (the peer's status), with `signal.reason`, or with a `ConnClosedError` whose `sent` is
   * false when the peer has certainly not processed the request.
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

  /** Makes a call that runs on this conn, as grpc-js' channels do. */
  createCall(...args: CreateCall): Http2Call {
    return new Http2Call(this, args);
  }

  /** grpc-js' channelz knows nothing of these conns: that of a channel which it does not know, either. */
  getChannelzRef(): ReturnType<Channel["getChannelzRef"]> {
    const channel = new Channel("localhost", credentials.createInsecure(), { "grpc.enable_channelz": 0 });
    channel.close();
    return channel.getChannelzRef();
  }

  /** Closes the conn; RPCs that still run are cancelled. Idempotent. */
  close(): Promise<void> {
    this.#closing.abort();
    for (const call of this.#running.all()) call.cancel(status.CANCELLED, "the conn was closed");
    return this.#session.close().then(() => this.closed);
  }

  /** @internal */
  get authContext(): NonNullable<ReturnType<GrpcCall["getAuthContext"]>> {
    const { socket } = this.#session;
    if (!(socket instanceof TLSSocket && socket.authorized)) return {};
    return { transportSecurityType: "ssl", sslPeerCertificate: socket.getPeerCertificate() };
  }

  /** @internal */
  get lost(): boolean {
    return this.#session.session.destroyed;
  }

  /** @internal */
  get encoding(): Encoding {
    return this.#encoding;
  }

  /** @internal */
  learnEncodings(accepted: string): void {
    if (this.#encoding === "identity") return;
    const names = accepted.split(",").map((name) => name.trim());
    if (!names.includes(this.#encoding)) this.#encoding = "identity";
  }

  /** @internal */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream {
    return this.#session.request(headers);
  }

  /** @internal */
  async again(): Promise<Pick<Http2Conn, "request">> {
    if (!this.draining) {
      await new Promise((resolve) => setImmediate(resolve)); // out of the event that told of the refusal
      return this.#session;
    }
    if (this.#successor === undefined) {
      this.#successor = this.#redial(this.#closing.signal);
      this.#successors.add(this.#successor);
      void this.#retire(this.#successor);
    }
    return this.#successor;
  }

  /** @internal */
  begin(call: HostedCall): void {
    this.#running.add(call);
  }

  /** @internal */
  end(call: HostedCall, { code }: StatusObject): void {
    this.#running.delete(call);
    // What fails with the connection is told in a later turn: the conn has closed by then, for whoever watches it.
    if (code === status.OK || !this.draining) call.settle();
    else if (this.#failing.push(call) === 1) setImmediate(() => this.#settleFailing());
  }

  /** @internal */
  unsent(call: GrpcCall): ConnClosedError | undefined {
    if (!this.draining || !(call instanceof Http2Call) || !call.unprocessed) return undefined;
    return new ConnClosedError(this.#reason, false);
  }

  get #reason(): CloseReason {
    if (this.#session.goaway !== undefined) return "goaway";
    return this.#closing.signal.aborted ? "pool" : "died";
  }

  #assertReady(): void {
    if (this.draining) throw new ConnClosedError(this.#reason, false);
  }

  async #gone(): Promise<void> {
    await this.#session.closed;
    for (const successor of this.#successors) await successor.then(({ closed }) => closed).catch(() => {});
  }

  /** It takes those that wait for it, and no other. */
  async #retire(successor: Promise<Http2Conn>): Promise<void> {
    try {
      const session = await successor;
      await new Promise((resolve) => setImmediate(resolve));
      this.#successor = undefined; // those that are refused later have one of their own
      session.drain();
      await session.closed;
    } catch {
      this.#successor = undefined; // those that waited for it have failed
    }
    this.#successors.delete(successor);
  }

  #settleFailing(): void {
    const failing = this.#failing;
    this.#failing = [];
    for (const call of failing) call.settle();
  }
}
