import type { Result } from "./workload.ts";

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A machine so busy that no call ended has no times. */
const time = (ms: number): string => (Number.isNaN(ms) ? "none" : `${count.format(ms)} ms`);

const columns: readonly (readonly [title: string, text: (result: Result) => string])[] = [
  ["", ({ name }) => name],
  ["calls/s", ({ callsPerSecond }) => count.format(callsPerSecond)],
  ["p50", ({ p50Ms }) => time(p50Ms)],
  ["p99", ({ p99Ms }) => time(p99Ms)],
  ["dials", ({ dials }) => count.format(dials)],
  ["open at peak", ({ peak }) => count.format(peak)],
];

/** Names to the left, figures to the right. */
export function table(results: readonly Result[]): string {
  const rows = [columns.map(([title]) => title), ...results.map((result) => columns.map(([, text]) => text(result)))];
  const widths = columns.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => row.map((text, column) => pad(text, widths[column] ?? 0, column)).join("   ")).join("\n");
}

function pad(text: string, width: number, column: number): string {
  return column === 0 ? text.padEnd(width) : text.padStart(width);
}
