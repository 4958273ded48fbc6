import type { Lease } from "../../../src/contract.ts";
import type { Caller } from "./callers.ts";
import { configure, giveBack } from "./commands.ts";
import { SimConn } from "./conn.ts";
import { keys, longestPauseMs } from "./plan.ts";
import type { World } from "./world.ts";

/** Within this, every caller must have settled once the faults have stopped: some pauses, and dials of 5 ms each. */
const budgetMs = 10 * longestPauseMs;

/**
 * Liveness: when the faults stop, every caller settles within its budget, and the pool's capacity is whole again: as
 * many leases as the limits of a key allow can be had at once.
 */
export async function heal(world: World): Promise<void> {
  const { machine, mischief } = world;
  mischief.suspended++;
  world.healed = true;
  liftHopeless(world);
  for (const conn of world.conns) repair(world, conn);
  for (const dial of world.dialing()) machine.after(5, dial.arrive);
  const end = machine.now() + budgetMs;
  for (;;) {
    await machine.settle();
    while (world.held.length > 0) giveBack(world, 0, "release");
    for (const conn of world.conns) for (const call of conn.calls) call.end();
    await machine.settle();
    look(world);
    if (machine.now() >= end - budgetMs / 2) makeWay(world);
    const left = world.callers.filter(({ state }) => state !== "done");
    if (left.length === 0 && world.held.length === 0) break;
    if (machine.now() >= end) {
      const names = left.map(({ id, kind, key }) => `${kind} ${id} of ${key}`);
      world.violate(`${budgetMs} ms after the last fault, these still wait: ${names.join(", ")}`);
      return;
    }
    await machine.advance(machine.now() + 50 < end ? 50 : end - machine.now());
  }
  for (const key of keys) await fill(world, key);
  mischief.suspended--;
}

/** Callers who ask and get nothing. They make the pool look at conns that have changed without telling it. */
function look(world: World): void {
  for (const key of keys) {
    const lease = world.pool.tryAcquire(key);
    lease?.release();
    const id = world.callers.length;
    const outcome = lease === undefined ? "failed" : "served";
    world.callers.push({ ...extra, id, key, kind: "try", since: world.machine.now(), state: "done", outcome });
  }
}

/** A caller whose filter none of its key's conns passes waits until one of them goes, where there may be no more of them. */
function makeWay(world: World): void {
  for (const key of keys) {
    const picky = world.callers.some(
      (caller) => caller.key === key && caller.state !== "done" && caller.color !== undefined,
    );
    if (!picky) continue;
    for (const conn of world.open(key)) conn.die();
  }
}

/** Limits under which nobody could ever be served. */
function liftHopeless(world: World): void {
  const { rules } = world;
  const hopeless = (name: "maxStreams" | "maxKeyDials" | "maxKeyConns"): boolean =>
    keys.some((key) => rules.of(key, name) === 0);
  const limits = {
    ...(rules.total("maxConns") === 0 ? { maxConns: 1 } : {}),
    ...(rules.total("maxDials") === 0 ? { maxDials: 1 } : {}),
    ...(hopeless("maxStreams") ? { maxStreams: 1 } : {}),
    ...(hopeless("maxKeyDials") ? { maxKeyDials: 1 } : {}),
    ...(hopeless("maxKeyConns") ? { maxKeyConns: 1 } : {}),
    maxWaiters: 100,
  };
  if (Object.keys(limits).length === 1 && keys.every((key) => rules.of(key, "maxWaiters") > 3)) return;
  configure(world, limits, undefined);
  const { maxConns: _conns, maxDials: _dials, ...keyLimits } = limits;
  for (const key of keys) configure(world, keyLimits, key);
}

/** The peer of a conn behaves again. */
function repair(world: World, conn: SimConn): void {
  world.blockedTooLong(conn);
  conn.endBlock();
  conn.wasSilent ||= conn.silent;
  conn.silent = false;
  if (conn.slots === 0) conn.slots = 1;
  conn.mostSlots = Math.max(conn.mostSlots, conn.slots ?? 1);
  if (conn.closes > 0) conn.die();
  else if (conn.open && conn.leaving)
    conn.die(); // a peer that said GOAWAY hangs up in the end
  else if (conn.open && conn.notifies) conn.changed();
  if (conn.dead && conn.diedIn > world.burst) conn.diedIn = world.burst;
}

/** Takes all that the key may have at once, and gives it back. */
async function fill(world: World, key: string): Promise<void> {
  const { machine, rules, pool } = world;
  const most = Math.min(rules.total("maxConns"), rules.of(key, "maxKeyConns"), 3);
  const leases: Lease<unknown>[] = [];
  for (let wanted = 1; wanted <= most; wanted++) {
    let lease: Lease<unknown> | undefined;
    let error: unknown;
    pool.acquire(key, { dial: world.dial, waitForReady: true, timeoutMs: budgetMs }).then(
      (got) => {
        lease = got;
      },
      (reason: unknown) => {
        error = reason;
      },
    );
    const caller: Caller = { ...extra, id: world.callers.length, key, since: machine.now() };
    world.callers.push(caller);
    for (let waited = 0; lease === undefined && error === undefined && waited <= budgetMs; waited += 50) {
      await machine.settle();
      if (lease === undefined && error === undefined) await machine.advance(50);
    }
    caller.state = "done";
    caller.outcome = lease === undefined ? "failed" : "served";
    if (lease === undefined) {
      world.violate(`the capacity is not whole: ${leases.length} of ${most} leases of ${key}, then ${String(error)}`);
      return;
    }
    hold(lease, 1);
    leases.push(lease);
  }
  for (const lease of leases) {
    hold(lease, -1);
    lease.release();
  }
  await machine.settle();
}

const extra = {
  kind: "acquire",
  color: undefined,
  dials: true,
  timeoutMs: undefined,
  abort: undefined,
  waitForReady: true,
  late: true,
  state: "waiting",
  outcome: undefined,
  maybeTried: false,
  resends: false,
  resent: false,
  servedIn: -1,
} as const;

function hold({ conn }: Lease<unknown>, by: 1 | -1): void {
  if (!(conn instanceof SimConn)) return;
  conn.leases += by;
  if (by < 0) conn.streamEnded(undefined, undefined);
}
