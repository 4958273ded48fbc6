import type { Line, Target, Unit } from "./row.ts";

const widths = { name: 46, value: 16, ratio: 10 };

export function format(line: Line): string {
  const name = line.name.padEnd(widths.name);
  if ("skipped" in line) return `  ${name}  skipped: ${line.skipped}`;
  const value = amount(line.value, line.unit).padStart(widths.value);
  const ratio = (line.ratio === undefined ? "" : `${line.ratio.toFixed(2)} x`).padStart(widths.ratio);
  const rest = [line.of && `of ${line.of}`, line.target && verdict(line.target), line.note].filter(
    (text) => text !== undefined,
  );
  return `  ${name}${value}${ratio}   ${rest.join("; ")}`.trimEnd();
}

/** How many targets there are, and how many of them are met. */
export function countMet(lines: readonly Line[]): { readonly met: number; readonly of: number } {
  const targets = lines.flatMap((line) => ("target" in line && line.target !== undefined ? [line.target] : []));
  return { met: targets.filter(({ met }) => met).length, of: targets.length };
}

export function verdict({ is, limit, actual, unit, met }: Target): string {
  const sign = is === "at most" ? "≤" : "≥";
  return `target ${sign} ${amount(limit, unit)}: ${amount(actual, unit)} ${met ? "met" : "MISSED"}`;
}

export function amount(value: number, unit: Unit): string {
  if (unit === "count") return String(value);
  const digits = unit === "x" ? 2 : Math.abs(value) < 10 ? 1 : 0;
  return `${value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: unit === "x" ? 2 : 0 })} ${unit}`;
}
