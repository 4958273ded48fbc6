import { getEventListeners } from "node:events";
import type { Caller, Outcome } from "./callers.ts";
import type { SimConn } from "./conn.ts";
import { Look, type Seen } from "./look.ts";
import { keys } from "./plan.ts";
import type { World } from "./world.ts";

/** What must hold, whatever happens in whatever order. */
interface Invariant {
  readonly words: string;
  /** A stream begins on a conn, for a caller. */
  readonly grant?: (world: World, conn: SimConn, caller: Caller | undefined) => void;
  /** The pool begins a dial, which counts already. */
  readonly dial?: (world: World, key: string) => void;
  /** The pool calls `close()` of a conn. */
  readonly close?: (world: World, conn: SimConn) => void;
  /** Nothing is left to do until time passes or something happens. */
  readonly settled?: (world: World, look: Look) => void;
}

/** One that is being validated is not idle, which only the pool knows. */
const idleIn = (world: World, { idle, stats }: Seen): number => (world.plan.validates ? (stats?.idle ?? 0) : idle);

/** A conn that can carry one more stream, and that the pool knows to be so. */
function isFree(world: World, conn: SimConn): boolean {
  const unfit =
    world.mayDrain(conn) || conn.leaving || conn.block !== undefined || conn.askPending || conn.doubtful || conn.silent;
  if (conn.unanswered > 0) return false; // others may be dialed before it is used
  return !unfit && !world.plan.validates && !world.plan.resets && conn.running < world.slots(conn);
}

export const invariants: readonly Invariant[] = [
  {
    words:
      "Limits. No dial takes the pool over maxConns or maxDials, or its key over maxKeyConns or maxKeyDials; what is over them when " +
      "limits are lowered is idle nowhere. No more conns are idle than capacity and keyCapacity allow.",
    dial(world, key) {
      const { rules } = world;
      const total = world.open().length + world.dialing().length - world.taking;
      if (total > rules.total("maxConns")) world.violate(`a dial of ${key} makes ${total} conns`);
      const sure = world.open(key).filter((conn) => !world.mayDrain(conn)).length;
      const dialing = world.dialing(key).length;
      const inKey = sure + dialing - world.taking;
      const known = world.strict || !world.plan.validates; // what misbehaves in a validation drains
      if (known && inKey > rules.of(key, "maxKeyConns")) world.violate(`a dial makes ${inKey} conns of ${key}`);
      const all = world.dialing().length;
      if (all > rules.total("maxDials")) world.violate(`${all} dials`);
      if (dialing > rules.of(key, "maxKeyDials")) world.violate(`${dialing} dials of ${key}`);
      if (world.closing) world.violate(`${key} is dialed after close()`);
    },
    settled(world, look) {
      const { rules } = world;
      for (const [key, one] of look) {
        const idle = idleIn(world, one);
        if (idle > rules.of(key, "keyCapacity")) world.violate(`${idle} idle conns of ${key}`);
        const sure = one.sure + one.dialing;
        if (sure > rules.of(key, "maxKeyConns")) world.violate(`${sure} conns of ${key}`);
      }
      const idle = idleIn(world, look.all);
      if (idle > rules.total("capacity")) world.violate(`${idle} idle conns`);
      const sure = look.all.sure + look.all.dialing;
      if (sure > rules.total("maxConns")) world.violate(`${sure} conns`);
    },
  },
  {
    words: "Slots. A conn runs no more streams than it has shown slots, nor more in its life than maxUses.",
    grant(world, conn) {
      const { rules } = world;
      const slots = rules.changed ? conn.mostSlots : Math.min(conn.mostSlots, rules.of(conn.key, "maxStreams"));
      if (conn.running > slots) world.violate(`${conn.name} runs ${conn.running} streams on ${slots} slots`);
      if (!rules.changed && conn.uses >= rules.maxUses(conn.key)) world.violate(`${conn.name} is used up, and used`);
    },
  },
  {
    words:
      "Fitness. A conn that is handed out is the pool's, of the caller's key, passes its filter, and is not dead, draining, " +
      "blocked, closed, or past its lifetime, as far as the pool can know.",
    grant(world, conn, caller) {
      const { name } = conn;
      if (!(conn.given || conn.putting) || conn.taken) world.violate(`${name} is handed out, and is not the pool's`);
      if (conn.unfitSince < world.burst && !conn.doubtful) world.violate(`${name} is handed out, dead or draining`);
      if (conn.blockedSince < world.burst && !conn.doubtful) world.violate(`${name} is handed out, blocked`);
      const aged = conn.givenAt < world.machine.now() && world.configuredAt < world.machine.now();
      if (aged && !conn.doubtful && !world.keepsIdle && world.isTooOld(conn))
        world.violate(`${name} is handed out, too old`);
      if (caller !== undefined && caller.key !== conn.key) world.violate(`${name} is handed out for ${caller.key}`);
      const colored = caller?.color !== undefined && world.strict;
      if (colored && caller.color !== conn.color) world.violate(`${name} does not pass the filter`);
    },
  },
  {
    words:
      "One end. Every conn ends once, for one reason: close() is called at most once, never on one that died or that a caller " +
      "took, and always on one that the pool does not hold any more.",
    close(world, conn) {
      if (conn.closes > 1) world.violate(`${conn.name} is closed twice`);
      if (conn.taken) world.violate(`${conn.name} is closed while a caller owns it`);
      if (conn.given && conn.diedIn < world.burst) world.violate(`${conn.name} is closed, having died by itself`);
    },
    settled(world) {
      for (const conn of world.conns) {
        if (conn.given || conn.taken || conn.dead || conn.closes === 1) continue;
        world.violate(`${conn.name} is nobody's, and was closed ${conn.closes} times`);
      }
      for (const [{ name }, reasons] of world.reasons) {
        // One that was taken and put back has been the pool's twice, and left once.
        if (reasons.length > 1) world.violate(`${name} was closed as ${reasons.join(" and ")}`);
      }
    },
  },
  {
    words:
      "Nothing is cut. A conn that works is not closed under its streams before the grace of close() is over, nor without a cause.",
    close(world, conn) {
      const inGrace = world.machine.now() < world.graceEnds;
      if (conn.given && conn.running > 0 && inGrace && !conn.discarded && !conn.silent && !conn.wasSilent)
        world.violate(`${conn.name} is closed under ${conn.running} streams`);
      if (conn.given && !conn.dead && !mayClose(world, conn)) world.violate(`${conn.name} is closed without a cause`);
    },
    settled(world, look) {
      const now = world.machine.now();
      for (const conn of look.all.open) {
        if (conn.running > 0 || conn.doubtful || world.plan.validates || world.plan.resets) continue;
        if (conn.mustDrain) world.violate(`${conn.name} must drain, runs nothing, and is open`);
        if (world.closing) world.violate(`${conn.name} runs nothing, and is open after close()`);
        if (world.keepsIdle) continue;
        if (world.isTooOld(conn) && world.configuredAt < now)
          world.violate(`${conn.name} runs nothing, and has outlived itself`);
        if (now - conn.idleSince > world.rules.of(conn.key, "expirationMs") * 1.25 + 1)
          world.violate(`${conn.name} should have expired`);
      }
    },
  },
  {
    words: "Order. Within a key nobody is served before an older caller whom the same conn would have suited.",
    settled(world, look) {
      if (!world.strict) return;
      for (const [key, { waiting }] of look) {
        const oldest = waiting.find(({ color, resent }) => color === undefined && !resent);
        if (oldest === undefined) continue;
        const later = world.callers.find(
          ({ id, key: of, servedIn }) => id > oldest.id && of === key && servedIn === world.burst,
        );
        if (later !== undefined)
          world.violate(`caller ${later.id} was served before ${oldest.id}, who waits for ${key} too`);
      }
    },
  },
  {
    words:
      "No lost wake-up. Nobody waits beside a conn that is free, nor while a dial is allowed and none is in flight, nor " +
      "while another key's idle conn could make way.",
    settled(world, look) {
      if (world.strict && !world.closing) for (const key of keys) checkAwake(world, look, key);
    },
  },
  {
    words: "Every dial ends in one counter: dials = dialed + failed + abandoned + in flight; none is for nobody.",
    settled(world, look) {
      if (world.closing) return;
      const { stats } = look;
      if (stats.dials !== world.dials.length) world.violate(`${world.dials.length} dials, ${stats.dials} counted`);
      const sum = stats.dialed + stats.dialErrors + stats.abandoned + stats.dialing;
      if (sum !== stats.dials) world.violate(`${stats.dials} dials, of which ${sum} end in a counter`);
      if (world.plan.listens) {
        for (const [event, counted] of [
          ["dialed", stats.dialed],
          ["dialFailed", stats.dialErrors],
          ["abandoned", stats.abandoned],
        ] as const) {
          const heard = world.events.get(event) ?? 0;
          if (heard !== counted) world.violate(`${counted} dials are counted as ${event}, and ${heard} events say so`);
        }
      }
      for (const [key, { waiting, dialing }] of look) {
        const wanting = waiting.filter(({ dials }) => dials).length;
        // A replacement is kept though the old conn has gone for its age meanwhile.
        const aged = world.conns.some((conn) => conn.key === key && world.lifetimeOver(conn, 0.85));
        const ages = world.configuredAt > 0 || aged;
        const rotates = world.plan.ownDial && ages;
        const own = world.keepsIdle || world.warmed.has(key) || rotates;
        if (!own && dialing > wanting) world.violate(`${dialing} dials of ${key} for ${wanting} callers`);
      }
    },
  },
  {
    words:
      "Every caller ends in one counter: hits + misses = served + timed out + refused + aborted + failed + waiting, and each " +
      "of these is what the callers saw.",
    settled(world, look) {
      if (world.closing) return;
      const { stats } = look;
      const { asked, again } = look;
      const faults = world.strict ? 0 : look.faulted;
      const counted = stats.hits + stats.misses;
      if (counted > asked.all + again + faults || counted < asked.all - asked.unsure)
        world.violate(`${asked.all} callers, of whom ${stats.hits} hit and ${stats.misses} missed`);
      const { served, timeouts, refused, aborted, failed, empty, waiting } = stats;
      const ends = served + timeouts + refused + aborted + failed + empty + waiting;
      if (ends !== stats.misses) world.violate(`${stats.misses} callers missed, of whom ${ends} end in a counter`);
      checkOutcome(world, look, ["timedOut"], timeouts);
      checkOutcome(world, look, ["aborted"], aborted);
      checkOutcome(world, look, ["served"], stats.hits + served);
      // A refusal for a backoff is told by the error of the dial that failed.
      checkOutcome(world, look, ["refused", "failed"], refused + failed + empty);
    },
  },
  {
    words: "True counters. What the pool says of itself is what the conns, the dials and the callers say.",
    settled(world, look) {
      if (world.closing) return;
      for (const [key, one] of [["all keys", look.all] as const, ...look]) {
        const { stats, open, streams, dialing } = one;
        if (stats === undefined) continue;
        const own = world.plan.validates || world.plan.resets ? stats.streams : streams; // a validation is a stream
        const idle = idleIn(world, one);
        const seen = { open: open.length, dialing, streams: own, waiting: one.waiting.length, idle };
        for (const name of ["open", "dialing", "streams", "waiting", "idle"] as const) {
          if (stats[name] !== seen[name])
            world.violate(`${name} of ${key}: the pool says ${stats[name]}, the world ${seen[name]}`);
        }
        if (stats.streams < streams) world.violate(`${stats.streams} of ${streams} streams are counted`);
        if (stats.leased !== stats.open - stats.idle - stats.draining) world.violate("leased conns do not add up");
        const known = world.strict && !world.plan.validates && !world.plan.resets;
        const hasCause = (conn: SimConn) =>
          world.mayDrain(conn) || conn.leaving || world.wasPinged(conn.key, conn.givenAt); // its streams may run for long
        if (known && stats.draining > open.filter(hasCause).length)
          world.violate(`${stats.draining} conns drain without a cause`);
      }
    },
  },
  {
    words: "Nothing is left of an empty key: only what is open, dialing, waiting, warming or pausing is a key.",
    settled(world, look) {
      if (!world.strict) return;
      const known = new Set(world.pool.keys());
      for (const [key, { open, dialing, waiting }] of look) {
        const inUse = open.length + dialing + waiting.length > 0;
        const used = inUse || world.warming(key);
        if (world.closing && !inUse && known.has(key)) world.violate(`key ${key} is kept after close()`);
        if (world.closing) continue;
        if (used && !known.has(key)) world.violate(`key ${key} is unknown, and in use`);
        // With `minIdle`, a key may wait for the place of a conn that is being closed.
        const awaits = world.keepsIdle && world.closingConns > 0;
        if (!used && known.has(key) && !awaits && !world.mayPause(key, 4))
          world.violate(`key ${key} is empty, and kept`);
      }
    },
  },
  {
    words:
      "Nothing is armed that nobody needs: no timer in an empty pool, no listener on a signal whose callers are done.",
    settled(world, look) {
      const { poolTimers } = world.machine;
      if (poolTimers > 2) world.violate(`${poolTimers} timers are armed`);
      const empty =
        look.all.open.length + look.all.dialing === 0 && world.callers.every(({ state }) => state === "done");
      const calm = empty && world.closingConns === 0 && world.strict && !world.closing && !world.keepsIdle;
      if (calm && poolTimers > 0 && !keys.some((key) => world.mayPause(key, 4)))
        world.violate("a timer is armed in an empty pool");
      const awaited = new Set(world.callers.filter(({ state }) => state !== "done").map(({ abort }) => abort));
      for (const { abort, id } of world.callers) {
        if (abort === undefined || awaited.has(abort)) continue;
        const ears = getEventListeners(abort.signal, "abort").length;
        if (ears > 0) world.violate(`caller ${id} is done, and its signal has ${ears} listeners`);
      }
    },
  },
  {
    words: "Nobody waits in vain: not after close(), not after an abort, not beyond the timeout.",
    settled(world, look) {
      for (const caller of look.all.waiting) {
        const { id, abort, timeoutMs, since, resent } = caller;
        if (world.closing) world.violate(`caller ${id} waits after close()`);
        if (abort?.signal.aborted) world.violate(`caller ${id} waits, and has aborted`);
        const over = timeoutMs !== undefined && world.machine.now() - since > timeoutMs;
        if (over && !resent) world.violate(`caller ${id} waits beyond its timeout`);
      }
    },
  },
];

function checkOutcome(world: World, look: Look, outcomes: readonly Outcome[], counted: number): void {
  let [all, unsure] = [0, look.again];
  for (const outcome of outcomes) {
    const count = look.outcomes.get(outcome);
    all += count?.all ?? 0;
    unsure += count?.unsure ?? 0;
  }
  const more = world.strict ? look.again : unsure + look.faulted + look.again;
  if (counted > all + more || counted < all - unsure)
    world.violate(`${counted} callers ${outcomes.join(" or ")}, says the pool; ${all}, say the callers`);
}

/** Whether there is any cause to close a conn that works. */
function mayClose(world: World, conn: SimConn): boolean {
  const { rules, machine, plan } = world;
  const { key } = conn;
  const limits = [
    rules.total("capacity"),
    rules.total("maxConns"),
    rules.of(key, "keyCapacity"),
    rules.of(key, "maxKeyConns"),
  ];
  const told =
    world.closing ||
    conn.mustDrain ||
    conn.leaving ||
    conn.discarded ||
    conn.doubtful ||
    conn.silent ||
    conn.wasSilent ||
    conn.askPending;
  const byRule = world.keepsIdle || world.mayDrain(conn) || plan.validates || plan.resets || !world.strict;
  const expired = machine.now() - conn.idleSince >= rules.of(key, "expirationMs");
  return told || byRule || expired || Math.min(...limits) < Number.POSITIVE_INFINITY;
}

function checkAwake(world: World, look: Look, key: string): void {
  const { rules } = world;
  const { open, waiting, dialing } = look.of.get(key) ?? look.all;
  const oldest = waiting.find(({ color, resent }) => color === undefined && !resent);
  const unused = open.find((conn) => isFree(world, conn));
  if (oldest !== undefined && unused !== undefined)
    world.violate(`caller ${oldest.id} waits beside ${unused.name}, which is free`);
  // A dial for these has brought what they cannot use: they are not dialed for again.
  const unsuited = world.unsuited.get(key);
  for (const caller of unsuited?.burst === world.burst ? waiting : []) {
    if (unsuited?.all || caller.color !== undefined) caller.maybeTried = true;
  }
  if (world.plan.validates || world.plan.resets) return; // what is being asked about may be all that is wanted
  const paused = world.mayPause(key, 4);
  if (dialing > 0 || paused || rules.of(key, "maxKeyDials") === 0) return;
  const wants = waiting.find(({ dials, maybeTried }) => dials && !maybeTried);
  if (wants === undefined || open.length >= rules.of(key, "maxKeyConns")) return;
  if (look.all.dialing >= rules.total("maxDials")) return;
  // A conn counts until its socket is gone.
  const total = look.all.open.length + look.all.dialing + world.closingConns;
  if (total < rules.total("maxConns")) world.violate(`caller ${wants.id} waits for ${key}, and nothing is dialed`);
  if (world.closingConns > 0) return;
  const victim = look.all.open.find((conn) => conn.key !== key && conn.running === 0);
  if (victim !== undefined) world.violate(`caller ${wants.id} waits for ${key} while ${victim.name} idles`);
}

export function atGrant(world: World, conn: SimConn, caller: Caller | undefined): void {
  for (const { grant } of invariants) grant?.(world, conn, caller);
}

export function atDial(world: World, key: string): void {
  for (const { dial } of invariants) dial?.(world, key);
}

export function atClose(world: World, conn: SimConn): void {
  for (const { close } of invariants) close?.(world, conn);
}

/** Looks at everything that must hold whenever nothing is left to settle; `closely`: at what the pool says of each key too. */
export function whenSettled(world: World, closely: boolean = world.burst % 4 === 0): void {
  world.mischief.suspended++; // to look must change nothing
  const look = new Look(world, closely);
  for (const { settled } of invariants) settled?.(world, look);
  world.mischief.suspended--;
}
