import type { Duplex } from "node:stream";

/**
 * One RPC as its server needs it. A grpc-js `MethodDefinition` is one, so the definitions that people already generate
 * serve DRPC too.
 */
export interface DrpcMethod<I, O> {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  requestDeserialize(bytes: Buffer): I;
  responseSerialize(message: O): Uint8Array;
}

/** What a handler knows of its RPC beside the messages. */
export interface DrpcContext {
  readonly path: string;
  /** What the client sent with the invoke. It has no prototype: any key is the client's. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Aborts when nobody waits for the RPC any more: the client has cancelled it, begun another one or gone, or the
   * server is closed. Its reason is an Error.
   */
  readonly signal: AbortSignal;
  /** The connection: for the client's address or certificate. Reading or writing it breaks the connection. */
  readonly duplex: Duplex;
}

/** One message, or an iterable of them; either one where the definition does not tell which. */
export type DrpcRequest<Streams extends boolean, I> = Streams extends true ? AsyncIterable<I> : I;
/** What a handler returns: the response or its promise, or an async iterable (a generator, say) of responses. */
export type DrpcResponse<Streams extends boolean, O> = Streams extends true ? AsyncIterable<O> : O | PromiseLike<O>;

/**
 * Handles an RPC. What it throws, the client gets: with the error's `code`, when that is a whole number. A handler that
 * streams its responses is asked for the next one when the socket has room for it.
 */
export type DrpcHandler<M> =
  M extends DrpcMethod<infer I, infer O>
    ? (request: DrpcRequest<M["requestStream"], I>, context: DrpcContext) => DrpcResponse<M["responseStream"], O>
    : never;

/** The methods of a service by name: a grpc-js `ServiceDefinition` is one. */
export type DrpcService<S> = { readonly [N in keyof S]: DrpcMethod<unknown, unknown> };

/** A handler for each method of a service. */
export type DrpcHandlers<S> = { readonly [N in keyof S]: DrpcHandler<S[N]> };

/** A method and its handler, whatever their types. */
export interface ServedMethod {
  readonly method: DrpcMethod<unknown, unknown>;
  handle(request: unknown, context: DrpcContext): unknown;
}
