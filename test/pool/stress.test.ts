import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { playRun, runs, stepsDone } from "../support/stress/run.ts";

/**
 * Random runs of everything that a pool does, against conns and dials that count what is done to them.
 *
 *     STRESS_SECONDS=300 node --test .build/test/pool/stress.test.js    for as long as that
 *     STRESS_SEED=123 STRESS_PATH=4:0 node --test …                     one run again, as its failure printed it
 */
const { STRESS_SEED, STRESS_PATH, STRESS_SECONDS } = process.env;
const seconds = Number(STRESS_SECONDS ?? 0);

test("whatever happens in whatever order, limits, slots, order and ownership hold after every step", async (t) => {
  const unhandled: unknown[] = [];
  const onUnhandled = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", onUnhandled);
  t.after(() => process.off("unhandledRejection", onUnhandled));

  let seed = STRESS_SEED === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(STRESS_SEED);
  const path = STRESS_PATH === undefined ? {} : { path: STRESS_PATH };
  const end = performance.now() + seconds * 1000;
  let rounds = 0;
  do {
    console.log(`seed ${seed}`); // at once, should the run hang
    await fc.assert(
      fc.asyncProperty(runs, async (run) => {
        rounds++;
        await playRun(run);
        assert.deepEqual(unhandled, [], "unhandled rejections");
      }),
      { seed, ...path, numRuns: 400 },
    );
    seed = (seed + 1) % 2 ** 31;
  } while (performance.now() < end);
  t.diagnostic(`${rounds} runs, ${stepsDone} steps`);
});
