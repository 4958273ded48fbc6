import { type StatusObject, status } from "@grpc/grpc-js";
import type { CallOptions, Rpc } from "../contract.ts";
import { type CallHost, RunningCall } from "./call.ts";
import { toBuffer } from "./metadata.ts";
import { GrpcError, messageOf } from "./status.ts";

/** An RPC with one request and one response. */
export class UnaryCall<I, O> extends RunningCall {
  readonly #deserialize: (bytes: Buffer) => O;
  #response: { message: O } | undefined;
  #trailers: StatusObject["metadata"] | undefined;
  #resolve!: (message: O) => void;
  #reject!: (error: unknown) => void;

  constructor(host: CallHost, rpc: Rpc<I, O>, options: CallOptions) {
    super(host, rpc, options);
    this.#deserialize = rpc.responseDeserialize;
  }

  run(request: Buffer): Promise<O> {
    const result = new Promise<O>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.start();
    this.call.startRead();
    this.call.sendMessageWithContext({}, request);
    this.call.halfClose();
    return result;
  }

  override onReceiveMessage(bytes: Buffer): void {
    if (this.#response !== undefined) {
      this.cancel(status.UNIMPLEMENTED, "Too many responses received");
      return;
    }
    try {
      this.#response = { message: this.#deserialize(bytes) };
    } catch (error) {
      this.cancel(status.INTERNAL, `Response message parsing error: ${messageOf(error)}`);
      return;
    }
    // Without this a second response would never come, nor would the status behind it.
    this.call.startRead();
  }

  override onReceiveStatus(result: StatusObject): void {
    this.#trailers = result.metadata;
    super.onReceiveStatus(result);
  }

  override settle(): void {
    if (this.failure !== undefined) this.#reject(this.failure.error);
    else if (this.#response !== undefined) this.#resolve(this.#response.message);
    else this.#reject(new GrpcError(status.UNIMPLEMENTED, "No message received", this.#trailers));
  }
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
