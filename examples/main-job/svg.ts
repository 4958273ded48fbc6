import { count, highest, quantities } from "./plot.ts";
import type { Result } from "./workload.ts";

const [left, top, width, height, gap] = [70, 76, 560, 170, 70];
const colours = ["#d0453e", "#d98a1f", "#2f6fde"];

const style = `
  text { font: 13px system-ui, sans-serif; fill: #1b2430 }
  .soft { fill: #5c6773; font-size: 12px }
  .title { font-weight: 600; font-size: 15px }
  .paper { fill: #ffffff }
  .grid { stroke: #dfe3e8 }
  path { fill: none; stroke-width: 2.5; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6eaf0 } .soft { fill: #98a4b3 } .paper { fill: #12161c } .grid { stroke: #303945 }
  }`;

/** The same as the plot in the terminal, as a picture: a panel for each quantity, a line for each way. */
export function svg(results: readonly Result[]): string {
  const endMs = Math.max(1, ...results.flatMap(({ samples }) => samples.map(({ atMs }) => atMs)));
  const panels = quantities.map(({ title, of }, panel) => {
    const most = nice(highest(results, of));
    const at = top + panel * (height + gap);
    const x = (ms: number): string => (left + (ms / endMs) * width).toFixed(1);
    const y = (value: number): string => (at + height - (value / most) * height).toFixed(1);
    const lines = [0, 0.25, 0.5, 0.75, 1].map((part) => {
      const level = y(part * most);
      const label = `<text class="soft" x="${left - 8}" y="${Number(level) + 4}" text-anchor="end">${count.format(part * most)}</text>`;
      return `<line class="grid" x1="${left}" x2="${left + width}" y1="${level}" y2="${level}"/>${label}`;
    });
    const traces = results.map(({ samples }, i) => {
      const points = samples.map((sample) => `${x(sample.atMs)},${y(of(sample))}`);
      return `<path stroke="${colours[i]}" d="M${points.join("L")}"/>`;
    });
    const heading = `<text class="title" x="${left}" y="${at - 14}">${title}</text>`;
    return [heading, ...lines, ...traces].join("\n");
  });
  const total = top + quantities.length * (height + gap) - 10;
  const legend = results.map(({ name }, i) => {
    const from = left + i * 190;
    return `<rect x="${from}" y="17" width="12" height="12" rx="3" fill="${colours[i]}"/><text x="${from + 18}" y="28">${name}</text>`;
  });
  const seconds = `<text class="soft" x="${left + width}" y="${total - 30}" text-anchor="end">${(endMs / 1000).toFixed(1)} s</text>`;
  const start = `<text class="soft" x="${left}" y="${total - 30}">0 s</text>`;
  const size = `viewBox="0 0 ${left + width + 30} ${total}" width="${left + width + 30}" height="${total}"`;
  const paper = `<rect class="paper" width="100%" height="100%"/>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-label="the same calls in three ways">`,
    `<style>${style}</style>`,
    paper,
    ...legend,
    ...panels,
    start,
    seconds,
    "</svg>\n",
  ].join("\n");
}

/** The next round number: 1, 2, 4 or 8 times a power of ten. */
function nice(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 4, 8].find((step) => step * power >= value) ?? 10) * power;
}
