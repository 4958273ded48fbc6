import assert from "node:assert/strict";
import fc from "fast-check";
import type { Limits } from "../../../src/options.ts";
import { settle } from "../clock.ts";
import { type ActionName, actions } from "./actions.ts";
import type { Action } from "./asks.ts";
import { check, nextBurst } from "./check.ts";
import { longestBackoffMs, type Plan } from "./plan.ts";
import { World } from "./world.ts";

const sometimes = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 2, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });

const limits: fc.Arbitrary<Limits> = fc.record({
  capacity: sometimes(fc.integer({ min: -1, max: 4 })),
  keyCapacity: sometimes(fc.integer({ min: -1, max: 3 })),
  expirationMs: sometimes(fc.constantFrom(0, 16, 40)),
  maxConns: sometimes(fc.integer({ min: 0, max: 5 })),
  maxKeyConns: sometimes(fc.integer({ min: 0, max: 3 })),
  maxStreams: sometimes(fc.integer({ min: 0, max: 3 })),
  maxKeyDials: sometimes(fc.integer({ min: 0, max: 2 })),
  maxWaiters: sometimes(fc.constantFrom(-1, 0, 1, 3)),
  waitTimeoutMs: sometimes(fc.constantFrom(0, 30)),
  dialTimeoutMs: sometimes(fc.constantFrom(0, 25)),
  maxLifetimeMs: sometimes(fc.constantFrom(0, 60)),
  minIdle: sometimes(fc.integer({ min: 0, max: 2 })),
  maxUses: sometimes(fc.integer({ min: 0, max: 4 })),
  backoff: fc.oneof(
    { weight: 4, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constant({ baseMs: 10, maxMs: longestBackoffMs, maxAttempts: 4 }) },
  ),
});

const plan: fc.Arbitrary<Plan> = fc.record({
  limits,
  selection: fc.constantFrom("oldest", "newest", "least-loaded"),
  ownDial: fc.boolean(),
  dials: fc.array(
    fc.constantFrom(
      "later",
      "later",
      "at once",
      "at once",
      "soon",
      "never",
      "throws",
      "rejects",
      "final",
      "dead",
      "garbage",
    ),
    { maxLength: 6 },
  ),
  closes: fc.array(fc.constantFrom("closes", "closes", "closes", "throws", "rejects", "hangs"), { maxLength: 4 }),
  slots: fc.array(fc.constantFrom(undefined, 1, 2, 3, 5, 0), { minLength: 1, maxLength: 3 }),
  announced: fc.constantFrom(undefined, undefined, 1, 3),
  notifies: fc.boolean(),
  lifetimes: fc.array(fc.constantFrom(undefined, undefined, 0, 45), { minLength: 1, maxLength: 3 }),
});

const weights: Record<ActionName, number> = {
  invoke: 8,
  stream: 4,
  acquire: 8,
  use: 3,
  warm: 2,
  tryAcquire: 2,
  release: 9,
  answer: 8,
  fail: 2,
  abort: 4,
  arrive: 8,
  failDial: 2,
  arriveLate: 1,
  die: 2,
  goaway: 2,
  slots: 2,
  block: 2,
  unblock: 3,
  put: 2,
  take: 1,
  putBack: 1,
  clear: 1,
  configure: 2,
  closeHandle: 1,
  advance: 4,
};

interface Step extends Action {
  readonly name: ActionName;
  /** False: the next action follows before anything settles. */
  readonly calm: boolean;
}

const small = fc.nat({ max: 7 });
const names = Object.keys(actions) as ActionName[];
const step: fc.Arbitrary<Step> = fc.record({
  name: fc.oneof(...names.map((name) => ({ weight: weights[name], arbitrary: fc.constant(name) }))),
  a: small,
  b: small,
  c: small,
  limits,
  calm: fc.boolean(),
});

export interface Run {
  readonly plan: Plan;
  readonly steps: readonly Step[];
  /** What still happens once the pool is closing. */
  readonly after: readonly Step[];
  readonly graceMs: number;
}

export const runs: fc.Arbitrary<Run> = fc.record({
  plan,
  steps: fc.array(step, { maxLength: 60, size: "max" }),
  after: fc.array(step, { maxLength: 8 }),
  graceMs: fc.constantFrom(0, 20),
});

/** Steps done so far, by all runs. */
export let stepsDone = 0;

async function play(world: World, steps: readonly Step[]): Promise<void> {
  for (const [index, action] of steps.entries()) {
    stepsDone++;
    await actions[action.name](world, action);
    if (!action.calm && index < steps.length - 1 && action.name !== "advance") continue;
    await settle();
    check(world);
    assert.equal(world.violation, undefined, `after step ${index} (${action.name})`);
    nextBurst(world);
  }
}

async function end(world: World, { after, graceMs }: Run): Promise<void> {
  world.leave();
  world.graceEnds = world.clock.now() + graceMs;
  const closed = world.pool.close({ graceMs }).then(
    () => 0,
    (error: unknown) => (error instanceof AggregateError ? error.errors.length : -1),
  );
  assert.equal(world.pool.close({ graceMs }), world.pool.close({ graceMs: 1e6 }), "closing twice is one close");
  await settle();
  check(world);
  assert.equal(world.violation, undefined, "after close()");
  nextBurst(world);
  await play(
    world,
    after.filter(({ name }) => !unfit.includes(name)),
  );
  await world.clock.advance(graceMs + 5001);
  assert.equal(await closed, world.closeFailures, "conns that failed to close");
  for (const dial of world.dials) world.arrive(dial);
  for (const call of world.calls) call.end();
  for (const conn of world.conns) conn.unblock();
  while (world.held.length > 0) actions.release(world, { a: 0, b: 0, c: 0, limits: {} });
  await settle();
  check(world);
  assert.equal(world.violation, undefined, "at the end");
  for (const conn of world.conns) {
    if (!conn.dead) assert.equal(conn.closes, conn.taken ? 0 : 1, `closes of conn ${conn.id}`);
  }
  const left = world.asks.filter(({ state }) => state !== "done").map(({ id }) => id);
  assert.deepEqual(left, [], "requests that never ended");
  assert.equal(world.clock.timers, 0, "timers armed");
  assert.equal([...world.pool.keys()].length, 0, "keys left");
}

/** Actions that a closed pool refuses, or that say nothing about one. */
const unfit: readonly ActionName[] = ["tryAcquire", "take", "clear", "configure", "slots"];

/** Plays one run; throws at the first thing that is not as it must be. */
export async function playRun(run: Run): Promise<void> {
  const world = new World(run.plan);
  try {
    await play(world, run.steps);
    await settle();
    check(world);
    assert.equal(world.violation, undefined, "after the last step");
    nextBurst(world);
    await end(world, run);
  } catch (error) {
    world.pool.close({ graceMs: 0 }).catch(() => {});
    await world.clock.advance(5001); // who waits keeps the process alive
    throw error;
  }
}
