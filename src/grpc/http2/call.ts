import { type ClientHttp2Stream, constants, type IncomingHttpHeaders, type OutgoingHttpHeaders } from "node:http2";
import {
  type CallCredentials,
  type ChannelInterface,
  credentials,
  type Metadata,
  propagate,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import { ConnClosedError } from "../../errors.ts";
import { longestDelayMs } from "../../runtime/clock.ts";
import type { GrpcCall, GrpcListener } from "../call.ts";
import { GrpcError, messageOf } from "../status.ts";
import { authorize } from "./authorization.ts";
import { compress, decompress, type Encoding } from "./compression.ts";
import { listen, type StreamOwner } from "./events.ts";
import { Deframer, type FrameSink, framed } from "./framing.ts";
import { metadataOf, statusOf, statusOfForeign, statusOfHttp, statusOfReset, statusOfTrailers } from "./outcome.ts";
import { grpcTimeout, requestHeaders } from "./request.ts";

type CreateCall = Parameters<ChannelInterface["createCall"]>;
type SendContext = Parameters<GrpcCall["sendMessageWithContext"]>[0];
type AuthContext = ReturnType<GrpcCall["getAuthContext"]>;

/** What all calls of a conn have in common. */
export interface CallSettings {
  readonly scheme: "http" | "https";
  readonly authority: string;
  readonly userAgent: string;
  readonly peer: string;
  /** Bytes; negative: any number. */
  readonly maxSendBytes: number;
  readonly maxReceiveBytes: number;
  /** Those that the channel credentials carry. */
  readonly callCredentials: CallCredentials | undefined;
}

/** The conn, as its calls see it. */
export interface StreamHost {
  readonly settings: CallSettings;
  readonly authContext: NonNullable<AuthContext>;
  /** Whether the connection is gone. */
  readonly lost: boolean;
  /** How messages are compressed, as long as the peer has not said that it cannot. */
  readonly encoding: Encoding;
  learnEncodings(accepted: string): void;
  /** Throws a `ConnClosedError` when the conn takes no new stream. */
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream;
  /** Where a call goes that the peer has refused. */
  again(): Promise<Pick<StreamHost, "request">>;
}

interface Outgoing {
  readonly message: Buffer;
  readonly context: SendContext;
}

/** A message that has come, to be decompressed when it is read. */
interface Packed {
  readonly packed: Buffer;
}

/** While this many bytes of messages wait for their reader, the stream is not read, and its window closes. */
const mostUnreadBytes = 64 << 10;

/** grpc-js' flag of a message that is not to be compressed. */
const noCompress = 2;

const none = credentials.createEmpty();

let calls = 0;

/**
 * A grpc-js call on a stream of `node:http2`: from `start()` to the status, which comes once. Messages go to the listener
 * as it asks for them, and the status behind them; what this side ends (cancel, deadline), ends at once.
 */
export class Http2Call implements GrpcCall, FrameSink, StreamOwner {
  readonly #host: StreamHost;
  readonly #path: string;
  readonly #deadline: number;
  readonly #authority: string;
  readonly #parent: CreateCall[3];
  readonly #number: number = ++calls;
  readonly #deframer: Deframer;
  #credentials: CallCredentials | undefined;
  #listener: GrpcListener | undefined;
  #stream: ClientHttp2Stream | undefined;
  #headers: OutgoingHttpHeaders | undefined;
  #begun = 0;
  #timer: NodeJS.Timeout | undefined;
  #onParentCancelled: (() => void) | undefined;

  #encoding: Encoding = "identity";
  #toSend: Outgoing[] | undefined;
  #compressing = false;
  #halfClosed = false;
  /** The only message sent, as long as it can be sent again. */
  #sent: Outgoing | undefined;
  #repeatable = true;
  #unprocessed = false;

  readonly #toDeliver: (Buffer | Packed)[] = [];
  #unread = 0;
  #wanted = false;
  #delivering = false;
  #unpacking = false;
  #paused = false;
  #response: IncomingHttpHeaders | undefined;
  #allRead = false;
  #status: StatusObject | undefined;
  /** The listener has its status, or is about to get it. */
  #over = false;

  constructor(host: StreamHost, [path, deadline, authority, parent, flags]: CreateCall) {
    const inherited = flags ?? propagate.DEFAULTS;
    this.#host = host;
    this.#path = path;
    this.#authority = authority ?? host.settings.authority;
    this.#deadline =
      parent && inherited & propagate.DEADLINE
        ? Math.min(Number(deadline), Number(parent.getDeadline()))
        : Number(deadline);
    this.#parent = inherited & propagate.CANCELLATION ? parent : null;
    this.#deframer = new Deframer(host.settings.maxReceiveBytes);
  }

  /** Whether the peer has certainly not processed the call. */
  get unprocessed(): boolean {
    return this.#unprocessed;
  }

  start(metadata: Metadata, listener: GrpcListener): void {
    this.#listener = listener;
    if (this.#over) return;
    if (this.#parent) {
      this.#onParentCancelled = () => this.cancelWithStatus(status.CANCELLED, "Cancelled by parent call");
      this.#parent.on("cancelled", this.#onParentCancelled);
    }
    if (this.#deadline !== Number.POSITIVE_INFINITY && !this.#watchDeadline()) return;
    const ofConn = this.#host.settings.callCredentials;
    const all = ofConn === undefined ? this.#credentials : (this.#credentials?.compose(ofConn) ?? ofConn);
    if (all === undefined) this.#open(metadata);
    else void this.#authorize(all, metadata.clone());
  }

  startRead(): void {
    this.#wanted = true;
    this.#deliver();
    if (this.#finished) process.nextTick(() => this.#finish());
  }

  sendMessageWithContext(context: SendContext, message: Buffer): void {
    const { maxSendBytes } = this.#host.settings;
    if (maxSendBytes >= 0 && message.length > maxSendBytes) {
      const details = `Attempted to send message with a size larger than ${maxSendBytes}`;
      this.cancelWithStatus(status.RESOURCE_EXHAUSTED, details);
    }
    if (this.#over) {
      if (context.callback !== undefined) process.nextTick(context.callback);
      return;
    }
    if (this.#stream !== undefined && this.#encoding === "identity") {
      this.#write({ context, message }, message, false);
      return;
    }
    this.#toSend ??= [];
    this.#toSend.push({ context, message });
    this.#flush();
  }

  halfClose(): void {
    this.#halfClosed = true;
    this.#flush();
  }

  cancelWithStatus(code: status, details: string): void {
    this.#abort(statusOf(code, details));
  }

  setCredentials(credentials: CallCredentials): void {
    this.#credentials = none._equals(credentials) ? undefined : credentials;
  }

  getPeer(): string {
    return this.#host.settings.peer;
  }

  getCallNumber(): number {
    return this.#number;
  }

  getAuthContext(): AuthContext {
    return this.#stream === undefined ? null : this.#host.authContext;
  }

  onFramed(message: Buffer, compressed: boolean): void {
    this.#unread += message.length;
    this.#toDeliver.push(compressed ? { packed: message } : message);
  }

  onResponse(headers: IncomingHttpHeaders, flags: number): void {
    if (this.#over) return;
    this.#commit();
    this.#response = headers;
    if (flags & constants.NGHTTP2_FLAG_END_STREAM) {
      this.#allRead = true;
      this.#end(statusOfTrailers(headers) ?? statusOfForeign(headers) ?? statusOfHttp(headers));
      return;
    }
    const foreign = statusOfForeign(headers);
    if (foreign !== undefined) {
      this.#abort(foreign);
      return;
    }
    const accepted = headers["grpc-accept-encoding"];
    if (typeof accepted === "string") this.#host.learnEncodings(accepted);
    this.#listener?.onReceiveMetadata(metadataOf(headers));
  }

  onData(chunk: Buffer): void {
    if (this.#over) return;
    try {
      this.#deframer.push(chunk, this);
    } catch (error) {
      this.#abort(statusOfError(error));
      return;
    }
    this.#deliver();
    if (this.#unread <= mostUnreadBytes || this.#over) return;
    this.#paused = true;
    this.#stream?.pause();
  }

  onTrailers(trailers: IncomingHttpHeaders): void {
    if (this.#over) return;
    this.#allRead = this.#stream?.readableLength === 0;
    const none = (): StatusObject => ({ ...statusOfHttp(this.#response ?? {}), metadata: metadataOf(trailers) });
    this.#end(statusOfTrailers(trailers) ?? none());
  }

  onEnd(): void {
    if (this.#over) return;
    this.#allRead = true;
    if (this.#status !== undefined) this.#end(this.#status);
    // A stream that is reset may end as well: its `close`, which comes with it, knows why.
    else setImmediate(() => this.#over || this.#end(this.#statusOfNone()));
  }

  onClose(rstCode: number, error: Error | undefined): void {
    if (this.#over) return;
    if (this.#status !== undefined) {
      this.#allRead = true;
      this.#end(this.#status);
      return;
    }
    if (rstCode === constants.NGHTTP2_REFUSED_STREAM && this.#repeatable) {
      void this.#again();
      return;
    }
    if (rstCode === constants.NGHTTP2_CANCEL && this.#deadline <= Date.now()) {
      this.#exceed(); // the peer's clock was faster
      return;
    }
    const lost = rstCode !== constants.NGHTTP2_REFUSED_STREAM && this.#host.lost;
    this.#abort(lost ? statusOf(status.UNAVAILABLE, error?.message ?? "Connection dropped") : statusOfReset(rstCode));
  }

  /** False when the time is up already. */
  #watchDeadline(): boolean {
    this.#begun = Date.now();
    const timeoutMs = this.#deadline - this.#begun;
    if (timeoutMs <= 0) this.#exceed();
    else if (timeoutMs <= longestDelayMs) this.#timer = setTimeout(() => this.#exceed(), timeoutMs);
    return timeoutMs > 0;
  }

  #exceed(): void {
    const seconds = ((Date.now() - this.#begun) / 1_000).toFixed(3);
    const where = this.#stream === undefined ? "waiting for metadata filters" : `remote_addr=${this.getPeer()}`;
    this.cancelWithStatus(status.DEADLINE_EXCEEDED, `Deadline exceeded after ${seconds}s,${where}`);
  }

  async #authorize(all: CallCredentials, metadata: Metadata): Promise<void> {
    try {
      await authorize(metadata, all, this.#host.settings.scheme, this.#authority, this.#path);
      if (!this.#over) this.#open(metadata);
    } catch (error) {
      this.#abort(statusOfError(error));
    }
  }

  #open(metadata: Metadata): void {
    const host = this.#host;
    try {
      this.#encoding = host.encoding;
      this.#headers = requestHeaders(host.settings, this.#path, this.#authority, this.#encoding, metadata);
      this.#request(host, this.#headers);
    } catch (error) {
      this.#unprocessed = error instanceof ConnClosedError;
      this.#abort(statusOfError(error));
    }
  }

  #request(where: Pick<StreamHost, "request">, headers: OutgoingHttpHeaders): void {
    if (this.#deadline !== Number.POSITIVE_INFINITY) headers["grpc-timeout"] = grpcTimeout(this.#deadline - Date.now());
    const stream = where.request(headers);
    this.#stream = stream;
    listen(stream, this);
    if (this.#toSend !== undefined || this.#halfClosed) this.#flush();
  }

  /** Sends what waits: compressed one after the other, so that messages keep their order. */
  #flush(): void {
    const stream = this.#stream;
    if (stream === undefined || this.#compressing || this.#over) return;
    const outgoing = this.#toSend?.shift();
    if (outgoing === undefined) {
      if (this.#halfClosed && !stream.writableEnded) stream.end();
      return;
    }
    if (this.#encoding === "identity" || (outgoing.context.flags ?? 0) & noCompress) {
      this.#write(outgoing, outgoing.message, false);
      this.#flush();
      return;
    }
    this.#compressing = true;
    compress(this.#encoding, outgoing.message, (result) => {
      this.#compressing = false;
      if (this.#over) return;
      if (result instanceof GrpcError) this.#abort(result);
      else this.#write(outgoing, result, true);
      this.#flush();
    });
  }

  #write(outgoing: Outgoing, bytes: Buffer, compressed: boolean): void {
    const stream = this.#stream;
    const { callback } = outgoing.context;
    if (stream === undefined || stream.destroyed || stream.writableEnded) {
      if (callback !== undefined) process.nextTick(callback);
      return;
    }
    if (this.#repeatable && this.#sent === undefined) this.#sent = outgoing;
    else this.#commit();
    // In a later tick: a write's callback may run within Node's HTTP/2 code (https://github.com/nodejs/node/issues/49147).
    const written = callback === undefined ? undefined : (): void => process.nextTick(callback);
    const [first, second] = framed(bytes, compressed);
    if (second === undefined) {
      stream.write(first, written);
      return;
    }
    stream.cork();
    stream.write(first);
    stream.write(second, written);
    stream.uncork();
  }

  #commit(): void {
    this.#repeatable = false;
    this.#sent = undefined;
  }

  /** The peer has refused the stream: it is sent once more, outside of the event that said so. */
  async #again(): Promise<void> {
    const sent = this.#sent;
    this.#commit();
    this.#stream = undefined;
    // The callback of the first write has been called.
    if (sent !== undefined) this.#toSend = [{ message: sent.message, context: { flags: sent.context.flags ?? 0 } }];
    try {
      const where = await this.#host.again();
      if (!this.#over && this.#headers !== undefined) this.#request(where, this.#headers);
    } catch (error) {
      this.#unprocessed = true;
      this.#abort(statusOf(status.UNAVAILABLE, messageOf(error)));
    }
  }

  #deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    try {
      while (this.#wanted && !this.#over) {
        const next = this.#toDeliver.shift();
        if (next === undefined) break;
        this.#wanted = false;
        if (!("packed" in next)) {
          this.#unread -= next.length;
          this.#listener?.onReceiveMessage(next);
          continue;
        }
        this.#unpack(next.packed);
        return; // it is the only one until it has been unpacked
      }
    } finally {
      if (!this.#unpacking) this.#delivering = false;
    }
    if (!this.#paused || this.#unread > mostUnreadBytes / 2) return;
    this.#paused = false;
    this.#stream?.resume();
  }

  #unpack(packed: Buffer): void {
    this.#unpacking = true;
    const encoding = this.#response?.["grpc-encoding"];
    decompress(encoding?.toString(), packed, this.#host.settings.maxReceiveBytes, (result) => {
      this.#unpacking = false;
      this.#delivering = false;
      this.#unread -= packed.length;
      if (this.#over) return;
      if (result instanceof GrpcError) {
        this.#abort(result);
        return;
      }
      this.#listener?.onReceiveMessage(result);
      this.#deliver();
      if (this.#finished) this.#finish();
    });
  }

  #statusOfNone(): StatusObject {
    const response = this.#response;
    if (response !== undefined && Number(response[":status"]) !== 200) return statusOfHttp(response);
    return statusOfReset(constants.NGHTTP2_NO_ERROR);
  }

  /** The peer has said how the call ends: the listener hears of it behind the messages. */
  #end(result: StatusObject): void {
    this.#status = result;
    if (this.#finished) this.#finish();
  }

  get #finished(): boolean {
    return (
      this.#status !== undefined && this.#allRead && this.#toDeliver.length === 0 && !this.#delivering && !this.#over
    );
  }

  #finish(): void {
    const result = this.#status;
    if (this.#over || result === undefined) return;
    this.#over = true;
    this.#forget();
    const stream = this.#stream;
    if (stream !== undefined && !stream.writableFinished && !stream.destroyed) leave(stream);
    if (result.code === status.OK && this.#deframer.partial) {
      this.#listener?.onReceiveStatus(statusOf(status.INTERNAL, "The stream ended inside a message", result.metadata));
    } else this.#listener?.onReceiveStatus(result);
  }

  /** Ends the call from this side: what has come and was not read is dropped. */
  #abort(result: Pick<StatusObject, "code" | "details" | "metadata">): void {
    if (this.#over) return;
    this.#over = true;
    this.#status = result;
    this.#toDeliver.length = 0;
    this.#forget();
    const stream = this.#stream;
    // A stream that is opened and reset within one of Node's HTTP/2 callbacks may never close.
    if (stream !== undefined && !stream.destroyed) setImmediate(reset, stream);
    for (const { context } of this.#toSend?.splice(0) ?? []) if (context.callback) process.nextTick(context.callback);
    const { code, details, metadata } = result;
    process.nextTick(() => this.#listener?.onReceiveStatus({ code, details, metadata }));
  }

  #forget(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    if (this.#onParentCancelled !== undefined) this.#parent?.off("cancelled", this.#onParentCancelled);
    this.#sent = undefined;
  }
}

/** The peer has ended its side, and waits for nothing more. */
function leave(stream: ClientHttp2Stream): void {
  if (!stream.writableEnded && stream.writableLength === 0) stream.end();
  else setImmediate(() => stream.writableFinished || reset(stream));
}

function reset(stream: ClientHttp2Stream): void {
  if (!stream.destroyed) stream.resume().close(constants.NGHTTP2_CANCEL);
}

function statusOfError(error: unknown): StatusObject {
  if (error instanceof GrpcError) return error;
  if (error instanceof ConnClosedError) return statusOf(status.UNAVAILABLE, error.message);
  return statusOf(status.INTERNAL, `Failed to start HTTP/2 stream with error ${messageOf(error)}`);
}
