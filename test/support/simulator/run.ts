import { Random } from "../../../src/testing/random.ts";
import { commands, doSomething, giveBack } from "./commands.ts";
import { whenSettled } from "./invariants.ts";
import { heal } from "./liveness.ts";
import type { Command, Run } from "./plan.ts";
import { trace } from "./trace.ts";
import { World } from "./world.ts";

/** A rule that was broken, and by which command; -1: after the last. */
export interface Broken {
  readonly what: string;
  readonly after: number;
}

/** Commands that all runs have done. */
let done = 0;
export const commandsDone = (): number => done;

/** Commands that a closed pool refuses, or that say nothing about one. */
const unfit = new Set(["tryAcquire", "take", "clear", "configure", "slots", "look"]);

class Stop extends Error {}

function stopIfBroken(world: World): void {
  if (world.violation !== undefined) throw new Stop(world.violation);
}

async function settleAndLook(world: World): Promise<void> {
  const rests = await world.machine.settle();
  if (rests) whenSettled(world);
  else if (world.strict) world.violate("the pool finds no rest");
  if (unheard.length > 0) world.violate(`nobody heard or caught: ${textOf(unheard[0])}`);
  stopIfBroken(world);
  world.nextBurst();
}

async function play(world: World, list: readonly Command[], at: (index: number) => void): Promise<void> {
  for (const [index, command] of list.entries()) {
    at(index);
    done++;
    trace(() => `- ${index}. ${command.op}`);
    const { op, seed, pause } = command;
    world.machine.random = new Random(seed);
    await commands[op](world, command);
    if (pause > 7 || op === "advance") await settleAndLook(world);
    else if (pause > 4) await world.machine.micro();
    else await world.machine.ticks(pause);
    stopIfBroken(world);
  }
}

/** The end of a pool: everything is closed once, everybody is told, and nothing is left of it. */
async function close(world: World, after: readonly Command[], at: (index: number) => void): Promise<void> {
  const { machine, pool } = world;
  const graceMs = machine.random.pick([0, 20, 20]);
  world.beginClose(graceMs);
  const closed = pool.close({ graceMs }).then(
    () => 0,
    (error: unknown) => (error instanceof AggregateError ? error.errors.length : -1),
  );
  const again = pool.close();
  again.catch(() => {});
  await settleAndLook(world);
  const fit = after.filter(({ op }) => !unfit.has(op));
  await play(world, fit, at);
  world.mischief.suspended++;
  await machine.advance(graceMs + 5001);
  const failed = await Promise.race([closed, machine.settle().then(() => "pending")]);
  if (failed !== world.closeFailures && world.strict)
    world.violate(`close() says ${failed} of ${world.closeFailures} failures`);
  if (failed === "pending") world.violate("close() is still pending");
  for (const dial of world.dials) dial.arrive();
  for (const conn of world.conns) for (const call of conn.calls) call.end();
  for (const conn of world.conns) {
    world.blockedTooLong(conn);
    conn.endBlock();
  }
  while (world.held.length > 0) giveBack(world, 0, "release");
  await settleAndLook(world);
  await machine.advance(10_000);
  for (const conn of world.conns) {
    const wanted = conn.taken || conn.dead ? conn.closes : 1;
    if (conn.closes !== wanted) world.violate(`${conn.name} was closed ${conn.closes} times at the end`);
  }
  const left = world.callers.filter(({ state }) => state !== "done");
  if (left.length > 0)
    world.violate(`callers that never ended: ${left.map(({ id, kind }) => `${kind} ${id}`).join(", ")}`);
  if (machine.poolTimers > 0) world.violate(`${machine.poolTimers} timers are armed at the end`);
  if ([...pool.keys()].length > 0) world.violate(`keys are left at the end: ${[...pool.keys()].join(", ")}`);
  stopIfBroken(world);
}

/** Rejections that nobody heard and exceptions that nobody caught, while runs are played. */
const unheard: unknown[] = [];
const hear = (reason: unknown): void => void unheard.push(reason);

/** What an error says, whatever it is. */
function textOf(error: unknown): string {
  if (error instanceof Error) return error.stack ?? error.message;
  return typeof error === "object"
    ? `an object: ${Object.keys(error ?? {}).join(", ")}`
    : `thrown: ${JSON.stringify(error)}`;
}

/** Silences the warnings about listeners that throw. Returns a function that ends the silence. */
function muteWarnings(): () => void {
  const warn = process.emitWarning.bind(process);
  process.emitWarning = () => {};
  return () => {
    process.emitWarning = warn;
  };
}

/** Plays one run: its commands, the end of all faults, and the end of the pool. */
export async function playRun({ plan, commands: list, seed }: Run): Promise<Broken | undefined> {
  const world = new World(plan);
  const uninstall = world.machine.install();
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 3; // most of the errors are made to be thrown
  const unmute = muteWarnings();
  process.on("unhandledRejection", hear).on("uncaughtException", hear);
  world.mischief.reenter = () => doSomething(world);
  let after = -1;
  const at = (index: number): void => {
    after = index;
  };
  const cut = Math.ceil(list.length * 0.9);
  try {
    await play(world, list.slice(0, cut), at);
    after = -1;
    await settleAndLook(world);
    world.machine.random = new Random(seed);
    await heal(world);
    stopIfBroken(world);
    await settleAndLook(world);
    await close(world, list.slice(cut), (index) => at(cut + index));
    return undefined;
  } catch (error) {
    if (!(error instanceof Stop)) world.violate(`the run threw ${textOf(error)}`);
    world.mischief.suspended++;
    world.healed = true;
    world.pool.close({ graceMs: 0 }).catch(() => {});
    await world.machine.advance(5001); // whoever waits keeps the process alive
    return { what: world.violation ?? String(error), after };
  } finally {
    unheard.length = 0;
    unmute();
    process.off("unhandledRejection", hear).off("uncaughtException", hear);
    Error.stackTraceLimit = stackTraceLimit;
    uninstall();
  }
}
