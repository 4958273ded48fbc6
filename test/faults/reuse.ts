import { replayTrace } from "../support/faults/trace.ts";

/**
 * How many calls of a fleet's trace reuse a conn: `npm run test:reuse -- [seed] [minutes]`. Fails under 99.9 %, or where a conn
 * was handed out that had closed, drained, was full or another service's.
 */
const seed = Number(process.argv[2] ?? 1);
const minutes = Number(process.argv[3] ?? 10);
const { calls, dials, reused, failed, unsafe, deploys, failovers, keysSeen, mostOpen } = await replayTrace(
  seed,
  minutes,
);
const share = reused / (calls - failed);
console.log(
  `seed ${seed}, ${minutes} minutes, ${calls} calls to ${keysSeen} services; ${deploys} deploys, ${failovers} failovers`,
);
console.log(`${dials} dials; at most ${mostOpen} conns open; ${failed} calls failed, as their peer was down or died`);
/** In the first minutes every service needs its first conn. */
const target = minutes < 10 ? 0.998 : 0.999;
console.log(`reused: ${(100 * share).toFixed(3)} % of calls (target: ${100 * target} %); unsafe: ${unsafe}`);
process.exitCode = share >= target && unsafe === 0 ? 0 : 1;
