import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { checkCount } from "./option.ts";

/** What either end of a DRPC connection keeps to. */
export interface DrpcLimits {
  /**
   * Bytes of data that a packet from the peer may have, however many frames it comes in. A bigger one closes the
   * connection. Default 4 MiB, as in Go. 0: no limit. Negative: refused.
   */
  maxPacketBytes?: number | undefined;
  /**
   * Bytes of data in a frame that is sent: bigger packets are split. Default 64 KiB, as in Go. 0: never split.
   * Negative: refused.
   */
  splitBytes?: number | undefined;
  /**
   * Bytes of messages that wait for their consumer before the socket is paused; each message counts 64 bytes on top.
   * What was read already can exceed it by one read of the socket, or by one packet. Default 256 KiB. 0: pause after
   * each message. Negative: refused.
   */
  highWaterBytes?: number | undefined;
}

/**
 * Sent in front of the first bytes on ports that DRPC shares with other protocols.
 *
 * @see https://github.com/storj/drpc/blob/v0.0.34/drpcmigrate/header.go
 */
export const DRPC_HEADER = "DRPC!!!1";

/** The names of `DrpcLimits`. */
export const limitNames = ["maxPacketBytes", "splitBytes", "highWaterBytes"] as const;

/** @throws PoolTypeError or PoolRangeError for what is no limit. */
export function checkLimits(limits: DrpcLimits): Required<{ [N in keyof DrpcLimits]: number }> {
  return {
    maxPacketBytes: checkCount("maxPacketBytes", limits.maxPacketBytes, 4 * 1024 * 1024),
    splitBytes: checkCount("splitBytes", limits.splitBytes, 64 * 1024),
    highWaterBytes: checkCount("highWaterBytes", limits.highWaterBytes, 256 * 1024),
  };
}

/** @throws PoolTypeError or PoolRangeError unless `header` is absent, a boolean or text of one byte per character. */
export function checkHeader(header: boolean | string | undefined): string {
  if (header === undefined || header === false) return "";
  if (header === true) return DRPC_HEADER;
  if (typeof header !== "string") throw new PoolTypeError(`Expected \`header\` to be a string, got ${typeof header}`);
  if (!/^[\0-\xff]{1,64}$/.test(header))
    throw new PoolRangeError("Expected `header` to be 1 to 64 one-byte characters");
  return header;
}
