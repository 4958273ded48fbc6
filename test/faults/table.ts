import { type Report, runFaults } from "../support/faults/run.ts";
import { transportNames } from "../support/faults/transports.ts";

/**
 * What nine faults of a network do to the calls of each transport: `npm run test:faults -- [ms of each fault] [transport]`. Fails where
 * a key is not whole when its fault is over, where another key has noticed, or where a request ran twice.
 */
const ms = Number(process.argv[2] ?? 3_000);
const pace = { ms, callers: 10, restMs: 10, timeoutMs: 500, untilClean: true };

function print({ transport, rows, other }: Report): boolean {
  console.log(`\n${transport}\n`);
  console.log("| fault | calls | failed | with | longest | dials | back after | sent twice | wrong answers | left |");
  console.log("|---|--:|--:|---|--:|--:|--:|--:|--:|---|");
  for (const row of [...rows, other]) {
    const { fault, calls, failed, longestMs, dials, backAfterMs, sentTwice, wrong, left } = row;
    const count = Object.values(failed).reduce((sum, each) => sum + each, 0);
    const words = Object.entries(failed).map(([word, times]) => `${word} ${times}`);
    const ms = (value: number): string => `${Math.round(value)} ms`;
    const back = row === other ? "" : ms(backAfterMs);
    const cells = [
      fault,
      calls,
      count,
      words.join(", "),
      ms(longestMs),
      dials,
      back,
      sentTwice,
      wrong,
      left.join(", "),
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
  const isWhole = [...rows, other].every(({ left, sentTwice }) => left.length === 0 && sentTwice === 0);
  return isWhole && Object.keys(other.failed).length === 0;
}

let isGood = true;
const names = transportNames.filter((name) => name.includes(process.argv[3] ?? ""));
for (const name of names) isGood = print(await runFaults(name, pace)) && isGood;
process.exitCode = isGood ? 0 : 1;
