import { checkAtLeastOne, checkFunction, checkOptions, checkPause, checkSize } from "../argument.ts";
import { type Failure, outcome } from "../runtime/guard.ts";
import { FakeClock, settle } from "./clock.ts";
import { checkNetworkOptions, type NetworkOptions, networkOptionNames, SimulatedNetwork } from "./network.ts";
import { Random } from "./random.ts";

/** How a program is simulated. */
export interface SimulateOptions<K = string> extends NetworkOptions<K> {
  /** The seed of the first run; each further one has the next. Default: one that changes from day to day. */
  readonly seed?: number | undefined;
  /** How many runs, at least 1. Default: 1 with a `seed`, 100 without. */
  readonly runs?: number | undefined;
  /** Milliseconds of simulated time after which a program that is not done has failed, over 0. Default 3_600_000, an hour. */
  readonly maxMs?: number | undefined;
}

/** What a simulated program gets. */
export interface Simulation<K = string> {
  /** For the pool, and for all else that waits: `simulate` moves it on, from timer to timer. */
  readonly clock: FakeClock;
  readonly network: SimulatedNetwork<K>;
  /** For the program's own choices; they do not change what the network draws from the same seed. */
  readonly random: Random;
  readonly seed: number;
  /** Resolves after so many milliseconds of simulated time. */
  readonly sleep: (ms: number) => Promise<void>;
}

/** A simulated program has failed. `cause` is what it threw, unchanged. */
export class SimulationError extends Error {
  /** Which run failed: `simulate({ seed }, …)` plays it again. */
  readonly seed: number;
  /** What happened in the network until then, one line each. */
  readonly trace: readonly string[];

  /** @internal */
  constructor(seed: number, trace: readonly string[], cause: unknown) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const last = trace.slice(-lastLines).map((line) => `\n    ${line}`);
    super(
      `the run of seed ${seed} fails: ${why}\nsimulate({ seed: ${seed} }, …) plays it again, all other options being the same.` +
        ` What happened last:${last.join("") || " nothing"}`,
      { cause },
    );
    this.seed = seed;
    this.trace = trace;
  }
}

/** Lines of the trace in a message. */
const lastLines = 10;
/** Turns of the event loop, three at a time, in which something may still arm a timer. */
const mostTurns = 10;
/** Timers that may fire one after the other while no time passes. */
const mostTogether = 100_000;
/** Timers that fire after a failure, so that whoever still waits hears that all is over. */
const mostAfterwards = 1_000;
const defaultRuns = 100;
const defaultMaxMs = 3_600_000;
const dayMs = 86_400_000;
/** Seeds are numbers of 32 bits. */
const seeds = 2 ** 32;

const optionNames: readonly string[] = [...networkOptionNames, "seed", "runs", "maxMs"];

let isRunning = false;

/**
 * Runs a program over a simulated network, on a clock that moves from timer to timer, so that hours take milliseconds. All that
 * happens follows from the seed; `Math.random` too, which draws from it as long as a run lasts. One simulation runs at a time.
 *
 * A run fails when the program throws, when it is not done within `maxMs`, or when nothing can happen any more that it could wait
 * for. The error is a `SimulationError`, which names the seed. The program waits by `clock` or `sleep`: the machine's timers
 * (`setTimeout`, `AbortSignal.timeout`), real I/O and a `deadline`, which is compared with the time of day, do not follow the seed.
 *
 * ```ts
 * await simulate({ runs: 200 }, async ({ clock, network }) => {
 *   const pool = new Pool({ clock, dial: network.dial, maxKeyConns: 2 });
 *   await fetchAll(pool, ["a", "b", "c"]); // the code under test
 *   await pool.close();
 *   assert.equal(network.open, 0);
 * });
 * ```
 */
export async function simulate<K = string>(
  options: SimulateOptions<K>,
  program: (simulation: Simulation<K>) => unknown,
): Promise<void> {
  checkOptions("simulate's options", options, optionNames);
  checkNetworkOptions(options);
  const { maxMs = defaultMaxMs, runs = options.seed === undefined ? defaultRuns : 1 } = options;
  checkAtLeastOne("runs", runs);
  checkPause("maxMs", maxMs);
  const { seed: first = (Math.floor(Date.now() / dayMs) * runs) % seeds } = options;
  checkSize("seed", first);
  checkFunction("program", program ?? null);
  if (isRunning) throw new Error("another simulation runs in this process: await it first");
  const { random } = Math;
  isRunning = true;
  try {
    for (let seed = first; seed < first + runs; seed++) await run(seed, maxMs, options, program);
  } finally {
    Math.random = random;
    isRunning = false;
  }
}

async function run<K>(
  seed: number,
  maxMs: number,
  options: NetworkOptions<K>,
  program: (simulation: Simulation<K>) => unknown,
): Promise<void> {
  const clock = new FakeClock();
  const chance = new Random(seed);
  const own = () => new Random(chance.under(seeds)); // each draws for itself: one that draws more changes nothing for the others
  const [ofNetwork, random, ofMachine] = [own(), own(), own()];
  const network = new SimulatedNetwork<K>(clock, ofNetwork, options);
  const sleep = (ms: number) => new Promise<void>((resolve) => void clock.setTimeout(resolve, ms));
  Math.random = () => ofMachine.next();
  const end: { failed?: Failure | undefined; isOver: boolean } = { isOver: false };
  void outcome(() => program({ clock, network, random, seed, sleep })).then((failed) => {
    Object.assign(end, { failed, isOver: true });
  });
  const failed = await outcome(() => drive(clock, maxMs, () => end.isOver));
  const failure = end.failed ?? failed;
  if (failure === undefined) return;
  const trace = [...network.trace];
  // What fails now, since the network ends, nobody may wait for any more: the failure of the run is the news.
  const unheard = (): void => {};
  process.on("unhandledRejection", unheard);
  network.end();
  await settle();
  for (let fired = 0; fired < mostAfterwards; fired++) if ((await outcome(() => clock.step())) !== undefined) break;
  await settle();
  process.off("unhandledRejection", unheard);
  throw new SimulationError(seed, trace, failure.error);
}

/** Moves the clock from timer to timer until the program is over. Throws when it cannot come to its end. */
async function drive(clock: FakeClock, maxMs: number, isOver: () => boolean): Promise<void> {
  const end = clock.now() + maxMs;
  await settle();
  for (let together = 0, now = clock.now(); !isOver(); together = clock.now() > now ? 0 : together + 1) {
    now = clock.now();
    if (together > mostTogether) throw new Error("timers fire without end while no simulated time passes");
    if (await clock.step(end - now)) continue;
    for (let turn = 0; turn < mostTurns && clock.timers === 0 && !isOver(); turn++) await settle();
    if (isOver() || (await clock.step(end - now))) continue;
    if (clock.timers > 0) throw new Error(`the program is not done after ${maxMs} ms of simulated time`);
    throw new Error(
      "the program waits for what can never happen: no timer of the simulated clock is armed, nothing runs in the network. " +
        "Does it wait for a promise that nobody settles, or for a timer or I/O of the machine?",
    );
  }
}
