import type { Lease } from "../../../src/contract.ts";
import type { SimConn } from "./conn.ts";

/** How a request for a lease ends. */
export type Outcome = "served" | "timedOut" | "refused" | "aborted" | "failed" | "closed" | "faulted";

/** Somebody who asks the pool for a lease, by whichever method. */
export interface Caller {
  readonly id: number;
  readonly key: string;
  readonly kind: "invoke" | "stream" | "acquire" | "use" | "warm" | "try";
  /** Its filter passes conns of this color only. */
  readonly color: number | undefined;
  /** It has a dial function, its own or the pool's. */
  readonly dials: boolean;
  readonly timeoutMs: number | undefined;
  readonly abort: AbortController | undefined;
  readonly waitForReady: boolean;
  readonly since: number;
  /** Its signal had aborted before it asked. */
  readonly late: boolean;
  state: "waiting" | "warming" | "served" | "done";
  outcome: Outcome | undefined;
  /** A conn may have been dialed for it that it could not use. */
  maybeTried: boolean;
  /** Its RPC is sent again if it was not sent. */
  resends: boolean;
  /** It may be in line a second time: its place is not its age. */
  resent: boolean;
  /** The burst of commands in which it was served. */
  servedIn: number;
}

/** A lease that a caller holds, or a `use` that runs. */
export interface Held {
  readonly caller: Caller;
  readonly lease: Lease<unknown> | undefined;
  readonly end: (() => void) | undefined;
  readonly conn: SimConn;
}

/** A dial that the pool has begun. */
export interface SimDial {
  readonly key: string;
  readonly signal: AbortSignal;
  readonly arrive: () => void;
  readonly fail: (final: boolean) => void;
  settled: boolean;
}
