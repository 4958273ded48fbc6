import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/**
 * The house, from the ground up. A file imports from its own folder and from lower floors. Type-only imports may point up
 * inside one folder: they leave nothing in the code that runs.
 */
const house: readonly (readonly string[])[] = [
  ["src/runtime"],
  ["src"], // what users import and what both sides agree on: contract, options, errors, argument
  ["src/net", "src/pool"],
  ["src/grpc", "src/drpc", "src/connect", "src/http2", "src/otel", "src/resolve", "src/testing"],
  ["src/index.ts"],
  ["src/cli"],
];

/** Floors inside `src/pool`, counted over what is imported to run. */
const mostPoolFloors = 8;
const mostLines = 500;

/** What an adapter may know of the pool: its type alone. */
const publicPool = "src/pool/pool.ts";

function filesIn(folder: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

const read = (file: string): string => readFileSync(join(root, file), "utf8");
const sources = filesIn("src").filter((file) => file.endsWith(".ts"));
const adapters = ["src/grpc", "src/drpc", "src/connect", "src/http2", "src/otel"];
const isAdapter = (file: string): boolean => adapters.some((folder) => file.startsWith(`${folder}/`));

function floorOf(file: string): number {
  return Math.max(
    house.findIndex((rooms) => rooms.includes(file)),
    house.findIndex((rooms) =>
      rooms.some((room) => dirname(file) === room || (file.startsWith(`${room}/`) && room !== "src")),
    ),
  );
}

/** A folder inside a room belongs to the room. */
function roomOf(file: string): string {
  return dirname(file).split("/").slice(0, 2).join("/");
}

interface Import {
  /** A file of this repository, or the name of a package. */
  readonly target: string;
  readonly typeOnly: boolean;
}

/** All imports and re-exports of a file, type imports included. */
function importsOf(file: string): Import[] {
  const code = read(file).replace(/^\s*(\/\*)?\*.*$|\/\/ .*$/gm, "");
  const statements = code.matchAll(/^(import|export)\b(\s+type\b)?[^;"]*?\bfrom\s+"([^"]+)"/gm);
  const others = code.matchAll(/()()\bimport\s*\(?\s*"([^"]+)"/g);
  return [...statements, ...others].map(([, , type, from = ""]) => ({
    target: from.startsWith(".") ? join(dirname(file), from) : from,
    typeOnly: type !== undefined && type !== "",
  }));
}

const imports = new Map(sources.map((file) => [file, importsOf(file)]));

/** Everything that can be reached from `file` by imports, itself included. */
function reachable(file: string, seen = new Set<string>()): Set<string> {
  if (seen.has(file)) return seen;
  seen.add(file);
  if (!existsSync(join(root, file))) return seen;
  const declares = file.endsWith(".d.ts");
  for (const { target } of importsOf(file))
    reachable(declares ? target.replace(/(\.d)?\.[jt]s$/, ".d.ts") : target, seen);
  return seen;
}

test("no file has more than 500 lines", () => {
  const long = [...sources, ...filesIn("test"), ...filesIn("examples")]
    .filter((file) => file.endsWith(".ts"))
    .map((file) => ({ file, lines: read(file).split("\n").length - 1 }))
    .filter(({ lines }) => lines > mostLines);
  assert.deepEqual(long, []);
});

test("what runs is imported in no circle", () => {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    assert.ok(!path.includes(file), `a circle: ${[...path, file].join(" -> ")}`);
    if (done.has(file)) return;
    for (const { target, typeOnly } of imports.get(file) ?? []) if (!typeOnly) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
});

test("imports point down; those of types alone may point up inside one folder", () => {
  for (const file of sources) {
    const floor = floorOf(file);
    assert.ok(floor >= 0, `${file} stands on no floor: say where, above`);
    for (const { target, typeOnly } of imports.get(file) ?? []) {
      if (!target.startsWith("src/") || roomOf(target) === roomOf(file)) continue;
      const pointsAtPool = typeOnly && target === publicPool && isAdapter(file);
      assert.ok(floorOf(target) < floor, `${file} imports ${target}`);
      if (target.startsWith("src/pool/") && file !== "src/index.ts")
        assert.ok(pointsAtPool, `${file} knows the inside of the pool: ${target}`);
    }
  }
});

test(`src/pool stands on ${mostPoolFloors} floors at most`, () => {
  const heights = new Map<string, number>();
  const height = (file: string): number => {
    const known = heights.get(file);
    if (known !== undefined) return known;
    const below = (imports.get(file) ?? []).filter(
      ({ target, typeOnly }) => !typeOnly && target.startsWith("src/pool/"),
    );
    const own = 1 + Math.max(0, ...below.map(({ target }) => height(target)));
    heights.set(file, own);
    return own;
  };
  const highest = Math.max(...sources.filter((file) => file.startsWith("src/pool/")).map(height));
  assert.ok(highest <= mostPoolFloors, `${highest} floors`);
});

test("the core names no transport; one file knows lru-cache", () => {
  for (const file of sources.filter((name) => !isAdapter(name))) {
    for (const { target } of imports.get(file) ?? []) {
      const lru = target === "lru-cache" && file === "src/pool/expiry.ts";
      assert.ok(target.startsWith("src/") || target.startsWith("node:") || lru, `${file} imports ${target}`);
    }
  }
});

test("importing the core or /drpc loads neither the code nor the types of grpc-js", () => {
  for (const entry of ["dist/index", "dist/drpc/index"]) {
    const types = [...reachable(`${entry}.d.ts`)];
    const code = [...reachable(`${entry}.js`)];
    assert.ok(code.length > 1 && types.length > 1, `${entry} imports nothing: is it built?`);
    assert.deepEqual(
      [...types, ...code].filter((name) => name.includes("grpc")),
      [],
    );
  }
  const loaded = (...entries: string[]): string[] => {
    const program = `import { createRequire } from "node:module";
      ${entries.map((entry) => `await import("${entry}");`).join("\n")}
      console.log(JSON.stringify(Object.keys(createRequire(import.meta.url).cache)));`;
    const output = execFileSync(process.execPath, ["--input-type=module", "-e", program], { cwd: root });
    return (JSON.parse(String(output)) as string[]).filter((file) => file.includes("@grpc"));
  };
  assert.deepEqual(loaded("rpc-conn-pool", "rpc-conn-pool/drpc"), []);
  assert.notDeepEqual(loaded("rpc-conn-pool/grpc"), [], "the check sees what is loaded");
});

test("the top level has source, examples, tests and the files that tools and readers look for there", () => {
  const made = ["node_modules", "dist", "coverage"];
  const folders = ["src", "examples", "test"];
  const files = ["package.json", "package-lock.json", "tsconfig.json", "tsconfig.build.json", "biome.json"];
  const allowed = new Set([...made, ...folders, ...files, "README.md", "CHANGELOG.md", "LICENSE"]);
  const left = readdirSync(root).filter((name) => !name.startsWith(".") && !allowed.has(name));
  assert.deepEqual(
    left.filter((name) => !/\.(log|tgz|cpuprofile)$/.test(name)),
    [],
  );
});

test("the README's table has every option of PoolOptions", (t) => {
  if (!existsSync(join(root, "README.md"))) return t.skip("there is no README yet");
  const rows = read("README.md")
    .split("\n")
    .filter((line) => line.startsWith("|"));
  const options = read("src/options.ts");
  const names = ["KeyLimits", "Limits", "PoolOptions"].flatMap((name) => {
    const body = new RegExp(`export interface ${name}\\b.*?\\n}`, "s").exec(options)?.[0] ?? "";
    return [...body.matchAll(/^ {2}readonly (\w+)\?/gm)].map(([, option = ""]) => option);
  });
  assert.ok(names.length > 15, "options found");
  assert.deepEqual(
    names.filter((name) => !rows.some((row) => row.split("|")[1]?.includes(`\`${name}\``))),
    [],
  );
});

test("the tree in src/README.md has every file, each with a line that says what it holds", () => {
  const [, tree = ""] = /^## The tree\n\n```\n(.*?)^```/ms.exec(read("src/README.md")) ?? [];
  const folders: string[] = [];
  const files: string[] = [];
  for (const line of tree.trimEnd().split("\n")) {
    const [, indent = "", name = "", what = ""] = /^( *)(\S+)\s*(.*)$/.exec(line) ?? [];
    folders.length = indent.length / 2;
    if (name.endsWith("/")) folders.push(name.slice(0, -1));
    else {
      files.push([...folders, name].join("/"));
      assert.notEqual(what, "", `${name} is in the tree without a word about it`);
    }
  }
  assert.deepEqual(files.sort(), sources.toSorted());
});

test("the table of states in src/README.md is the one that entry.ts has", () => {
  const [, section = ""] = read("src/README.md").split("\n## The life of a conn\n");
  const [, table = ""] = /\| state \| event \| next state \|\n(.*?)\n\n/s.exec(section) ?? [];
  const documented = [...table.matchAll(/^\| (\S+) \| (.*?) \| (.*?) \|$/gm)].flatMap(
    ([, state = "", events = "", next = ""]) =>
      events.split(", ").map((event) => `${state} -${event}-> ${next.replace(", with its first reason", "")}`),
  );
  const [, comment = ""] =
    /^ \* The pool's record of one conn.*?\n \*\n(.*?)\n \*\n/ms.exec(read("src/pool/entry.ts")) ?? [];
  const written = comment.split("\n").flatMap((line) => {
    const [, state = "", rest = ""] = /^ \* {5}(\S+) +(.*)$/.exec(line) ?? [];
    return [...rest.matchAll(/-([a-z, ]+)-> ([^\s,]+(?:, \S+ at 0)?)/g)].flatMap(([, events = "", next = ""]) =>
      events.split(", ").map((event) => `${state} -${event}-> ${next}`),
    );
  });
  assert.ok(written.length >= 16, `${written.length} transitions`);
  assert.deepEqual(documented.sort(), written.sort());
});
