import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Files of the core, floor by floor: each imports from lower floors only. */
const floors: readonly (readonly string[])[] = [
  ["abort", "clock", "contract", "http2", "list", "register", "rounds", "thenable"],
  ["errors", "options", "schedule", "selection", "stream"],
  ["address", "argument", "closing", "conn", "dialing", "idle", "stats", "waiter"],
  ["demand", "events", "limits", "request", "socket"],
  ["backoff", "choice", "connect", "settings"],
  ["shelf"],
  ["peer"],
  ["census", "directory", "herald", "leaks", "lifetime", "pause", "queue", "warmer"],
  ["blocks", "screen"],
  ["roster"],
  ["caps", "dialer", "handout", "health"],
  ["places"],
  ["keeper"],
  ["attendant", "planner"],
  ["dispatcher"],
  ["exchange", "handle", "lease", "sweep"],
  ["pool"],
  ["index"],
];
const floorOf: ReadonlyMap<string, number> = new Map(
  floors.flatMap((names, floor) => names.map((name) => [`src/${name}.ts`, floor] as const)),
);

/** What an adapter may know of the core; of the pool, the type alone. */
const knownToAdapters = ["contract", "errors", "abort", "address", "http2", "pool"].map((name) => `src/${name}.ts`);

/** Waiting to be split. */
const tooLong = new Set<string>();

function filesIn(folder: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

const read = (file: string): string => readFileSync(join(root, file), "utf8");
const sources = filesIn("src").filter((file) => file.endsWith(".ts"));
const isCore = (file: string): boolean => dirname(file) === "src";

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

test("no file has more than 300 lines", () => {
  const long = [...sources, ...filesIn("test"), ...filesIn("examples")]
    .filter((file) => file.endsWith(".ts") && !tooLong.has(file))
    .map((file) => ({ file, lines: read(file).split("\n").length - 1 }))
    .filter(({ lines }) => lines > 300);
  assert.deepEqual(long, []);
});

test("imports go round in no circle, types included", () => {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    assert.ok(!path.includes(file), `a circle: ${[...path, file].join(" -> ")}`);
    if (done.has(file)) return;
    for (const { target } of imports.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
});

test("every file of the core stands on a floor, and imports from lower floors only", () => {
  for (const file of sources.filter(isCore)) {
    const floor = floorOf.get(file);
    assert.ok(floor !== undefined, `${file} stands on no floor: say where, above`);
    for (const { target } of imports.get(file) ?? []) {
      const below = floorOf.get(target);
      if (target.startsWith("src/")) assert.ok(below !== undefined && below < floor, `${file} imports ${target}`);
    }
  }
  for (const file of floorOf.keys()) assert.ok(imports.has(file), `${file} is gone`);
});

test("the core names no transport and no adapter; src/idle.ts alone knows of lru-cache", () => {
  for (const file of sources.filter(isCore)) {
    for (const { target } of imports.get(file) ?? []) {
      const allowed =
        isCore(target) || target.startsWith("node:") || (file === "src/idle.ts" && target === "lru-cache");
      assert.ok(allowed, `${file} imports ${target}`);
    }
  }
});

test("adapters know the contract, the errors, abort, addresses, what is usual over HTTP/2 and the type of the pool, and no other adapter", () => {
  for (const file of sources.filter((name) => !isCore(name))) {
    for (const { target, typeOnly } of imports.get(file) ?? []) {
      if (!target.startsWith("src/") || dirname(target) === dirname(file)) continue;
      assert.ok(knownToAdapters.includes(target), `${file} imports ${target}`);
      if (target === "src/pool.ts") assert.ok(typeOnly, `${file} imports more than the type of the pool`);
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
