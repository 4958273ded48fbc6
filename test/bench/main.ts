import { type Command, commandOf, UsageError } from "./command.ts";
import { drpc } from "./drpc.ts";
import { child } from "./fresh.ts";
import { grpc } from "./grpc.ts";
import { grpcHttp2 } from "./grpc-http2.ts";
import { formatHeader, headerOf } from "./header.ts";
import { invoke } from "./invoke.ts";
import { keys } from "./keys.ts";
import { lease } from "./lease.ts";
import { offSection } from "./off.ts";
import { page, type SectionResult } from "./page.ts";
import { race } from "./race.ts";
import type { Line, Pace, Section } from "./row.ts";
import { stream } from "./stream.ts";
import { countMet, format } from "./table.ts";
import { waiters } from "./waiters.ts";

const sections: readonly Section[] = [invoke, lease, waiters, stream, keys, grpc, grpcHttp2, drpc, offSection];

/** Nothing but these contenders of a section. */
async function runRace([name, ...chosen]: readonly string[], pace: Pace): Promise<void> {
  const { contenders } = sections.find((section) => section.name === name) ?? {};
  const taking = await Promise.all(
    chosen.map(async (one) => {
      const make = contenders?.[one];
      if (make === undefined) throw new Error(one);
      return make();
    }),
  );
  const result = await race(taking, pace);
  console.log(JSON.stringify(Object.fromEntries(chosen.map((one) => [one, result.samples(one)]))));
}

async function runLines(names: readonly string[], pace: Pace): Promise<void> {
  for (const section of sections) {
    if (!names.includes(section.name)) continue;
    for await (const line of section.run(pace)) {
      // JSON would make null of it.
      if ("value" in line && !Number.isFinite(line.value)) throw new Error(`no number for "${line.name}"`);
      console.log(JSON.stringify(line));
    }
  }
}

/** Each section has a process of its own, so that what V8 learns in one spoils no other. */
async function runAll(names: readonly string[], pace: Pace, output: Command["output"]): Promise<void> {
  const say = output === "text" ? console.log : () => {};
  const header = headerOf(pace);
  const results: SectionResult[] = [];
  say(formatHeader(header));
  for (const { name, title, flags } of sections) {
    if (names.length > 0 && !names.includes(name)) continue;
    say(`\n${name}: ${title}`);
    const lines: Line[] = [];
    results.push({ name, title, lines });
    try {
      for await (const text of child(["--lines", name, `--${pace.name}`], flags)) {
        const line = JSON.parse(text) as Line;
        lines.push(line);
        say(format(line));
      }
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      process.exitCode = 1; // the other sections still have something to say
    }
  }
  const { met, of } = countMet(results.flatMap(({ lines }) => lines));
  say(`\n${met} of ${of} targets met`);
  if (output === "page") console.log(page(header, results));
  if (output === "json")
    console.log(JSON.stringify({ ...header, sections: results, targets: { met, of } }, undefined, 2));
}

try {
  const { names, pace, output, mode } = commandOf(
    process.argv.slice(2),
    sections.map(({ name }) => name),
  );
  if (mode === "race") await runRace(names, pace);
  else if (mode === "lines") await runLines(names, pace);
  else await runAll(names, pace, output);
} catch (error) {
  console.error(error instanceof UsageError ? error.message : error);
  process.exitCode = 1;
}
process.exit();
