import { type ChannelInterface, type Metadata as GrpcMetadata, type StatusObject, status } from "@grpc/grpc-js";
import type { CallOptions, Rpc } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { type AbortWatcher, unwatchAbort, watchAbort } from "../runtime/abort.ts";
import type { Item } from "./bag.ts";
import { fromGrpc, toGrpc } from "./metadata.ts";
import { messageOf, statusError } from "./status.ts";

/** grpc-js does not export its call and listener types by name. */
export type GrpcCall = ReturnType<ChannelInterface["createCall"]>;
export type GrpcListener = Parameters<GrpcCall["start"]>[1];

/** What a conn keeps of each call that it runs. */
export interface HostedCall extends Item {
  cancel(code: status, details: string): void;
  /** Tells the caller how the call ended. */
  settle(): void;
}

/** The conn, as its calls see it. */
export interface CallHost {
  readonly channel: ChannelInterface;
  begin(call: HostedCall): void;
  /** The call has its status. The host calls its `settle()`, now or a little later. */
  end(call: HostedCall, status: StatusObject): void;
  /** Why this status is no answer of the peer's: the conn was gone before the request was sent. */
  unsent(call: GrpcCall, status: StatusObject): Error | undefined;
}

/** For longer times (25 days) grpc-js sets no timer, and its server would take them for a millisecond. */
const longestTimeoutMs = 2 ** 31 - 1;

/**
 * One RPC on a grpc-js channel, without grpc-js' client and its interceptors: from `start()` to the status, which
 * comes once, whatever happens.
 */
export abstract class RunningCall implements HostedCall, GrpcListener, AbortWatcher {
  place = -1;
  protected readonly call: GrpcCall;
  readonly #host: CallHost;
  readonly #options: CallOptions;
  readonly #metadata: GrpcMetadata;
  #failure: { readonly error: unknown } | undefined;
  #cancelled = false;

  /** Throws what is wrong with the options. */
  constructor(host: CallHost, rpc: Rpc<never, unknown>, options: CallOptions) {
    this.#host = host;
    this.#options = options;
    options.signal?.throwIfAborted();
    const deadline = deadlineOf(options.timeoutMs);
    this.#metadata = toGrpc(options.metadata, options.waitForReady);
    this.call = host.channel.createCall(rpc.path, deadline, null, null, null);
  }

  /** Follows the constructor in the same tick: grpc-js waits for ever for a call that it has created. */
  protected start(): void {
    this.call.start(this.#metadata, this);
    this.#host.begin(this);
    if (this.#options.signal !== undefined) watchAbort(this.#options.signal, this);
  }

  abstract onReceiveMessage(bytes: Buffer): void;
  /** Tells the caller how the call ended. Comes after the conn has given up the call. */
  abstract settle(): void;

  /** What the call failed with; `undefined` while it runs, and after an OK. */
  protected get failure(): { readonly error: unknown } | undefined {
    return this.#failure;
  }

  /** The one way to end a call early. Its status comes in a later tick, so that there is one way out, too. */
  cancel(code: status, details: string): void {
    this.#cancelled = true;
    this.call.cancelWithStatus(code, details);
  }

  onAbort(): void {
    this.cancel(status.CANCELLED, "Cancelled on client");
  }

  onReceiveMetadata(metadata: GrpcMetadata): void {
    if (this.#options.onHeader !== undefined) this.#tell("onHeader", metadata);
  }

  onReceiveStatus(result: StatusObject): void {
    const { signal, onTrailer } = this.#options;
    if (signal !== undefined) unwatchAbort(signal, this);
    const unsent = this.#host.unsent(this.call, result);
    if (result.code !== status.OK)
      this.#failure ??= { error: signal?.aborted ? signal.reason : (unsent ?? statusError(result)) };
    // What was not sent has no trailers, and may be sent again; what was cancelled has none of the peer's.
    if (onTrailer !== undefined && unsent === undefined && !this.#cancelled) this.#tell("onTrailer", result.metadata);
    this.#host.end(this, result);
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

function deadlineOf(timeoutMs: number | undefined): number {
  if (timeoutMs === undefined) return Number.POSITIVE_INFINITY;
  if (typeof timeoutMs !== "number")
    throw new PoolTypeError(`Expected \`timeoutMs\` to be a number, got ${typeof timeoutMs}`);
  if (!(timeoutMs > 0)) throw new PoolRangeError(`Expected \`timeoutMs\` to be over 0, got ${timeoutMs}`);
  return timeoutMs > longestTimeoutMs ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs;
}
