import type { MethodDefinition } from "@grpc/grpc-js";

const asIs = (bytes: Buffer): Buffer => bytes;

/** What the servers offer: bytes in, the same bytes out. Generated code has the same shape. */
export const echo: MethodDefinition<Buffer, Buffer> = {
  path: "/example.Echo/Echo",
  requestStream: false,
  responseStream: false,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
};

/** One of the servers. */
export interface Peer {
  readonly address: string;
  readonly tls: boolean;
}

/** What the servers counted since the last "reset", all of them together. */
export interface Count {
  readonly accepted: number;
  readonly peak: number;
  readonly open: number;
}

/** Each server allows this many calls at once on one connection; 100 is more usual, 10 shows the effect sooner. */
export const streamLimit = 10;

/** Each call takes the server this long. */
export const serverMs = 20;
