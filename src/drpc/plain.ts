import { connect, type Socket } from "node:net";
import type { Address } from "../net/address.ts";

/** What sockets read into, one after the other: each copies what has come before the next one reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

/** A TCP or Unix socket that allocates what it has read. Node would allocate 64 KiB for every read, however short. */
export function connectPlain(address: Address): Socket {
  const socket: Socket = connect({
    ...address,
    onread: { buffer: shared, callback: (length) => socket.push(Buffer.from(shared.subarray(0, length))) },
  });
  return socket;
}
