import { readFileSync } from "node:fs";
import { SourceMap } from "node:module";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * A reporter of `node:test`: how much of `src` the suites run, in lines and branches, and where there is a hole. Of the
 * tests it tells those that fail. `npm run test:coverage`.
 */
const target = 97;
const root = fileURLToPath(new URL("../../", import.meta.url));

/** What `node:test` tells; its types name less. */
interface CoveredFile {
  readonly path: string;
  readonly totalLineCount: number;
  readonly coveredLineCount: number;
  readonly totalBranchCount: number;
  readonly coveredBranchCount: number;
  readonly lines: readonly { readonly line: number; readonly count: number }[];
  readonly branches?: readonly { readonly line: number; readonly count: number }[];
}

interface Told {
  readonly type: string;
  readonly data: {
    readonly name?: string;
    readonly file?: string;
    readonly summary?: { readonly files: CoveredFile[] };
  };
}

export default async function* report(told: AsyncIterable<Told>): AsyncGenerator<string> {
  let isTold = false;
  for await (const { type, data } of told) {
    if (type === "test:fail") yield `failed: ${data.name} (${data.file})\n`;
    if (type !== "test:coverage" || data.summary === undefined) continue;
    isTold = true;
    yield* covered(data.summary.files);
  }
  if (isTold) return;
  yield "This Node tells no coverage of compiled TypeScript: take Node 22 or later\n";
  process.exitCode = 1;
}

function* covered(all: readonly CoveredFile[]): Generator<string> {
  const files = all.filter(({ path }) => path.startsWith(`${root}.build/src/`));
  const share = (part: number, of: number): string => ((part / Math.max(of, 1)) * 100).toFixed(1);
  const sum = (count: (file: CoveredFile) => number): number => files.reduce((total, file) => total + count(file), 0);
  for (const file of files.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
    if (file.coveredBranchCount === file.totalBranchCount && file.coveredLineCount === file.totalLineCount) continue;
    const lines = share(file.coveredLineCount, file.totalLineCount);
    const branches = share(file.coveredBranchCount, file.totalBranchCount);
    yield `${relative(`${root}.build/src`, file.path)}: lines ${lines} %, branches ${branches} %, not run: ${holes(file).join(", ")}\n`;
  }
  const lines = share(
    sum((file) => file.coveredLineCount),
    sum((file) => file.totalLineCount),
  );
  const branches = share(
    sum((file) => file.coveredBranchCount),
    sum((file) => file.totalBranchCount),
  );
  yield `src: lines ${lines} %, branches ${branches} %; wanted: ${target} %\n`;
  if (Number(lines) < target || Number(branches) < target) process.exitCode = 1;
}

/** Lines of the TypeScript that did not run, or that have a branch which did not. */
function holes({ path, lines, branches = [] }: CoveredFile): number[] {
  const map = new SourceMap(JSON.parse(readFileSync(`${path}.map`, "utf8")));
  const code = readFileSync(path, "utf8").split("\n");
  const found = [...lines, ...branches].filter(({ count }) => count === 0).map(({ line }) => line);
  const places = found.map((line) => {
    const start = (code[line - 1] ?? "").search(/\S/);
    const entry = map.findEntry(line - 1, Math.max(start, 0));
    return "originalLine" in entry ? entry.originalLine + 1 : 0;
  });
  return [...new Set(places)].toSorted((a, b) => a - b);
}
