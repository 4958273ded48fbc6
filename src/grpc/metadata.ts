import { Metadata as GrpcMetadata, type MetadataValue } from "@grpc/grpc-js";
import type { Metadata } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";

// grpc-js clones what a call starts with, so that calls may share these.
const none = new GrpcMetadata();
const waiting = new GrpcMetadata({ waitForReady: true });

/** What grpc-js sends for `metadata`. Keys and values that gRPC cannot carry throw a `PoolTypeError`. */
export function toGrpc(metadata: Metadata | undefined, waitForReady = false): GrpcMetadata {
  if (metadata === undefined) return waitForReady ? waiting : none;
  const result = new GrpcMetadata({ waitForReady });
  for (const [key, value] of Object.entries(metadata)) {
    if (Array.isArray(value)) for (const each of value) add(result, key, each);
    else add(result, key, value);
  }
  return result;
}

function add(metadata: GrpcMetadata, key: string, value: unknown): void {
  try {
    metadata.add(key, typeof value === "string" ? value : toBuffer(value));
  } catch (cause) {
    throw new PoolTypeError(`metadata key ${JSON.stringify(key)} cannot be sent: ${String(cause)}`, { cause });
  }
}

/** grpc-js wants buffers where the contract says bytes. Copies nothing. */
export function toBuffer(bytes: unknown): Buffer {
  if (Buffer.isBuffer(bytes)) return bytes;
  if (bytes instanceof Uint8Array) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  throw new PoolTypeError(`Expected a Uint8Array, got ${typeof bytes}`);
}

/** What the peer sent, one value as itself and several as an array. A key that would set a prototype is left out. */
export function fromGrpc(metadata: GrpcMetadata): Metadata {
  const result: Metadata = {};
  for (const [key, values] of Object.entries<MetadataValue[]>(metadata.toJSON())) {
    const [first] = values;
    if (first !== undefined) result[key] = values.length === 1 ? first : values;
  }
  return result;
}
