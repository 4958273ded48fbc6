import type { Conn, Lease } from "../../../src/contract.ts";
import { isPoolError } from "../../../src/errors.ts";
import type { Limits } from "../../../src/options.ts";
import { StressConn } from "./conn.ts";
import { type Ask, keys } from "./plan.ts";
import type { World } from "./world.ts";

/** One thing that happens. The numbers choose whom it happens to, and how, so that runs can be shrunk. */
export interface Action {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly limits: Limits;
}

export const keyOf = ({ a }: Action): string => keys[a % keys.length] ?? "a";
export const bit = (value: number, place: number): boolean => ((value >> place) & 1) === 1;

export function makeAsk(world: World, action: Action, kind: Ask["kind"]): Ask {
  const { b, c } = action;
  const asked: Ask = {
    id: world.asks.length,
    key: keyOf(action),
    kind,
    color: bit(b, 0) && bit(b, 1) ? c % 2 : undefined,
    dials: world.plan.ownDial || !(bit(b, 2) && bit(c, 0)),
    timeoutMs: bit(c, 1) && bit(c, 2) ? 5 + 7 * b : undefined,
    abort: bit(b, 1) ? new AbortController() : undefined,
    since: world.clock.now(),
    state: "waiting",
    maybeTried: false,
    resends: false,
    resent: false,
    grantedIn: -1,
  };
  world.asks.push(asked);
  return asked;
}

export const filterOf = ({ color }: Ask) =>
  color === undefined ? undefined : (conn: Conn) => conn.tags?.["color"] === color;

export function optionsOf(world: World, asked: Ask, action: Action) {
  return {
    dial: asked.dials && (!world.plan.ownDial || bit(action.b, 2)) ? world.dial : undefined,
    filter: filterOf(asked),
    signal: asked.abort?.signal,
    timeoutMs: asked.timeoutMs,
    waitForReady: bit(action.c, 0),
  };
}

/** The request has failed, or its RPC has ended; what may be known about why is checked. */
export function ended(world: World, asked: Ask, error?: unknown): void {
  const waited = asked.state === "waiting";
  asked.state = "done";
  if (!waited) return;
  if (error === undefined) world.violate(`request ${asked.id} ended before it had a conn`);
  if (asked.abort?.signal.aborted && error === asked.abort.signal.reason) return;
  if (!isPoolError(error)) {
    world.violate(`request ${asked.id} failed with ${String(error)}`);
    return;
  }
  const { code, message } = error;
  const waitedMs = world.clock.now() - asked.since;
  const limitMs = Math.min(asked.timeoutMs ?? Number.POSITIVE_INFINITY, world.rules.of(asked.key, "waitTimeoutMs"));
  if (code === "ERR_POOL_BUG") world.violate(message);
  if (code === "ERR_POOL_CLOSED" && !world.closing) world.violate(`request ${asked.id} failed: ${message}`);
  if (code === "ERR_POOL_WAIT_TIMEOUT" && !world.rules.changed && waitedMs < limitMs) {
    world.violate(`request ${asked.id} timed out after ${waitedMs} ms of ${limitMs}`);
  }
  if (code === "ERR_POOL_QUEUE_FULL" && !world.rules.changed) {
    const before = world.waiting(asked.key).filter(({ id }) => id < asked.id).length;
    const left = world.asks.filter((other) => other.key === asked.key && other.grantedIn === world.burst).length;
    const gone = world.asks.filter((other) => other.key === asked.key && other.state === "done").length;
    if (before + left + gone < world.rules.of(asked.key, "maxWaiters")) {
      world.violate(`request ${asked.id} was refused behind ${before}`);
    }
  }
}

export function leased(world: World, asked: Ask | undefined, lease: Lease<Conn>): void {
  const { conn } = lease;
  if (!(conn instanceof StressConn)) throw new Error("a lease on a strange conn");
  conn.leases++;
  const entry: Ask = asked ?? { ...blank, key: conn.key };
  entry.state = "granted";
  entry.grantedIn = world.burst;
  world.held.push({ ask: entry, lease, end: undefined, conn });
  world.granted(conn, asked);
}

const blank: Ask = {
  id: -1,
  key: "",
  kind: "acquire",
  color: undefined,
  dials: false,
  timeoutMs: undefined,
  abort: undefined,
  since: 0,
  state: "done",
  maybeTried: false,
  resends: false,
  resent: false,
  grantedIn: -1,
};

export function follow(promise: Promise<unknown>, world: World, asked: Ask): void {
  promise.then(
    () => ended(world, asked),
    (error: unknown) => ended(world, asked, error),
  );
}
