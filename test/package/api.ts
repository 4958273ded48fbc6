import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** The committed report. */
export const reportFile: string = join(root, "test/types/api.txt");

/** A declaration file's top-level statements, without comments. */
function statementsOf(file: string): string[] {
  const code = readFileSync(file, "utf8").replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  const statements: string[] = [];
  for (const line of code.split("\n").map((one) => one.trimEnd())) {
    if (line === "") continue;
    if (/^[a-z]/.test(line)) statements.push(line);
    else statements.push(`${statements.pop()}\n${line}`);
  }
  return statements;
}

/** The declaration file that an import in `file` means. */
const target = (file: string, from: string): string => join(dirname(file), from.replace(/\.ts$/, ".d.ts"));

/**
 * All names that a declaration file exports, with their declarations. Those that the file keeps to itself are listed too,
 * as exported ones refer to them.
 */
function exportsOf(file: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const statement of statementsOf(file)) {
    const [, list, from] = /^export (?:type )?(\*|\{[^}]*\})(?: from "(.+)")?;$/s.exec(statement) ?? [];
    if (list === "*" && from !== undefined) {
      for (const [name, declaration] of exportsOf(target(file, from))) found.set(name, declaration);
    } else if (list !== undefined && from !== undefined) {
      const declared = exportsOf(target(file, from));
      for (const name of list.matchAll(/\b(?!type\b)\w+/g)) found.set(name[0], declared.get(name[0]) ?? "");
      for (const [name, declaration] of declared) if (!declaration.startsWith("export ")) found.set(name, declaration);
    } else if (list === undefined && !statement.startsWith("import ")) {
      const [, name] = /^(?:export )?(?:declare )?(?:abstract )?(?:\w+) (\w+)/.exec(statement) ?? [];
      if (name === undefined) throw new Error(`${file}: cannot read ${statement}`);
      found.set(name, `${found.get(name) ?? ""}${found.has(name) ? "\n" : ""}${statement}`);
    }
  }
  return found;
}

/** The public types, as the compiler has written them: every entry point's names in order, each declared once. */
export function apiReport(): string {
  const { exports }: { exports: Record<string, string | { default: string }> } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  const parts = ["The public types. Made by `npm run api`; a test compares them.\n"];
  const declaredIn = new Map<string, string>();
  for (const [entry, files] of Object.entries(exports)) {
    if (typeof files === "string") continue;
    const title = `rpc-conn-pool${entry.slice(1)}`;
    parts.push(`\n=== ${title} ===\n`);
    const names = exportsOf(join(root, files.default.replace(/\.js$/, ".d.ts")));
    for (const [name, declaration] of [...names].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const before = declaredIn.get(declaration);
      declaredIn.set(declaration, before ?? title);
      parts.push(before === undefined ? declaration : `${name}: see ${before}`);
    }
  }
  return `${parts.join("\n")}\n`;
}

if (process.argv.includes("--write")) writeFileSync(reportFile, apiReport());
