import type { Result, Sample } from "./workload.ts";

/** What is drawn over time. */
export interface Quantity {
  readonly title: string;
  readonly of: (sample: Sample) => number;
}

export const quantities: readonly Quantity[] = [
  { title: "calls a second", of: ({ callsPerSecond }) => callsPerSecond },
  { title: "open connections", of: ({ open }) => open },
];

export const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const eighths = " ▁▂▃▄▅▆▇█";
const [width, height] = [60, 3];

/** Both quantities of each way over time, for a terminal: bars of one scale. */
export function plot(results: readonly Result[]): string {
  const indent = Math.max(...results.map(({ name }) => name.length));
  const seconds = Math.max(...results.map(({ samples }) => (samples.at(-1)?.atMs ?? 0) / 1_000)).toFixed(1);
  return quantities
    .map(({ title, of }) => {
      const most = highest(results, of);
      const rows = results.flatMap(({ name, samples }) => {
        const last = samples.at(-1);
        const label = [name, ...Array.from({ length: height - 1 }, () => "")];
        const end = ["", "", last === undefined ? "none" : count.format(of(last))];
        return bars(spread(samples, of), most).map(
          (line, i) => `${(label[i] ?? "").padEnd(indent)} │${line} ${end[i] ?? ""}`,
        );
      });
      return [`${title}, 0 to ${count.format(most)}, over ${seconds} s`, ...rows].join("\n");
    })
    .join("\n\n");
}

export function highest(results: readonly Result[], of: Quantity["of"]): number {
  return Math.max(1, ...results.flatMap(({ samples }) => samples.map(of)));
}

/** The value at each column: of the sample that covers it. */
function spread(samples: readonly Sample[], of: Quantity["of"]): number[] {
  const end = samples.at(-1)?.atMs ?? 0;
  return Array.from({ length: width }, (_, column) => {
    const sample = samples.find(({ atMs }) => atMs >= ((column + 0.5) / width) * end);
    return sample === undefined ? 0 : of(sample);
  });
}

/** Lines of blocks, the upper first. What is not nothing is seen. */
function bars(values: readonly number[], most: number): string[] {
  return Array.from({ length: height }, (_, line) => {
    const below = (height - 1 - line) * 8;
    return values
      .map((value) => (value === 0 ? 0 : Math.max(1, Math.round((value / most) * height * 8))))
      .map((full) => eighths[Math.min(Math.max(full - below, 0), 8)])
      .join("");
  });
}
