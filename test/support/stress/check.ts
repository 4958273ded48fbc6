import type { StressConn } from "./conn.ts";
import { type Ask, keys, longestBackoffMs } from "./plan.ts";
import type { World } from "./world.ts";

/** Looks at everything that must hold whenever nothing is left to settle. */
export function check(world: World): void {
  for (const conn of world.conns) checkConn(world, conn);
  for (const key of keys) checkKey(world, key);
  checkTotals(world);
  for (const asked of world.waiting()) checkAsk(world, asked);
  if (!world.closing) checkStats(world);
}

/** A new group of actions begins: what was true until now is known to the pool. */
export function nextBurst(world: World): void {
  world.burst++;
  for (const conn of world.conns) conn.peakSlots = world.slots(conn);
}

function checkConn(world: World, conn: StressConn): void {
  const name = `conn ${conn.id} of ${conn.key}`;
  if (!conn.held && !conn.taken && !conn.dead && conn.closes !== 1) {
    world.violate(`${name} is nobody's, and was closed ${conn.closes} times`);
  }
  if (conn.subscriptions > 1) world.violate(`${name} has ${conn.subscriptions} listeners`);
  if (!conn.open || conn.running > 0) return;
  const now = world.clock.now();
  if (conn.mustDrain) world.violate(`${name} must drain, runs nothing, and is open`);
  if (world.closing) world.violate(`${name} runs nothing, and is open after close()`);
  if (world.keepsIdle()) return;
  if (world.lifetimeOver(conn, 1) && world.configuredAt < now)
    world.violate(`${name} runs nothing, and has outlived itself`);
  const expirationMs = world.rules.of(conn.key, "expirationMs");
  if (now - conn.idleSince > expirationMs * 1.25 + 1) world.violate(`${name} should have expired`);
}

/** How long the pool pauses by itself before it dials again. */
const longestPaceMs = 1000;

function mayPause(world: World, key: string): boolean {
  const failedAt = world.failedAt.get(key);
  if (failedAt === undefined) return false;
  return (
    world.failedIn.get(key) === world.burst || world.clock.now() - failedAt <= Math.max(longestPaceMs, longestBackoffMs)
  );
}

/** A key that fails is remembered for the longest pause after its last one, and again while a dial is in flight. */
function mayRemember(world: World, key: string): boolean {
  const failedAt = world.failedAt.get(key);
  if (failedAt === undefined || mayPause(world, key)) return failedAt !== undefined;
  return world.clock.now() - failedAt <= 4 * Math.max(longestPaceMs, longestBackoffMs);
}

/** A conn that can carry one more stream, and that the pool knows to be so. */
function free(world: World, conn: StressConn): boolean {
  const fit = !world.mayDrain(conn) && !conn.draining && !conn.blocked && !conn.answerPending && !conn.changedSilently;
  return fit && conn.running < world.slots(conn);
}

/** A dial for these has brought what they cannot use: they are not dialed for again. */
function markTried(world: World, key: string, waiting: readonly Ask[]): void {
  const unsuited = world.unsuited.get(key);
  for (const asked of unsuited?.burst === world.burst ? waiting : []) {
    if (unsuited?.all || asked.color !== undefined) asked.maybeTried = true;
  }
}

function checkKey(world: World, key: string): void {
  const { rules } = world;
  const open = world.open(key);
  const dialing = world.dialing(key).length;
  const waiting = world.waiting(key);
  const idle = open.filter(({ running }) => running === 0).length;
  if (idle > rules.of(key, "keyCapacity")) world.violate(`${idle} idle conns of ${key}`);
  const background = world.keepsIdle() || world.warmed.has(key);
  if (!background && dialing > waiting.filter(({ dials }) => dials).length) {
    world.violate(`${dialing} dials of ${key} for ${waiting.length} requests`);
  }
  const sure = open.filter((conn) => !world.mayDrain(conn)).length + dialing;
  if (sure > rules.of(key, "maxKeyConns")) world.violate(`${sure} conns of ${key}`);
  const oldest = waiting.find(({ color, resent }) => color === undefined && !resent);
  const served = world.asks.find(
    (asked) => asked.grantedIn === world.burst && asked.key === key && asked.id > (oldest?.id ?? 1e9),
  );
  if (served !== undefined && oldest !== undefined) {
    world.violate(`request ${served.id} was served before ${oldest.id}, which waits for ${key} too`);
  }
  const unused = open.find((conn) => free(world, conn));
  if (oldest !== undefined && unused !== undefined)
    world.violate(`request ${oldest.id} waits beside conn ${unused.id}, which is free`);
  markTried(world, key, waiting);
  if (dialing > 0 || mayPause(world, key) || rules.of(key, "maxKeyDials") === 0) return;
  const wants = waiting.find(({ dials, maybeTried }) => dials && !maybeTried);
  if (wants === undefined || open.length >= rules.of(key, "maxKeyConns")) return;
  const total = world.open().length + world.dialing().length;
  if (total < rules.total("maxConns")) world.violate(`request ${wants.id} waits for ${key}, and nothing is dialed`);
  const victim = world.open().find((conn) => conn.key !== key && conn.running === 0);
  if (victim !== undefined)
    world.violate(`request ${wants.id} waits for ${key} while conn ${victim.id} idles in another`);
}

function checkTotals(world: World): void {
  const { rules } = world;
  const open = world.open();
  const idle = open.filter(({ running }) => running === 0).length;
  if (idle > rules.total("capacity")) world.violate(`${idle} idle conns`);
  const sure = open.filter((conn) => !world.mayDrain(conn)).length + world.dialing().length;
  if (sure > rules.total("maxConns")) world.violate(`${sure} conns`);
}

function checkAsk(world: World, asked: Ask): void {
  const name = `request ${asked.id}`;
  const waited = world.clock.now() - asked.since;
  if (world.closing) world.violate(`${name} waits after close()`);
  if (asked.abort?.signal.aborted) world.violate(`${name} waits although its caller has aborted`);
  if (asked.timeoutMs !== undefined && !asked.resent && waited > asked.timeoutMs)
    world.violate(`${name} waits after its timeout`);
}

/** What the pool says of itself must be what the conns say. */
function checkStats(world: World): void {
  for (const key of [undefined, ...keys]) {
    const stats = world.pool.stats(key);
    const open = world.open(key);
    const counted = {
      open: open.length,
      dialing: world.dialing(key).length,
      idle: open.filter(({ running }) => running === 0).length,
      streams: open.reduce((sum, { running }) => sum + running, 0),
      waiting: world.waiting(key).length,
    };
    for (const name of ["open", "dialing", "idle", "streams", "waiting"] as const) {
      if (stats[name] !== counted[name]) {
        world.violate(`${name} of ${key ?? "all keys"}: the pool says ${stats[name]}, counted are ${counted[name]}`);
      }
    }
    if (stats.draining > open.filter((conn) => world.mayDrain(conn)).length)
      world.violate(`${stats.draining} conns drain`);
    if (stats.leased !== stats.open - stats.idle - stats.draining) world.violate("leased conns do not add up");
  }
  const known = new Set(world.pool.keys());
  for (const key of keys) {
    const used =
      world.open(key).length + world.dialing(key).length + world.waiting(key).length > 0 || world.warming(key);
    if (used && !known.has(key)) world.violate(`key ${key} is unknown, and in use`);
    if (!used && known.has(key) && !mayRemember(world, key)) world.violate(`key ${key} is empty, and kept`);
  }
}
