import { Race, shuffled } from "./race.ts";

/** Makes calls over connections: what takes its time is the network, the peer and this process together. */
export interface Caller {
  readonly name: string;
  /** Milliseconds of this process's time that it takes until V8 has compiled what is hot. */
  readonly warmMs: number;
  /** Makes calls for so many milliseconds, always as many at once; returns how many it made in a second. */
  rate(ms: number): Promise<number>;
  /** Closes its connections. */
  end(): unknown;
}

/** Callers that make one call after another, each for itself. */
export function crew(options: {
  readonly name: string;
  readonly size: number;
  readonly warmMs?: number;
  readonly call: (member: number) => Promise<unknown>;
  readonly end: () => unknown;
}): Caller {
  const { name, size, warmMs = 100, call, end } = options;
  return {
    name,
    warmMs,
    end,
    rate: async (ms) => {
      let calls = 0;
      const start = performance.now();
      const work = async (_: unknown, member: number): Promise<void> => {
        for (; performance.now() - start < ms; calls++) await call(member);
      };
      await Promise.all(Array.from({ length: size }, work));
      return (calls * 1000) / (performance.now() - start);
    },
  };
}

/** How long callers are measured. */
export interface Rounds {
  readonly rounds: number;
  readonly sliceMs: number;
}

/**
 * Lets callers take turns, as `race` does, but by the clock on the wall: at times all of them wait for a peer. Then it
 * ends them.
 */
export async function takeTurns(callers: readonly Caller[], { rounds, sliceMs }: Rounds): Promise<Race> {
  const samples = new Map(callers.map(({ name }): [string, number[]] => [name, []]));
  try {
    for (const caller of callers) await warm(caller);
    for (let round = 0; round < rounds; round++) {
      for (const caller of shuffled(callers)) samples.get(caller.name)?.push(1e9 / (await caller.rate(sliceMs)));
    }
  } finally {
    await Promise.all(callers.map((caller) => caller.end()));
  }
  return new Race(samples);
}

/** By processor time: what else runs on the machine must not leave a caller cold. */
async function warm(caller: Caller): Promise<void> {
  const start = process.cpuUsage();
  let ms = 0;
  do {
    await caller.rate(50);
    const { user, system } = process.cpuUsage(start);
    ms = (user + system) / 1000;
  } while (ms < caller.warmMs);
}
