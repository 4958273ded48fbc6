import { compareRun } from "../support/simulator/side-by-side.ts";

/** The pool beside the reference pool: `node .build/test/sim/reference.js [seeds] [first seed] [commands]`. */
const seeds = Number(process.argv[2] ?? 3000);
const first = Number(process.argv[3] ?? 1);
const length = Number(process.argv[4] ?? 120);

const start = process.cpuUsage();
let commands = 0;
for (let seed = first; seed < first + seeds; seed++) {
  const run = await compareRun(seed, length);
  commands += run.commands;
  if (run.broken === undefined) continue;
  let { broken } = run;
  const skip = new Set<number>();
  for (let step = length - 1; step >= 0; step--) {
    const shorter = await compareRun(seed, length, new Set([...skip, step]));
    if (shorter.broken === undefined) continue;
    skip.add(step);
    broken = shorter.broken;
  }
  console.log(`broken: ${broken}\nplay it again: node .build/test/sim/reference.js 1 ${seed} ${length}`);
  process.exit(1);
}
const { user, system } = process.cpuUsage(start);
console.log(`${commands} commands on both come to the same, ${((user + system) / 1e6).toFixed(1)} s of processor time`);
