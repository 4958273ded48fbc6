import type { Limits } from "../../../src/options.ts";
import { Random } from "../../../src/testing/random.ts";
import type { OpName } from "./commands.ts";

export const keys = ["a", "b", "c", "d"] as const;
/** Every pause between dials ends within this. */
export const longestPauseMs = 1000;

/** All that is random about a run, but its commands. */
export interface Plan {
  readonly limits: Limits;
  readonly selection: "oldest" | "newest" | "least-loaded" | "fastest" | "function";
  /** The pool has a dial function, so that it may dial by itself. */
  readonly ownDial: boolean;
  /** What the dial functions announce. */
  readonly announced: number | undefined;
  /** How many dials of a hundred fail, in whatever way. */
  readonly dialFaults: number;
  /** How many `close()` calls of a hundred fail, in whatever way. */
  readonly closeFaults: number;
  /** Slots of the conns; undefined: they do not say, so one. */
  readonly slots: readonly (number | undefined)[];
  readonly lifetimes: readonly (number | undefined)[];
  /** Conns tell of changes. */
  readonly notifies: boolean;
  /** Conns tell how many bytes have come, and most answer pings. */
  readonly showsLife: boolean;
  readonly validates: boolean;
  readonly resets: boolean;
  /** Somebody listens to every event. */
  readonly listens: boolean;
  /** Keys are hashed, and have limits of their own. */
  readonly perKey: boolean;
  /** How many calls of a hundred of the caller's functions and properties misbehave: throw, lie, or use the pool. */
  readonly mischief: number;
  /** Callers share a few abort signals, instead of having one each. */
  readonly sharedSignals: boolean;
}

/** One thing that happens. The numbers choose whom it happens to, and how, so that any of them can be left out. */
export interface Command {
  readonly op: OpName;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** What is random while it runs. */
  readonly seed: number;
  /** What runs before the next: 0 nothing, up to 4 rounds of microtasks, up to 7 all of them, more: all but time. */
  readonly pause: number;
  readonly limits: Limits;
}

export interface Run {
  readonly seed: number;
  /** Commands that it may have. */
  readonly most: number;
  readonly plan: Plan;
  readonly commands: readonly Command[];
}

const weights: Record<OpName, number> = {
  acquire: 10,
  use: 3,
  invoke: 7,
  stream: 3,
  warm: 2,
  tryAcquire: 2,
  release: 10,
  discard: 1,
  answer: 8,
  fail: 2,
  abort: 5,
  arrive: 8,
  failDial: 2,
  arriveLate: 1,
  die: 2,
  goaway: 2,
  slots: 2,
  silence: 1,
  block: 2,
  unblock: 3,
  put: 2,
  take: 1,
  putBack: 1,
  clear: 1,
  configure: 1,
  closeHandle: 1,
  look: 1,
  advance: 6,
};
const ops = (Object.keys(weights) as OpName[]).flatMap((op) => Array.from({ length: weights[op] }, () => op));

type Draw<T> = (random: Random) => T;
const sometimes =
  <T>(percent: number, ...values: readonly [T, ...T[]]): Draw<T | undefined> =>
  (random) =>
    random.chance(percent / 100) ? random.pick(values) : undefined;

const limitDraws: { readonly [N in keyof Limits]-?: Draw<Limits[N]> } = {
  capacity: sometimes(33, -1, 0, 1, 2, 4),
  keyCapacity: sometimes(33, -1, 0, 1, 2, 3),
  expirationMs: sometimes(33, 0, 16, 40, 60_000),
  maxConns: sometimes(33, 0, 1, 2, 3, 5),
  maxKeyConns: sometimes(40, 0, 1, 2, 3),
  maxStreams: sometimes(33, 0, 1, 2, 3),
  maxKeyDials: sometimes(25, 0, 1, 2),
  maxWaiters: sometimes(33, -1, 0, 1, 3),
  waitTimeoutMs: sometimes(33, 0, 30, 5000),
  dialTimeoutMs: sometimes(33, 0, 25, 1000),
  maxDials: sometimes(20, 0, 1, 3),
  maxLifetimeMs: sometimes(25, 0, 60, 3_600_000),
  lifetimeJitter: sometimes(25, 0, 0.1),
  maxUses: sometimes(25, 0, 1, 4),
  minIdle: sometimes(25, 0, 1, 2),
  validateAfterMs: sometimes(50, 0, 10),
  backoff: sometimes<Limits["backoff"]>(
    25,
    false,
    { baseMs: 10, maxMs: 50 },
    { baseMs: 100, maxMs: longestPauseMs, maxAttempts: 4 },
  ),
};

/** Every limit that a pool has, or few of them. */
export function drawLimits(random: Random, share: number, ownDial: boolean): Limits {
  const limits: Record<string, unknown> = {};
  for (const [name, draw] of Object.entries(limitDraws)) {
    const value = draw(random);
    // Without a dial function of its own the pool refuses to keep conns ready.
    const refused = name === "minIdle" && !ownDial;
    if (value !== undefined && random.chance(share) && !refused) limits[name] = value;
  }
  return limits;
}

function drawPlan(random: Random): Plan {
  const ownDial = random.chance(0.5);
  return {
    limits: drawLimits(random, random.pick([0.3, 1]), ownDial),
    selection: random.pick(["oldest", "oldest", "newest", "newest", "least-loaded", "fastest", "function"]),
    ownDial,
    announced: random.pick([undefined, undefined, 1, 3]),
    dialFaults: random.pick([0, 10, 50]),
    closeFaults: random.pick([0, 0, 30]),
    slots: random.pick([[undefined], [1], [2], [5], [1, 3], [undefined, 2, 0], [100]]),
    lifetimes: random.pick([[undefined], [undefined], [undefined, 45], [0]]),
    notifies: random.chance(0.5),
    showsLife: random.chance(0.3),
    validates: random.chance(0.2),
    resets: random.chance(0.2),
    listens: random.chance(0.6),
    perKey: random.chance(0.3),
    mischief: random.pick([0, 0, 0, 3, 15]),
    sharedSignals: random.chance(0.3),
  };
}

/** The run of a seed, of at most so many commands and 5. */
export function makeRun(seed: number, most = 200): Run {
  const random = new Random(seed);
  const plan = drawPlan(random);
  const length = 5 + random.under(most);
  const commands = Array.from({ length }, (): Command => {
    const [first = "acquire", ...rest] = ops;
    const op = random.pick([first, ...rest]);
    return {
      op,
      a: random.under(64),
      b: random.under(8),
      c: random.under(8),
      seed: random.under(2 ** 31),
      pause: random.under(12),
      limits: op === "configure" ? drawLimits(random, 0.3, plan.ownDial) : {},
    };
  });
  return { seed, most, plan, commands };
}

/** The plan with everything off that can be off: what shrinking goes towards. */
export const plainPlan: Plan = {
  limits: {},
  selection: "oldest",
  ownDial: false,
  announced: undefined,
  dialFaults: 0,
  closeFaults: 0,
  slots: [undefined],
  lifetimes: [undefined],
  notifies: true,
  showsLife: false,
  validates: false,
  resets: false,
  listens: false,
  perKey: false,
  mischief: 0,
  sharedSignals: false,
};
