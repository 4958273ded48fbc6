import { Machine } from "../support/simulator/machine.ts";
import { makeRun } from "../support/simulator/plan.ts";
import { commandsDone, playRun } from "../support/simulator/run.ts";
import { kindOf, report, shrink } from "../support/simulator/shrink.ts";

/**
 * The long runs of the simulator: `npm run test:long -- [seeds] [first seed] [commands] [seconds]`. By default 10,000 seeds, from
 * a random one on, of up to 200 commands each: a million in all. After so many
 * seconds no run begins any more.
 */
const seeds = Number(process.argv[2] ?? 10_000);
const first = Number(process.argv[3] ?? Math.floor(Math.random() * 2 ** 30));
const most = Number(process.argv[4] ?? 200);
const end = performance.now() + Number(process.argv[5] ?? Number.POSITIVE_INFINITY) * 1000;

process.exitCode = 1; // until the end is reached
const start = process.cpuUsage();
/** Broken runs, by how they break: the first of each kind is shrunk and printed. */
const broken = new Map<string, number[]>();
let played = 0;
for (let seed = first; seed < first + seeds && performance.now() < end; seed++) {
  played++;
  const run = makeRun(seed, most);
  const found = await playRun(run);
  if (found === undefined) continue;
  const seeds = broken.get(kindOf(found)) ?? [];
  broken.set(kindOf(found), [...seeds, seed]);
  if (seeds.length === 0) console.log(report(await shrink(run, found)));
}
for (const [kind, alike] of broken) console.log(`${alike.length} runs, seeds ${alike.slice(0, 5).join(", ")}: ${kind}`);
const { user, system } = process.cpuUsage(start);
const seconds = (user + system) / 1e6;
const simulated = Machine.simulatedMs / 1000;
console.log(
  `${played} seeds from ${first}: ${commandsDone()} commands, ${[...broken.values()].flat().length} runs broken; ${Math.round(simulated)} simulated ` +
    `seconds in ${seconds.toFixed(0)} s of processor time, ${Math.round(simulated / seconds)} for one`,
);
process.exitCode = broken.size === 0 ? 0 : 1;
