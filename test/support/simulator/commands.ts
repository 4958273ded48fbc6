import type { Conn, Lease } from "../../../src/contract.ts";
import { ConnClosedError, isPoolError } from "../../../src/errors.ts";
import type { Limits } from "../../../src/options.ts";
import { echo } from "../conn.ts";
import type { Caller, Held, Outcome } from "./callers.ts";
import { SimConn } from "./conn.ts";
import { atGrant } from "./invariants.ts";
import { type Command, keys } from "./plan.ts";
import { trace } from "./trace.ts";
import { possible, type World } from "./world.ts";

/** What a command says, without when. */
export type Act = Pick<Command, "a" | "b" | "c" | "limits">;

export const keyOf = ({ a }: Pick<Act, "a">): string => keys[[0, 0, 0, 0, 1, 1, 2, 3][a % 8] ?? 0] ?? "a";
const bit = (value: number, place: number): boolean => ((value >> place) & 1) === 1;

function pick<T>(from: readonly T[], index: number): T | undefined {
  return from[index % from.length];
}

function makeCaller(world: World, { a, b, c }: Act, kind: Caller["kind"]): Caller {
  const { plan } = world;
  const aborts = bit(b, 1);
  const shared = aborts && plan.sharedSignals;
  const abort = shared ? sharedSignal(world, c % 2) : aborts ? new AbortController() : undefined;
  const caller: Caller = {
    id: world.callers.length,
    key: keyOf({ a }),
    kind,
    color: bit(b, 0) && bit(b, 1) ? c % 2 : undefined,
    dials: plan.ownDial || !(bit(b, 2) && bit(c, 0)),
    timeoutMs: bit(c, 1) && bit(c, 2) ? 5 + 7 * b : undefined,
    abort,
    waitForReady: bit(c, 0),
    since: world.machine.now(),
    late: abort?.signal.aborted === true,
    state: kind === "warm" ? "warming" : "waiting",
    outcome: undefined,
    maybeTried: false,
    resends: false,
    resent: false,
    servedIn: -1,
  };
  world.callers.push(caller);
  trace(() => `${kind} ${caller.id} of ${caller.key} asks${shared ? " with a shared signal" : ""}`);
  return caller;
}

function sharedSignal(world: World, index: number): AbortController {
  const known = world.signals[index];
  if (known !== undefined && !known.signal.aborted) return known;
  const fresh = new AbortController();
  world.signals[index] = fresh;
  return fresh;
}

function optionsOf(world: World, caller: Caller, { b }: Act) {
  const { color, timeoutMs, waitForReady, dials } = caller;
  return {
    dial: dials && (!world.plan.ownDial || bit(b, 2)) ? world.dial : undefined,
    filter: color === undefined ? undefined : filterOf(world, color),
    signal: caller.abort?.signal,
    timeoutMs,
    waitForReady,
  };
}

function filterOf(world: World, color: number) {
  return (conn: Conn): boolean => {
    world.mischief.callback();
    return conn.tags?.["color"] === color;
  };
}

const codes: Readonly<Record<string, Outcome>> = {
  ERR_POOL_WAIT_TIMEOUT: "timedOut",
  ERR_POOL_QUEUE_FULL: "refused",
  ERR_POOL_CLOSED: "closed",
  ERR_POOL_DIAL: "failed",
  ERR_POOL_DIAL_TIMEOUT: "failed",
  ERR_POOL_NO_CONN: "failed",
  ERR_POOL_NO_MATCH: "failed",
};

/** What an error says of how the wait has ended. */
function outcomeOf(world: World, { abort }: Caller, error: unknown): Outcome | undefined {
  if (abort?.signal.aborted && error === abort.signal.reason) return "aborted";
  if (isPoolError(error)) return codes[error.code];
  return world.mischief.threw(error) ? "faulted" : undefined;
}

/** The caller's wait has failed, or its RPC has ended; what may be known about why is checked. */
function ended(world: World, caller: Caller, error?: unknown): void {
  const waited = caller.state === "waiting";
  caller.state = "done";
  if (!waited) return;
  const { id, key, timeoutMs, since } = caller;
  if (error === undefined && world.strict) world.violate(`caller ${id} ended before it had a conn`);
  const outcome = outcomeOf(world, caller, error);
  caller.outcome = outcome ?? "faulted";
  trace(() => `${caller.kind} ${id} of ${key} ended: ${caller.outcome}`);
  if (outcome === undefined) {
    const why = isPoolError(error) ? error.message : String(error);
    world.violate(`caller ${id} failed with what no caller should see: ${why}`);
  }
  if (outcome === "closed" && !world.closing) world.violate(`caller ${id} was told that the pool is closed`);
  const waitedMs = world.machine.now() - since;
  const limitMs = Math.min(timeoutMs ?? Number.POSITIVE_INFINITY, world.rules.of(key, "waitTimeoutMs"));
  if (outcome === "timedOut" && !world.rules.changed && waitedMs < limitMs)
    world.violate(`caller ${id} timed out after ${waitedMs} ms of ${limitMs}`);
  if (outcome === "refused" && !world.rules.changed && world.strict) checkRefused(world, caller);
}

function checkRefused(world: World, { id, key, resent }: Caller): void {
  if (resent) return; // those before it may be younger
  const others = world.callers.filter((other) => other.key === key && other.id !== id && other.kind !== "warm");
  // Those who have left since may have been before it in the line.
  const before = others.filter(({ id: of, state }) => state === "done" || of < id).length;
  if (before < world.rules.of(key, "maxWaiters")) world.violate(`caller ${id} was refused behind ${before}`);
}

function served(
  world: World,
  caller: Caller,
  conn: unknown,
  lease: Lease<unknown> | undefined,
  end?: () => void,
): void {
  if (!(conn instanceof SimConn)) throw new Error("a lease on a strange conn");
  conn.leases++;
  caller.state = "served";
  caller.outcome = "served";
  caller.servedIn = world.burst;
  world.held.push({ caller, lease, end, conn });
  trace(() => `${caller.kind} ${caller.id} has ${conn.name}`);
  atGrant(world, conn, caller);
  conn.uses++;
}

function follow(promise: Promise<unknown>, world: World, caller: Caller): void {
  promise.then(
    () => ended(world, caller),
    (error: unknown) => ended(world, caller, error),
  );
}

/** Runs what may throw where a callback of the world does. */
function guarded<T>(world: World, use: () => T): T | undefined {
  try {
    return use();
  } catch (error) {
    if (world.mischief.threw(error)) return undefined;
    const closed = isPoolError(error) && error.code === "ERR_POOL_CLOSED";
    if (!closed || !world.closing) world.violate(`a method threw ${String(error)}`);
    return undefined;
  }
}

export function giveBack(world: World, index: number, how: "release" | "discard"): void {
  const { held } = world;
  const [entry]: Held[] = held.length === 0 ? [] : held.splice(index % held.length, 1);
  if (entry === undefined) return;
  const { conn, lease, end, caller } = entry;
  caller.state = "done";
  conn.leases--;
  conn.streamEnded(undefined, undefined);
  end?.();
  if (lease === undefined) return;
  if (how === "discard") {
    conn.discarded = true;
    world.drains(conn);
    lease.discard(new Error("broken"));
  } else lease.release();
  if (index % 3 === 0) lease.release(); // idempotent
}

function block(world: World, conn: SimConn): void {
  conn.beginBlock();
  conn.blockedSince = Math.min(conn.blockedSince, world.burst);
}

function put(world: World, conn: SimConn): void {
  const { givenAt, taken } = conn;
  world.prepare(conn);
  if (taken) conn.givenAt = givenAt; // it keeps its age
  conn.taken = false;
  conn.given = false; // until the pool has accepted it
  conn.putting = true;
  let answer: boolean | undefined;
  try {
    answer = world.pool.put(conn.key, conn);
  } catch (error) {
    conn.putting = false;
    conn.doubtful = true;
    // A property that throws makes it no conn: the pool leaves it to its owner.
    if (world.strict) world.violate(`put threw ${String(error)}`);
    if (conn.closes === 0) conn.die();
    return;
  }
  trace(() => `${conn.name} is put: ${answer}`);
  conn.putting = false;
  conn.given = answer;
  if (!answer && !conn.dead && !conn.taken && conn.closes !== 1)
    world.violate(`${conn.name} was refused and not closed`);
}

const dialOf = (world: World, index: number) => pick(world.dialing(), index);

export const commands = {
  acquire(world, act) {
    const caller = makeCaller(world, act, "acquire");
    world.pool.acquire(caller.key, optionsOf(world, caller, act)).then(
      (lease) => served(world, caller, lease.conn, lease),
      (error: unknown) => ended(world, caller, error),
    );
  },
  use(world, act) {
    const caller = makeCaller(world, act, "use");
    const run = (conn: Conn): Promise<void> =>
      new Promise((resolve, reject) => {
        const end = act.a % 5 === 0 ? () => reject(new Error("the user's function failed")) : resolve;
        served(world, caller, conn, undefined, end);
      });
    follow(world.pool.use(caller.key, run, optionsOf(world, caller, act)), world, caller);
  },
  invoke(world, act) {
    const caller = makeCaller(world, act, "invoke");
    const plain = caller.color === undefined && caller.dials && act.c < 4;
    const { dial, filter, signal, timeoutMs, waitForReady } = optionsOf(world, caller, act);
    const retryUnsent = !plain && bit(act.c, 2);
    caller.resends = retryUnsent;
    const { pool, handles } = world;
    const made = guarded(world, () =>
      dial ? pool.get(caller.key, dial, { filter, retryUnsent }) : pool.get(caller.key, { filter, retryUnsent }),
    );
    const handle = (plain ? handles.get(caller.key) : undefined) ?? made;
    if (handle === undefined) {
      caller.state = "done";
      caller.outcome = "faulted";
      return;
    }
    if (plain) handles.set(caller.key, handle);
    const metadata = { caller: String(caller.id) };
    follow(handle.invoke(echo, "hello", { signal, timeoutMs, waitForReady, metadata }), world, caller);
  },
  stream(world, act) {
    const caller = makeCaller(world, act, "stream");
    const { dial, filter, signal, timeoutMs, waitForReady } = optionsOf(world, caller, act);
    const { pool } = world;
    const handle = guarded(world, () =>
      dial ? pool.get(caller.key, dial, { filter }) : pool.get(caller.key, { filter }),
    );
    if (handle === undefined) {
      caller.state = "done";
      caller.outcome = "faulted";
      return;
    }
    const metadata = { caller: String(caller.id) };
    const done = handle.newStream(echo, { signal, timeoutMs, waitForReady, metadata }).then(async (stream) => {
      if (bit(act.c, 2)) for await (const _ of stream);
      await stream.closed;
    });
    follow(done, world, caller);
  },
  warm(world, act) {
    const caller = makeCaller(world, act, "warm");
    world.warmed.add(caller.key);
    const settled = (): void => {
      caller.state = "done";
    };
    world.pool.warm(caller.key, 1 + (act.c % 3), optionsOf(world, caller, act)).then(settled, settled);
  },
  tryAcquire(world, act) {
    if (world.closing) return;
    const caller = makeCaller(world, { ...act, b: 0, c: 0 }, "try");
    const lease = guarded(world, () => world.pool.tryAcquire(caller.key));
    caller.state = "done";
    caller.outcome = lease === undefined ? "failed" : "served";
    if (lease !== undefined) served(world, caller, lease.conn, lease);
  },
  release: (world, { a }) => giveBack(world, a, "release"),
  discard: (world, { a }) => giveBack(world, a, "discard"),
  answer(world, { a }) {
    const call = pick(calls(world), a);
    if (call !== undefined) call.conn.bytes++;
    call?.end();
  },
  fail(world, { a, b }) {
    pick(calls(world), a)?.end(bit(b, 0) ? new ConnClosedError("died", false) : new Error("the RPC failed"));
  },
  abort(world, { a, b }) {
    const open = world.callers.filter(({ abort, state }) => abort && !abort.signal.aborted && state !== "done");
    const caller = pick(open, a);
    const id = String(caller?.id);
    const call = calls(world).find(({ options }) => options?.metadata?.["caller"] === id);
    if (call?.conn.open && bit(b, 0)) block(world, call.conn);
    caller?.abort?.abort(new Error("the caller aborts"));
  },
  arrive: (world, { a }) => dialOf(world, a)?.arrive(),
  failDial: (world, { a, b }) => dialOf(world, a)?.fail(b === 0),
  arriveLate(world, { a }) {
    const late = world.dials.filter(({ settled, signal }) => !settled && signal.aborted);
    pick(late, a)?.arrive();
  },
  die(world, { a }) {
    const conn = pick([...world.open(), ...world.taken], a);
    if (conn === undefined) return;
    conn.unfitSince = Math.min(conn.unfitSince, world.burst);
    conn.diedIn = world.burst;
    conn.die();
    world.gaveUp(conn.key); // that is how the pool sees it if it had just been dialed
  },
  goaway(world, { a, b }) {
    const conn = pick(world.open(), a);
    if (conn === undefined) return;
    conn.leaving = true;
    conn.mayDrain = true;
    conn.unfitSince = Math.min(conn.unfitSince, world.burst);
    world.gaveUp(conn.key); // as above
    if (!bit(b, 0) || !conn.notifies) return;
    world.drains(conn);
    conn.changed();
  },
  slots(world, { a, b }) {
    const conn = pick(world.open(), a);
    if (conn === undefined) return;
    if (conn.slots === undefined) return; // a conn that does not say never will
    conn.slots = b;
    if (b === 0) world.unsuited.set(conn.key, { burst: world.burst, all: true });
    conn.mostSlots = Math.max(conn.mostSlots, b);
    if (conn.notifies) conn.changed();
    else conn.doubtful = true;
  },
  silence(world, { a }) {
    const conn = pick(world.open(), a);
    if (conn !== undefined) conn.silent = true;
  },
  block(world, { a }) {
    const used = world.open().filter(({ endedStreams }) => endedStreams > 0);
    const conn = pick(used, a);
    if (conn !== undefined) block(world, conn);
  },
  unblock(world, { a, b }) {
    const blocked = world.conns.filter(({ block: blocked }) => blocked !== undefined);
    const conn = pick(blocked, a);
    if (conn === undefined) return;
    const error = b === 0 ? new Error("still blocked, and will be") : undefined;
    if (error !== undefined && conn.askPending && conn.open) world.drains(conn);
    world.blockedTooLong(conn);
    conn.endBlock(error);
  },
  put: (world, act) => put(world, world.makeConn(keyOf(act))),
  take(world, act) {
    world.taking++;
    const conn = guarded(world, () => world.pool.take(keyOf(act)));
    world.taking--;
    if (!(conn instanceof SimConn)) return;
    const unfit = !conn.open || conn.running > 0 || conn.unfitSince < world.burst || conn.blockedSince < world.burst;
    if (unfit && !conn.doubtful && !conn.putting && conn.diedIn !== world.burst)
      world.violate(`take gave ${conn.name}, which is not free`);
    trace(() => `${conn.name} is taken`);
    conn.taken = true;
    world.taken.push(conn);
  },
  putBack(world, { a, b }) {
    const { taken } = world;
    const [conn] = taken.length === 0 ? [] : taken.splice(a % taken.length, 1);
    if (conn === undefined) return;
    if (b === 0) conn.die();
    put(world, conn);
  },
  clear(world, act) {
    const key = act.b < 2 ? undefined : keyOf(act);
    const open = world.open(key);
    for (const conn of open) {
      conn.mayDrain = true;
      if (world.strict) world.drains(conn);
    }
    const cleared = guarded(world, () => {
      if (key === undefined) world.pool.clear();
      else world.pool.clear(key);
      return true;
    });
    if (!cleared) return; // a callback threw before anything had happened
    for (const conn of open) world.drains(conn);
    for (const conn of world.taken) if (key === undefined || conn.key === key) conn.mustDrain = true;
  },
  configure: (world, act) => configure(world, act.limits, act.b < 4 ? undefined : keyOf(act)),
  closeHandle(world, act) {
    void world.handles.get(keyOf(act))?.close();
    world.handles.delete(keyOf(act));
  },
  look(world, act) {
    guarded(world, () => world.pool.stats(act.b < 4 ? keyOf(act) : undefined));
    guarded(world, () => [...world.pool.keys()]);
  },
  advance(world, { a, b }) {
    const ms = b === 7 ? (a + 1) * 60_000 : b > 4 ? (a + 1) * 100 : (a % 8) + 1;
    return world.machine.advance(ms, 100);
  },
} satisfies Record<string, (world: World, act: Act) => void | Promise<void>>;

export type OpName = keyof typeof commands;

const calls = (world: World) => world.conns.flatMap(({ calls: running }) => [...running]);

export function configure(world: World, limits: Limits, key: string | undefined): void {
  const { capacity: _capacity, maxConns: _maxConns, maxDials: _maxDials, ...keyLimits } = limits;
  const given = possible(key === undefined ? limits : keyLimits, world.plan);
  world.configuredAt = world.machine.now();
  const undo = world.rules.configure(given, key); // before: the pool dials and closes by the new limits at once
  for (const conn of world.open()) {
    conn.mayDrain = true; // over the new limits, perhaps
    conn.idleSince = Math.max(conn.idleSince, world.machine.now());
  }
  world.configures = true;
  const done = guarded(world, () => {
    world.pool.configure(given, key);
    return true;
  });
  world.configures = false;
  if (!done) undo(); // a callback threw before anything had changed
}

/** What a callback does to the pool that calls it: all that takes no time. */
const nested: readonly OpName[] = [
  "acquire",
  "invoke",
  "stream",
  "use",
  "warm",
  "tryAcquire",
  "release",
  "release",
  "discard",
  "answer",
  "abort",
  "arrive",
  "failDial",
  "die",
  "goaway",
  "slots",
  "block",
  "unblock",
  "put",
  "take",
  "putBack",
  "clear",
  "look",
];

/** Does something random to the pool, at once. */
export function doSomething(world: World): void {
  const { random } = world.machine;
  const [first = "acquire", ...rest] = nested;
  const op = random.pick([first, ...rest]);
  trace(() => `(nested: ${op}`);
  void commands[op](world, { a: random.under(64), b: random.under(8), c: random.under(8), limits: {} });
  trace(() => `)`);
}
