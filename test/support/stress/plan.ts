import type { Conn, Lease } from "../../../src/contract.ts";
import type { Limits } from "../../../src/options.ts";
import type { Deferred } from "../conn.ts";
import type { StressConn } from "./conn.ts";

export const keys = ["a", "b", "c", "d"] as const;
/** Every backoff and wait of the test ends within this. */
export const longestBackoffMs = 50;

export type DialMode = "later" | "never" | "at once" | "soon" | "throws" | "rejects" | "final" | "dead" | "garbage";
export type CloseMode = "closes" | "throws" | "rejects" | "hangs";

/** All that is random about a run, but the actions. */
export interface Plan {
  readonly limits: Limits;
  readonly selection: "oldest" | "newest" | "least-loaded";
  /** The pool has a dial function, so that it may dial by itself. */
  readonly ownDial: boolean;
  /** How the dials go, one after the other, again from the start after the last. */
  readonly dials: readonly DialMode[];
  readonly closes: readonly CloseMode[];
  /** Slots of the conns; undefined: exclusive. */
  readonly slots: readonly (number | undefined)[];
  /** What the dial functions announce. */
  readonly announced: number | undefined;
  readonly notifies: boolean;
  readonly lifetimes: readonly (number | undefined)[];
}

/** A request of the test: for an RPC or for a lease. */
export interface Ask {
  readonly id: number;
  readonly key: string;
  readonly kind: "invoke" | "stream" | "acquire" | "use" | "warm";
  readonly color: number | undefined;
  readonly dials: boolean;
  readonly timeoutMs: number | undefined;
  readonly abort: AbortController | undefined;
  readonly since: number;
  state: "waiting" | "warming" | "granted" | "done";
  /** A conn may have been dialed for it that it could not use. */
  maybeTried: boolean;
  /** It will be sent again if it was not sent. */
  resends: boolean;
  /** It may be sent twice: its place in the line is not its age. */
  resent: boolean;
  grantedIn: number;
}

/** A dial in flight. */
export interface StressDial {
  readonly key: string;
  readonly signal: AbortSignal;
  readonly result: Deferred<Conn>;
  readonly mode: DialMode;
  settled: boolean;
}

export interface Held {
  readonly ask: Ask;
  readonly lease: Lease<Conn> | undefined;
  readonly end: Deferred<void> | undefined;
  readonly conn: StressConn;
}
