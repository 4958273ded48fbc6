import { explore, smallWorlds } from "../support/simulator/explorer.ts";

/**
 * Every order of events in small worlds, to a depth: `node .build/test/sim/explore.js [depth] [seconds for each world]`.
 */
const depth = Number(process.argv[2] ?? 10);
const seconds = Number(process.argv[3] ?? 150);

for (const limits of smallWorlds) {
  const start = process.cpuUsage();
  const slots = limits.maxStreams ?? 1;
  const found = await explore({ limits, slots, callers: 3, depth, seconds });
  const { user, system } = process.cpuUsage(start);
  console.log(
    `${JSON.stringify(limits)}: every order of ${found.depth} events, ${found.states} states, ${found.moves} moves, ` +
      `${((user + system) / 1e6).toFixed(1)} s of processor time`,
  );
  if (found.broken === undefined) continue;
  console.log(`broken: ${found.broken}`);
  process.exitCode = 1;
}
