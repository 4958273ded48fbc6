import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as errors from "../src/errors.ts";
import { configOf, defaultRules, limitNames, withLimits } from "../src/pool/config.ts";
import { makeEvents } from "../src/pool/events.ts";
import { type GreeterServers, startGreeters } from "./support/greeter-servers.ts";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));

/** What people read, by its path. */
const documents = new Map(
  [
    "README.md",
    "src/README.md",
    "examples/README.md",
    "test/README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
  ].map((path) => [path, readFileSync(root + path, "utf8")]),
);
const readme = documents.get("README.md") ?? "";
const guide = documents.get("examples/README.md") ?? "";

interface Program {
  readonly file: string;
  readonly text: string;
  /** What stands under it as what it prints, or beside its `console.log`; `undefined`: nothing does. */
  readonly prints: string | undefined;
}

/** The programs of a document, in their order. */
function programsOf(path: string, document: string): Program[] {
  return [...document.matchAll(/^```ts\n(.*?)^```\n/gms)].map(({ 0: whole, 1: text = "", index }, i) => {
    const [, printed] = /^\n((?: {4}.*\n)+)/.exec(document.slice(index + whole.length)) ?? [];
    const beside = [...text.matchAll(/console\.log\(.*\); \/\/ (.*\n)/g)].map(([, line = ""]) => line).join("");
    const name = path.replaceAll(/\W+/g, "-").replace(/^-/, "").toLowerCase();
    const prints = printed?.replaceAll(/^ {4}/gm, "") ?? (beside === "" ? undefined : beside);
    return { file: `${name}-${i + 1}`, text, prints };
  });
}

/** The comments of the entry points, without their asterisks. */
const entryPoints = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" })
  .filter((path) => /^(\w+[\\/])?index\.ts$/.test(path))
  .map((path) => [`src/${path}`, readFileSync(`${root}src/${path}`, "utf8").replaceAll(/^ \* ?/gm, "")] as const);

const programs = [...documents, ...entryPoints].flatMap(([path, document]) => programsOf(path, document));

/** The rows of the table under a heading, as cells. */
function table(document: string, heading: string): string[][] {
  const [, section = ""] = document.split(`\n## ${heading}\n`);
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

/** The anchors that a reader can jump to, as GitHub makes them of headings. */
function anchors(document: string): string[] {
  return [...document.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, "")
      .replaceAll(" ", "-"),
  );
}

describe("the programs of the documents", () => {
  const folder = `${root}.build/readme/`;
  let servers: GreeterServers;
  before(async () => {
    servers = await startGreeters();
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    cpSync(`${root}examples/gen`, `${folder}gen`, { recursive: true });
    for (const { file, text } of programs) {
      let program = text; // as pasted, but for the ports: these are free on every machine
      for (const [address, real] of servers.addresses) program = program.replaceAll(address, real);
      writeFileSync(`${folder}${file}.ts`, program);
    }
    const compilerOptions = { rootDir: ".", outDir: ".", sourceMap: false, noUnusedLocals: false };
    const include = ["**/*.ts"];
    writeFileSync(
      `${folder}tsconfig.json`,
      JSON.stringify({ extends: "../../tsconfig.json", compilerOptions, include }),
    );
  });
  after(async () => {
    await servers[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test("all of them compile", { timeout: 60_000 }, async () => {
    assert.ok(programs.length >= 6);
    const { stdout: complaints } = await run(process.execPath, [
      `${root}node_modules/typescript/bin/tsc`,
      "-p",
      folder,
    ]).catch((error: { stdout: string }) => error);
    assert.equal(complaints, "");
  });

  for (const { file, prints } of programs) {
    test(`${file} runs to its end, and prints what it is said to print`, { timeout: 60_000 }, async () => {
      const { stdout, stderr } = await run(process.execPath, [`${folder}${file}.js`]);
      assert.equal(stdout, prints ?? "");
      assert.equal(stderr, "");
    });
  }

  test("none has more than 15 lines", () => {
    const lines = programs.map(({ file, text }) => ({
      file,
      lines: text.split("\n").filter((line) => line.trim() !== "").length,
    }));
    assert.deepEqual(
      lines.filter((program) => program.lines > 15),
      [],
    );
  });

  test("the first of the README prints something", () => assert.notEqual(programs[0]?.prints ?? "", ""));
});

describe("the README", () => {
  test("it is read to its end: 180 lines at most", () => {
    const lines = readme.trimEnd().split("\n").length;
    assert.ok(lines <= 180, `${lines} lines`);
  });

  test("the two commands stand on its first screen", () => {
    const screen = readme.split("\n").slice(0, 40).join("\n");
    assert.match(screen, /`npm ci && npm start`/);
    assert.match(screen, /`npm cit`/);
  });

  test("its table of options has every option, with its default", () => {
    const rows = table(readme, "Options");
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

  test("its table of options has the defaults of what is no limit, too", () => {
    const { selection, name, leakAfterMs } = configOf({});
    const said = (option: string) => table(readme, "Options").find(([cell]) => cell?.startsWith(`\`${option}\``))?.[1];
    assert.equal(said("selection"), `\`"${String(selection)}"\``);
    assert.ok(said("name")?.startsWith(`\`"${name}"\``));
    assert.equal(said("leakAfterMs"), String(leakAfterMs));
  });

  test("its table of errors has every class and every code", () => {
    const rows = table(readme, "Errors");
    const classes = Object.keys(errors).filter((name) => /^[A-Z]\w*Error$/.test(name));
    assert.deepEqual([...new Set(names(rows, 0))].sort(), classes.sort());
    const codes = declared("errors.ts", /type PoolErrorCode =(.*?);/s, /"(\w+)"/g);
    assert.ok(codes.length >= 10);
    assert.deepEqual(names(rows, 1).sort(), codes.sort());
  });
});

describe("the guide beside the examples", () => {
  test("its table of events has every event", () => {
    assert.deepEqual(names(table(guide, "Events"), 0).sort(), Object.keys(makeEvents("any")).sort());
  });

  test("it names every reason for which a conn is closed", () => {
    const reasons = declared("contract.ts", /type CloseReason =(.*?);/s, /"(\w+)"/g);
    assert.ok(reasons.length >= 11);
    for (const reason of reasons)
      assert.ok(guide.includes(`\`${reason}\` (`) || guide.includes(`\`${reason}\`,`), reason);
  });

  test("its table of methods has every method of a pool", () => {
    const methods = declared(
      "pool/pool.ts",
      /^export class Pool<.*?\{\n(.*?)\n\}/ms,
      /^ {2}(?:async |\*)?(\w+)(?:<.*?>)?\(/gm,
    );
    assert.ok(methods.includes("tryAcquire"));
    const listed = [...guide.matchAll(/`(\w+)\(/g)].map(([, name]) => name ?? "");
    assert.deepEqual(
      methods.filter((name) => name !== "constructor" && !listed.includes(name)),
      [],
    );
  });

  test("it has a line for each example", () => {
    const examples = readdirSync(`${root}examples`).filter((name) => name.endsWith(".ts"));
    const linked = [...guide.matchAll(/^\| \[[^\]]*\]\(([\w-]+\.ts)\)/gm)].map(([, name]) => name ?? "");
    assert.deepEqual(linked.sort(), examples.sort());
  });
});

describe("every entry point", () => {
  for (const [path, comment] of entryPoints)
    test(`${path} begins with what it is for, and an example`, () => {
      assert.match(comment, /^\/\*\*\n\w.*\n\n@example\n```ts\n/);
      assert.equal(programsOf(path, comment).length, 1);
    });
});

describe("every document", () => {
  for (const [path, document] of documents) {
    test(`${path}: what it links to is there`, () => {
      for (const [, target = ""] of document.matchAll(/\]\((?!https?:)([^)]+)\)/g)) {
        const [file = "", anchor] = target.split("#");
        const linked = file === "" ? path : join(dirname(path), file);
        assert.ok(existsSync(root + linked), target);
        if (anchor !== undefined) assert.ok(anchors(readFileSync(root + linked, "utf8")).includes(anchor), target);
      }
    });

    test(`${path}: the scripts that it names are there`, () => {
      const { scripts } = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as { scripts: object };
      for (const [, name = ""] of document.matchAll(/\bnpm run (?:-s |--silent )?([a-z][\w:]*)/g))
        assert.ok(name in scripts, name);
    });

    test(`${path}: the files of the repository that its commands name are there`, () => {
      for (const [, name = ""] of document.matchAll(/\.build\/((?:test|examples)\/[\w./-]+)(?:\.js)/g))
        assert.ok(existsSync(`${root}${name}.ts`), name);
    });
  }
});
