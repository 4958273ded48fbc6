import { deflate, gunzip, gzip, type InputType, inflate, type ZlibOptions } from "node:zlib";
import { status } from "@grpc/grpc-js";
import { GrpcError, messageOf } from "../status.ts";

type Transform = (input: InputType, options: ZlibOptions, done: (error: Error | null, output: Buffer) => void) => void;

/** The message encodings of grpc-js, by the numbers that `grpc.default_compression_algorithm` gives them. */
export const encodings = ["identity", "deflate", "gzip"] as const;

export type Encoding = (typeof encodings)[number];

const pairs: Record<Exclude<Encoding, "identity">, readonly [compress: Transform, decompress: Transform]> = {
  deflate: [deflate, inflate],
  gzip: [gzip, gunzip],
};

/** Tells the compressed message to `done`, later. */
export function compress(
  encoding: Exclude<Encoding, "identity">,
  message: Buffer,
  done: (result: Buffer | GrpcError) => void,
): void {
  pairs[encoding][0](message, {}, (error, output) => {
    done(error === null ? output : new GrpcError(status.INTERNAL, `Failed to compress a message: ${messageOf(error)}`));
  });
}

/**
 * Tells the message to `done`, later. `encoding` is what the peer named; `limit`, the bytes that the message may have
 * (negative: any number), bounds what is decompressed of one that would become larger.
 */
export function decompress(
  encoding: string | undefined,
  message: Buffer,
  limit: number,
  done: (result: Buffer | GrpcError) => void,
): void {
  if (encoding !== "gzip" && encoding !== "deflate") {
    const details = `Received a compressed message whose encoding is ${encoding ?? "identity"}`;
    process.nextTick(done, new GrpcError(status.INTERNAL, details));
    return;
  }
  const options = limit < 0 ? {} : { maxOutputLength: Math.max(limit, 1) };
  pairs[encoding][1](message, options, (error, output) => {
    if (error === null && (limit < 0 || output.length <= limit)) done(output);
    else if (error === null || Object(error).code === "ERR_BUFFER_TOO_LARGE") {
      const details = `Received message that decompresses to a size larger than ${limit}`;
      done(new GrpcError(status.RESOURCE_EXHAUSTED, details));
    } else done(new GrpcError(status.INTERNAL, `Failed to decompress ${encoding}-encoded message`));
  });
}
