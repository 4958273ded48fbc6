/** One line of the bench's table. */
export interface Row {
  readonly name: string;
  /** The median. */
  readonly value: number;
  readonly unit: Unit;
  /** To the section's base, or to what `of` names. */
  readonly ratio?: number;
  readonly of?: string;
  readonly target?: Target;
  /** What a reader must know to trust the number. */
  readonly note?: string;
}

/** Where a row could not be measured. */
export interface Skip {
  readonly name: string;
  readonly skipped: string;
}

export type Line = Row | Skip;

export type Unit = "ns" | "ms" | "bytes" | "calls/s" | "x" | "count" | "µs";

/** What a row must reach, and what it has reached. */
export interface Target {
  readonly is: "at most" | "at least";
  readonly limit: number;
  readonly actual: number;
  readonly unit: Unit;
  readonly met: boolean;
}

export function atMost(limit: number, actual: number, unit: Unit = "x"): Target {
  return { is: "at most", limit, actual, unit, met: actual <= limit };
}

export function atLeast(limit: number, actual: number, unit: Unit = "x"): Target {
  return { is: "at least", limit, actual, unit, met: actual >= limit };
}

/** One part of the bench. It yields its lines as it gets them. */
export interface Section {
  readonly name: string;
  readonly title: string;
  /** Flags that its process needs. */
  readonly flags?: readonly string[];
  run(pace: Pace): AsyncGenerator<Line, void, undefined>;
  /** By name, for a process that measures nothing but these. */
  readonly contenders?: Readonly<Record<string, () => Contender | Promise<Contender>>>;
}

/** Something that can do one operation many times. */
export interface Contender {
  readonly name: string;
  /** Operations that it counts as one, since it does them together. Default: 1. */
  readonly together?: number;
  /** Does it `n` times, in a loop of its own: shared call sites would mix what V8 learns of each. */
  run(n: number): Promise<void> | void;
}

/** How much time a run of the bench may take. */
export interface Pace {
  readonly name: "long" | "short";
  /** Rounds of a race, in each of which each contender has a slice. */
  readonly rounds: number;
  readonly sliceMs: number;
}

export const long: Pace = { name: "long", rounds: 301, sliceMs: 3 };
export const short: Pace = { name: "short", rounds: 41, sliceMs: 2 };
