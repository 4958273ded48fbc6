/** What either end of a connection keeps to, with defaults and checks. */
import { checkOneOf, checkSize, checkString, checkTime } from "../argument.ts";
import { PoolRangeError } from "../errors.ts";
import { longestDelayMs } from "../runtime/clock.ts";

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
   * Bytes of messages that wait for their consumer before the socket is paused. Each message counts 64 bytes on top, and
   * the first one of a read counts with all of it, since messages are views of the reads that they came with. What was
   * read already can exceed it by one read of the socket, or by one packet. Default 256 KiB. 0: pause after each
   * message. Negative: refused.
   */
  highWaterBytes?: number | undefined;
}

/** `DrpcLimits` with the defaults filled in. */
export type Limits = Readonly<Record<keyof DrpcLimits, number>>;

/** The names of `DrpcLimits`. */
export const limitNames: readonly (keyof DrpcLimits)[] = ["maxPacketBytes", "splitBytes", "highWaterBytes"];

/**
 * Sent in front of the first bytes on ports that DRPC shares with other protocols.
 *
 * @see https://github.com/storj/drpc/blob/v0.0.34/drpcmigrate/header.go
 */
export const DRPC_HEADER = "DRPC!!!1";

/** @throws PoolTypeError or PoolRangeError for what is no limit. */
export function limitsOf(limits: DrpcLimits): Limits {
  return {
    maxPacketBytes: sizeOf("maxPacketBytes", limits.maxPacketBytes, 4 * 1024 * 1024),
    splitBytes: sizeOf("splitBytes", limits.splitBytes, 64 * 1024),
    highWaterBytes: sizeOf("highWaterBytes", limits.highWaterBytes, 256 * 1024),
  };
}

/** @throws PoolTypeError or PoolRangeError unless `value` is absent or a whole number from 0. */
export function sizeOf(name: string, value: number | undefined, absent: number): number {
  if (value === undefined) return absent;
  checkSize(name, value);
  return value;
}

/**
 * A delay for Node's timers. 0: never; so is `Infinity`.
 *
 * @throws PoolTypeError or PoolRangeError unless `value` is absent or milliseconds from 0.
 */
export function delayOf(name: string, value: number | undefined, absent: number): number {
  if (value === undefined) return absent;
  if (value === Number.POSITIVE_INFINITY) return 0;
  checkTime(name, value);
  return Math.min(value, longestDelayMs);
}

/** @throws PoolTypeError or PoolRangeError unless `value` is absent or one of `choices`. */
export function choiceOf<T extends string>(name: string, value: T | undefined, choices: readonly T[], absent: T): T {
  checkOneOf(name, value, choices);
  return value ?? absent;
}

/** @throws PoolTypeError or PoolRangeError unless `header` is absent, a boolean or text of one byte per character. */
export function headerOf(header: boolean | string | undefined): string {
  if (header === undefined || header === false) return "";
  if (header === true) return DRPC_HEADER;
  checkString("header", header);
  if (!/^[\0-\xff]{1,64}$/.test(header)) {
    throw new PoolRangeError("expected `header` to be 1 to 64 one-byte characters");
  }
  return header;
}
