import { type ChannelInterface, type Metadata as GrpcMetadata, type StatusObject, status } from "@grpc/grpc-js";
import { checkCallOptions, timeLimit } from "../argument.ts";
import type { CallOptions, Rpc } from "../contract.ts";
import { spentOf } from "../explanation.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { longestDelayMs, systemWallNow } from "../runtime/clock.ts";
import type { Failure } from "../runtime/guard.ts";
import { fromGrpc, toBuffer, toGrpc } from "./metadata.ts";
import { afterWait, GrpcError, messageOf, statusError } from "./status.ts";

/** grpc-js does not export its call and listener types by name. */
export type CreateCall = Parameters<ChannelInterface["createCall"]>;
export type GrpcCall = ReturnType<ChannelInterface["createCall"]>;
export type GrpcListener = Parameters<GrpcCall["start"]>[1];

/** A call in the hands of a conn or a channel. It is in one `CallSet` at most, and carries its place there. */
export interface HostedCall {
  /** -1: in no set. Written by the set only. */
  place: number;
  cancel(code: status, details: string): void;
  /** Tells the caller how the call ended. */
  settle(): void;
}

/** What runs calls: a conn, as its calls see it. */
export interface CallHost {
  /** Makes the calls. */
  readonly channel: Pick<ChannelInterface, "createCall" | "getChannelzRef">;
  /** @internal The call has been started. */
  begin(call: HostedCall): void;
  /** @internal The call has its status. The host calls its `settle()`, now or a little later. */
  end(call: HostedCall, status: StatusObject): void;
  /** @internal Why this status is no answer of the peer's: the conn was gone before the request was sent. */
  unsent(call: GrpcCall, status: StatusObject): Error | undefined;
}

/**
 * Calls in no order. A Set that calls come to and go from is copied again and again, and V8 keeps what was in its old
 * copies until it collects the old generation; this one is copied only when it holds more than ever.
 */
export class CallSet<T extends { place: number }> {
  size = 0;
  readonly #items: (T | undefined)[] = [];

  add(item: T): void {
    item.place = this.size;
    this.#items[this.size++] = item;
  }

  /** Idempotent. */
  delete(item: T): void {
    const { place } = item;
    if (place < 0) return;
    item.place = -1;
    const last = this.#items[--this.size];
    this.#items[this.size] = undefined;
    if (last === undefined || last === item) return;
    last.place = place;
    this.#items[place] = last;
  }

  /** Those that are in it now. */
  all(): T[] {
    return this.#items.filter((item) => item !== undefined);
  }
}

/** Whoever wants the messages of a call, and its end. */
export interface CallReceiver {
  message(bytes: Buffer): void;
  /** Comes after the conn has given up the call. `failure` is `undefined` after an OK. */
  ended(failure: Failure | undefined, trailers: GrpcMetadata | undefined): void;
}

/**
 * One RPC on a grpc-js channel, without grpc-js' client and its interceptors: from `start()` to the status, which
 * comes once, whatever happens.
 */
export class RunningCall implements HostedCall, GrpcListener, AbortWatcher {
  place = -1;
  readonly grpc: GrpcCall;
  readonly #host: CallHost;
  readonly #options: CallOptions;
  readonly #metadata: GrpcMetadata;
  readonly #receiver: CallReceiver;
  #failure: Failure | undefined;
  #trailers: GrpcMetadata | undefined;
  #cancelled = false;

  /** Throws what is wrong with the options. */
  constructor(host: CallHost, path: string, options: CallOptions, receiver: CallReceiver) {
    this.#host = host;
    this.#options = options;
    this.#receiver = receiver;
    checkCallOptions(options);
    options.signal?.throwIfAborted();
    const deadline = deadlineOf(options);
    this.#metadata = toGrpc(options.metadata, options.waitForReady);
    this.grpc = host.channel.createCall(path, deadline, null, null, null);
  }

  /** Follows the constructor in the same tick: grpc-js waits for ever for a call that it has created. */
  start(): void {
    this.grpc.start(this.#metadata, this);
    this.#host.begin(this);
    if (this.#options.signal !== undefined) watchAbort(this.#options.signal, this);
  }

  /** The one way to end a call early. Its status comes in a later tick, so that there is one way out, too. */
  cancel(code: status, details: string): void {
    this.#cancelled = true;
    this.grpc.cancelWithStatus(code, details);
  }

  onAbort(): void {
    this.cancel(status.CANCELLED, "Cancelled on client");
  }

  onReceiveMetadata(metadata: GrpcMetadata): void {
    if (this.#options.onHeader !== undefined) this.#tell("onHeader", metadata);
  }

  onReceiveMessage(bytes: Buffer): void {
    this.#receiver.message(bytes);
  }

  onReceiveStatus(result: StatusObject): void {
    const { signal, onTrailer } = this.#options;
    if (signal !== undefined) unwatchAbort(signal, this);
    this.#trailers = result.metadata;
    const unsent = this.#host.unsent(this.grpc, result);
    if (result.code !== status.OK)
      this.#failure ??= { error: signal?.aborted ? signal.reason : (unsent ?? this.#error(result)) };
    // What was not sent has no trailers, and may be sent again; what was cancelled has none of the peer's.
    if (onTrailer !== undefined && unsent === undefined && !this.#cancelled) this.#tell("onTrailer", result.metadata);
    this.#host.end(this, result);
  }

  #error(result: StatusObject): GrpcError {
    return statusError(afterWait(result, spentOf(this.#options)));
  }

  settle(): void {
    this.#receiver.ended(this.#failure, this.#trailers);
  }

  /** A callback that throws fails its own RPC, with what it threw, and nothing else. */
  #tell(callback: "onHeader" | "onTrailer", metadata: GrpcMetadata): void {
    try {
      this.#options[callback]?.(fromGrpc(metadata));
    } catch (error) {
      this.#failure = { error };
      this.cancel(status.CANCELLED, `${callback} threw: ${messageOf(error)}`);
    }
  }
}

/** An RPC with one request and one response. */
class UnaryRpc<O> implements CallReceiver {
  readonly #call: RunningCall;
  readonly #deserialize: (bytes: Buffer) => O;
  #response: { message: O } | undefined;
  #resolve!: (message: O) => void;
  #reject!: (error: unknown) => void;

  constructor(host: CallHost, rpc: Rpc<never, O>, options: CallOptions) {
    this.#deserialize = rpc.responseDeserialize;
    this.#call = new RunningCall(host, rpc.path, options, this);
  }

  run(request: Buffer): Promise<O> {
    const result = new Promise<O>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { grpc } = this.#call;
    this.#call.start();
    grpc.startRead();
    grpc.sendMessageWithContext({}, request);
    grpc.halfClose();
    return result;
  }

  message(bytes: Buffer): void {
    if (this.#response !== undefined) {
      this.#call.cancel(status.UNIMPLEMENTED, "Too many responses received");
      return;
    }
    try {
      this.#response = { message: this.#deserialize(bytes) };
    } catch (error) {
      this.#call.cancel(status.INTERNAL, `Response message parsing error: ${messageOf(error)}`);
      return;
    }
    // Without this a second response would never come, nor would the status behind it.
    this.#call.grpc.startRead();
  }

  ended(failure: Failure | undefined, trailers: GrpcMetadata | undefined): void {
    if (failure !== undefined) this.#reject(failure.error);
    else if (this.#response !== undefined) this.#resolve(this.#response.message);
    else this.#reject(new GrpcError(status.UNIMPLEMENTED, "No message received", trailers));
  }
}

/** Runs an RPC with one request and one response on `host`. Throws what is wrong with the arguments. */
export function invoke<I, O>(host: CallHost, rpc: Rpc<I, O>, request: I, options: CallOptions): Promise<O> {
  const bytes = serialize(rpc, request);
  return new UnaryRpc(host, rpc, options).run(bytes);
}

/** The bytes of a request. What the serializer throws becomes the INTERNAL status that grpc-js gives it. */
export function serialize<I>(rpc: Rpc<I, unknown>, message: I): Buffer {
  try {
    return toBuffer(rpc.requestSerialize(message));
  } catch (cause) {
    const details = `Request message serialization failure: ${messageOf(cause)}`;
    throw new GrpcError(status.INTERNAL, details, undefined, { cause });
  }
}

/**
 * When a call must be over, as grpc-js takes it: a time, or `Infinity`. Throws DEADLINE_EXCEEDED where that is past already,
 * and what is wrong with the options.
 */
function deadlineOf(options: CallOptions): number {
  const timeoutMs = timeLimit(options, systemWallNow);
  // For longer times grpc-js sets no timer, and its server would take them for a millisecond.
  if (timeoutMs === undefined || timeoutMs > longestDelayMs) return Number.POSITIVE_INFINITY;
  if (timeoutMs <= 0) throw new GrpcError(status.DEADLINE_EXCEEDED, "Deadline exceeded before the call began");
  return systemWallNow() + timeoutMs;
}
