import { type Command, makeRun, type Plan, plainPlan, type Run } from "./plan.ts";
import { type Broken, playRun } from "./run.ts";

/** What is left of a run: some of its commands, and not all that its plan says. */
interface Part {
  readonly keep: readonly number[];
  /** Members of the plan, and limits, that are as in the plainest plan. */
  readonly without: readonly string[];
}

function partOf({ seed, most, plan, commands }: Run, { keep, without }: Part): Run {
  const limits = Object.fromEntries(Object.entries(plan.limits).filter(([name]) => !without.includes(name)));
  const plain = Object.fromEntries(Object.entries(plainPlan).filter(([name]) => without.includes(name)));
  const kept = keep.map((index) => commands[index]).filter((command): command is Command => command !== undefined);
  const part = { ...plan, limits, ...plain };
  if (!part.ownDial) part.limits = { ...limits, minIdle: undefined };
  return { seed, most, plan: part, commands: kept };
}

/** The one line that plays a run again: its seed, then what has been left of it. */
function lineOf({ seed, most, commands: { length } }: Run, { keep, without }: Part): string {
  const commands = keep.length === length ? "" : keep.join(",");
  return without.length === 0 && commands === ""
    ? `${seed}x${most}`
    : `${seed}x${most}:${commands || "all"}:${without.join(",")}`;
}

/** The run that a line means. */
export function runOf(line: string): Run {
  const [seed = "0", keep = "all", without = ""] = line.split(":");
  const [number = 0, most] = seed.split("x").map(Number);
  const run = makeRun(number, most);
  const indices = keep === "all" ? run.commands.map((_, index) => index) : keep.split(",").filter(Boolean).map(Number);
  return partOf(run, { keep: indices, without: without.split(",").filter(Boolean) });
}

/** Breaks alike: numbers and names may differ. */
export const kindOf = ({ what }: Broken): string =>
  what
    .replace(/\d+/g, "#")
    .replace(/\bof [a-d]\b/g, "of _")
    .slice(0, 80);

/** Leaves out of a broken run whatever can be left out of it while it breaks in the same way. */
export async function shrink(
  run: Run,
  broken: Broken,
  most = 600,
): Promise<{ line: string; broken: Broken; run: Run }> {
  let best: Part = { keep: run.commands.map((_, index) => index), without: [] };
  let last = broken;
  let tries = 0;
  const attempt = async (part: Part): Promise<boolean> => {
    if (tries++ >= most) return false;
    const found = await playRun(partOf(run, part));
    if (found === undefined || kindOf(found) !== kindOf(broken)) return false;
    best = part;
    last = found;
    return true;
  };
  for (let size = Math.ceil(best.keep.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let from = 0; from < best.keep.length; ) {
      const keep = [...best.keep.slice(0, from), ...best.keep.slice(from + size)];
      if (!(await attempt({ ...best, keep }))) from += size;
    }
  }
  const names = [...Object.keys(run.plan.limits), ...Object.keys(plainPlan).filter((name) => name !== "limits")];
  for (const name of names) await attempt({ ...best, without: [...best.without, name] });
  for (let from = 0; from < best.keep.length; ) {
    const keep = [...best.keep.slice(0, from), ...best.keep.slice(from + 1)];
    if (!(await attempt({ ...best, keep }))) from++;
  }
  return { line: lineOf(run, best), broken: last, run: partOf(run, best) };
}

/** What to say of a run that breaks: the rule, the line that plays it again, and what it does. */
export function report({ line, broken, run }: { line: string; broken: Broken; run: Run }): string {
  const unlike = Object.entries(run.plan).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(plainPlan[name as keyof Plan]),
  );
  return [
    `broken: ${broken.what}`,
    `play it again: npm run compile && node .build/test/sim/replay.js ${line}`,
    `plan: ${unlike.map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ")}`,
    ...run.commands.map(
      ({ op, a, b, c, pause, limits }, index) =>
        `  ${index}. ${op} a=${a} b=${b} c=${c} pause=${pause}${op === "configure" ? ` ${JSON.stringify(limits)}` : ""}` +
        (index === broken.after ? "  <- here" : ""),
    ),
  ].join("\n");
}
