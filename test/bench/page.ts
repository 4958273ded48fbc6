import { formatHeader, type Header } from "./header.ts";
import type { Line } from "./row.ts";
import { amount, countMet, verdict } from "./table.ts";

export interface SectionResult {
  readonly name: string;
  readonly title: string;
  readonly lines: readonly Line[];
}

/** A run of the bench as a page of Markdown. */
export function page(header: Header, sections: readonly SectionResult[]): string {
  const { met, of } = countMet(sections.flatMap(({ lines }) => lines));
  const code = formatHeader(header).replaceAll(/^/gm, "    ");
  const parts = ["# Benchmark", code, ...sections.map(sectionOf), `${met} of ${of} targets met.`];
  return `${parts.join("\n\n")}\n`;
}

function sectionOf({ name, title, lines }: SectionResult): string {
  const head = ["| | median | beside the base | target, and what to know |", "|---|---:|---:|---|"];
  return [`## ${name}: ${title}`, "", ...head, ...lines.map(rowOf)].join("\n");
}

function rowOf(line: Line): string {
  if ("skipped" in line) return row([line.name, "", "", `skipped: ${line.skipped}`]);
  const beside = line.ratio === undefined ? "" : `${line.ratio.toFixed(2)} ×${line.of ? ` of ${line.of}` : ""}`;
  const rest = [line.target && verdict(line.target), line.note].filter((text) => text !== undefined);
  return row([line.name, amount(line.value, line.unit), beside, rest.join("; ")]);
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}
