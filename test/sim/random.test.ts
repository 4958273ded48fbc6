import { test } from "node:test";
import { runProgram } from "../support/simulator/program.ts";

/** Runs of each `npm test`: from a seed that differs from day to day, so that every day proves something new. */
const runs = 2000;
const first = Math.floor(Date.now() / 86_400_000) * runs;
const commands = 25;
/** On a machine that is busy otherwise, fewer runs must do. */
const seconds = 40;

test(`whatever happens in whatever order, every rule holds: ${runs} random runs from seed ${first}`, async (t) => {
  await runProgram(t, "long", runs, first, commands, seconds);
});
