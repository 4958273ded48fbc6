import { parseArgs } from "node:util";
import { long, type Pace, short } from "./row.ts";

/** What the bench was asked for. */
export interface Command {
  /** Sections to run; with `race`: one, and its contenders. */
  readonly names: readonly string[];
  readonly pace: Pace;
  /** `text`: as it comes; the others when all is measured. */
  readonly output: "text" | "json" | "page";
  /** For the processes that the bench starts. `lines`: one section, a line of JSON for each of its lines. */
  readonly mode: "all" | "lines" | "race";
}

const flags = {
  short: { type: "boolean" },
  long: { type: "boolean" },
  json: { type: "boolean" },
  page: { type: "boolean" },
  lines: { type: "boolean" },
  race: { type: "boolean" },
} as const;

/** Says what can be asked for. */
export class UsageError extends Error {}

/** Throws a `UsageError`. */
export function commandOf(args: readonly string[], sections: readonly string[]): Command {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: flags, allowPositionals: true });
    const mode = values.race ? "race" : values.lines ? "lines" : "all";
    const unknown = (mode === "race" ? positionals.slice(0, 1) : positionals).filter((one) => !sections.includes(one));
    if (unknown.length > 0) throw new Error(`There is no section ${unknown.join(", ")}.`);
    const output = values.page ? "page" : values.json ? "json" : "text";
    return { names: positionals, pace: values.short ? short : long, output, mode };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UsageError(
      `${why}\nUsage: npm run --silent bench -- [--short] [--json | --page] [section ...]\nSections: ${sections.join(", ")}`,
    );
  }
}
