import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as errors from "../src/errors.ts";
import { defaultRules, limitNames, withLimits } from "../src/pool/config.ts";
import { makeEvents } from "../src/pool/events.ts";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
const readme = readFileSync(`${root}README.md`, "utf8");

interface Block {
  readonly language: string;
  readonly text: string;
  /** What stands behind it. */
  readonly rest: string;
}

const blocks: Block[] = [...readme.matchAll(/^```(\w*)\n(.*?)^```\n/gms)].map(
  ({ 0: whole, 1: language, 2: text, index }) => ({
    language: language ?? "",
    text: text ?? "",
    rest: readme.slice(index + whole.length),
  }),
);
const programs = blocks.filter(({ language }) => language === "ts");

/** The rows of the table under a heading, as cells. */
function table(heading: string): string[][] {
  const [, section = ""] = readme.split(`\n## ${heading}\n`);
  const [text = ""] = section.split("\n## ");
  const rows = text.split("\n").filter((line) => line.startsWith("| "));
  return rows.slice(1).map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** What stands in backticks in the cells of a column. */
function names(rows: readonly string[][], column: number): string[] {
  return rows.flatMap((row) => [...(row[column] ?? "").matchAll(/`(\w+)`/g)].map(([, name]) => name ?? ""));
}

/** The names of an interface's properties, or the members of a union of strings. */
function declared(file: string, pattern: RegExp, member: RegExp): string[] {
  const [, body = ""] = pattern.exec(readFileSync(`${root}src/${file}`, "utf8")) ?? [];
  return [...body.matchAll(member)].map(([, name]) => name ?? "");
}

describe("the README", () => {
  const folder = `${root}.build/readme/`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  after(() => rmSync(folder, { recursive: true, force: true }));

  test("every program in it compiles, and the first prints what stands under it", { timeout: 60_000 }, async () => {
    assert.ok(programs.length >= 6);
    for (const [i, { text }] of programs.entries()) writeFileSync(`${folder}program${i}.ts`, text);
    const compilerOptions = { rootDir: ".", outDir: ".", sourceMap: false, noUnusedLocals: false };
    const include = ["*.ts"];
    writeFileSync(
      `${folder}tsconfig.json`,
      JSON.stringify({ extends: "../../tsconfig.json", compilerOptions, include }),
    );
    const { stdout: complaints } = await run(process.execPath, [
      `${root}node_modules/typescript/bin/tsc`,
      "-p",
      folder,
    ]).catch((error: { stdout: string }) => error);
    assert.equal(complaints, "");
    const { stdout, stderr } = await run(process.execPath, [`${folder}program0.js`]);
    const [, printed = ""] = /^\n {4}(.*)\n/.exec(programs[0]?.rest ?? "") ?? [];
    assert.equal(stdout, `${printed}\n`);
    assert.equal(stderr, "");
  });

  test("the first program has 15 lines", () => {
    const lines = programs[0]?.text.split("\n").filter((line) => line.trim() !== "");
    assert.equal(lines?.length, 15);
  });

  test("the two commands stand in it", () => {
    assert.match(readme, /`npm ci && npm start`/);
    assert.match(readme, /`npm cit`/);
  });

  test("its table of options has every option, with its default", () => {
    const rows = table("Options");
    const others = declared("options.ts", /interface PoolOptions<.*?\{\n(.*?)\n\}/s, /^ {2}readonly (\w+)\?/gm);
    assert.ok(others.includes("hashKey"));
    assert.deepEqual(names(rows, 0).sort(), [...limitNames, ...others].sort());
    for (const name of limitNames) {
      const [, said] = rows.find(([cell]) => cell?.startsWith(`\`${name}\``)) ?? [];
      assert.ok(said === "false" || (name !== "backoff" && /^[\d.]+$/.test(said ?? "")), name);
      assert.deepEqual(
        withLimits(defaultRules, { [name]: said === "false" ? false : Number(said) }),
        defaultRules,
        name,
      );
    }
  });

  test("its table of errors has every class and every code", () => {
    const rows = table("Errors");
    const classes = Object.keys(errors).filter((name) => /^[A-Z]\w*Error$/.test(name));
    assert.deepEqual([...new Set(names(rows, 0))].sort(), classes.sort());
    const codes = declared("errors.ts", /type PoolErrorCode =(.*?);/s, /"(\w+)"/g);
    assert.ok(codes.length >= 10);
    assert.deepEqual(names(rows, 1).sort(), codes.sort());
  });

  test("its table of events has every event", () => {
    assert.deepEqual(names(table("Events"), 0).sort(), Object.keys(makeEvents("any")).sort());
  });

  test("it names every reason for which a conn is closed", () => {
    const reasons = declared("contract.ts", /type CloseReason =(.*?);/s, /"(\w+)"/g);
    assert.ok(reasons.length >= 11);
    for (const reason of reasons)
      assert.ok(readme.includes(`\`${reason}\` (`) || readme.includes(`\`${reason}\`,`), reason);
  });

  test("what it links to is there", () => {
    for (const [, path = ""] of readme.matchAll(/\]\((?!https?:)([^)]+)\)/g)) readFileSync(root + path);
  });
});
