import { performance } from "node:perf_hooks"; // as a global it is a getter, which costs more than the reading
import * as timers from "node:timers";

/** Where the pool gets its time. The default is the machine's monotonic clock; tests pass a clock of their own. */
export interface Clock {
  /** Milliseconds since any fixed point. */
  now(): number;
  /** Calls `callback` once, after `ms`. What it returns may have an `unref()`. */
  setTimeout(callback: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  /** Milliseconds since the epoch, which deadlines are compared with. Default: `Date.now`. */
  wallNow?(): number;
}

/** Milliseconds since the epoch, as `clock` says, or as the machine does. */
export function wallNow(clock: Clock): number {
  return clock.wallNow === undefined ? Date.now() : clock.wallNow();
}

// Kept from the start, as fake timers replace them in the module too.
const { setImmediate: machineImmediate, setInterval: machineInterval, setTimeout: machineTimeout } = timers;
const machineDate = Date;

/**
 * The time where the global `setTimeout` is not the machine's. Vitest, Jest and Sinon replace `performance` too, unless
 * told otherwise; `node:test` replaces `Date` and never `performance`.
 */
function mockedNow(): number {
  if (globalThis.performance !== performance) return globalThis.performance.now();
  return Date === machineDate ? performance.now() : Date.now();
}

const settled = Promise.resolve();

/** Calls it when what runs now has ended. Fake timers have no part in this: the pool would stand still under them. */
export function inMicrotask(callback: () => void): void {
  void settled.then(callback);
}

/** Calls it in the next turn of the event loop, when I/O has had its turn. The same holds for it. */
export function inNextTurn(callback: () => void): void {
  machineImmediate(callback);
}

/** Reads the globals at each call, so that a test runner's fake timers are this clock's as well. */
export const systemClock: Clock = {
  now: () => (setTimeout === machineTimeout ? performance.now() : mockedNow()),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout), // only ever what setTimeout above returned
};

/** Milliseconds since the epoch, of the machine, for those who are given no clock. */
export const systemWallNow = (): number => wallNow(systemClock);

/** A longer delay makes Node's setTimeout fire at once: https://nodejs.org/api/timers.html#settimeoutcallback-delay-args */
export const longestDelayMs: number = 2 ** 31 - 1;

/**
 * Keeps the process alive while somebody waits. The pool's own timer never does, nor does a conn that runs no
 * stream, so a caller could otherwise wait for something that the end of the process forestalls.
 */
class Anchor {
  #holders = 0;
  // Always the machine's interval: fake timers that run until none is left would run this one for ever.
  readonly #timer: NodeJS.Timeout = machineInterval(() => {}, longestDelayMs).unref();

  hold(): void {
    if (this.#holders++ === 0) this.#timer.ref();
  }

  drop(): void {
    if (--this.#holders === 0) this.#timer.unref();
  }
}

let anchor: Anchor | undefined;

/** The one anchor of the process, made when somebody first waits. */
export function processAnchor(): { hold(): void; drop(): void } {
  anchor ??= new Anchor();
  return anchor;
}
