import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";

/** Who is told what happens on a stream. */
export interface StreamOwner {
  onResponse(headers: IncomingHttpHeaders, flags: number): void;
  onData(chunk: Buffer): void;
  onTrailers(trailers: IncomingHttpHeaders): void;
  onEnd(): void;
  /** The stream has closed, and with which error, if there was one. */
  onClose(resetCode: number, error: Error | undefined): void;
}

const owner: unique symbol = Symbol("owner");
const failure: unique symbol = Symbol("failure");

interface OwnedStream extends ClientHttp2Stream {
  [owner]?: StreamOwner;
  [failure]?: Error;
}

/** One listener each for all streams: closures for every call would be the larger part of what a call allocates. */
export function listen(stream: OwnedStream, to: StreamOwner): void {
  stream[owner] = to;
  stream.on("response", onResponse).on("data", onData).on("trailers", onTrailers);
  stream.on("end", onEnd).on("error", onError).on("close", onClose);
}

function onResponse(this: OwnedStream, headers: IncomingHttpHeaders, flags: number): void {
  this[owner]?.onResponse(headers, flags);
}

function onData(this: OwnedStream, chunk: Buffer): void {
  this[owner]?.onData(chunk);
}

function onTrailers(this: OwnedStream, trailers: IncomingHttpHeaders): void {
  this[owner]?.onTrailers(trailers);
}

function onEnd(this: OwnedStream): void {
  this[owner]?.onEnd();
}

/** Each comes with a `close`, which ends the call. */
function onError(this: OwnedStream, error: Error): void {
  this[failure] = error;
}

function onClose(this: OwnedStream): void {
  this[owner]?.onClose(this.rstCode ?? constants.NGHTTP2_NO_ERROR, this[failure]);
}
