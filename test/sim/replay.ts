import { playRun } from "../support/simulator/run.ts";
import { report, runOf } from "../support/simulator/shrink.ts";
import { listenToTrace } from "../support/simulator/trace.ts";

if (process.argv[3] === "trace") listenToTrace((line) => console.log(line));
/** Plays a run again, as its failure printed it: `node .build/test/sim/replay.js 123x30` or `123x30:4,5,9:capacity`, and `trace` to see how. */
const line = process.argv[2] ?? "1x30";
const run = runOf(line);
const broken = await playRun(run);
console.log(broken === undefined ? `${line} breaks nothing` : report({ line, broken, run }));
process.exitCode = broken === undefined ? 0 : 1;
