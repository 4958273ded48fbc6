// Makes what is run and published: `node .ci/build.mjs [tests | package]`, from the root.
//   dist      the library as ES modules, with types; dist/cjs the same as CommonJS
//   tests     also .build: library, examples and tests, to be run
//   package   also, for those who require, a CommonJS bundle of it-pushable, which npm has as an ES module only
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const [what] = process.argv.slice(2);
const remove = (folder) => rmSync(folder, { recursive: true, force: true });

function tsc(...options) {
  const { status } = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", ...options], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

remove("dist");
tsc("-p", "tsconfig.build.json");
const commonJs = "--module commonjs --moduleResolution bundler --verbatimModuleSyntax false";
tsc("-p", "tsconfig.build.json", "--outDir", "dist/cjs", ...commonJs.split(" "));
writeFileSync("dist/cjs/package.json", JSON.stringify({ type: "commonjs" }));

if (what === "tests") {
  remove(".build");
  tsc("-p", "tsconfig.json");
}

if (what === "package") {
  const folder = "dist/cjs/drpc";
  for (const name of readdirSync(folder)) {
    const code = readFileSync(`${folder}/${name}`, "utf8");
    writeFileSync(`${folder}/${name}`, code.replace('require("it-pushable")', 'require("./it-pushable.js")'));
  }
  const { build } = await import("esbuild");
  await build({
    entryPoints: ["it-pushable"],
    outfile: `${folder}/it-pushable.js`,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    conditions: ["import"],
    logLevel: "warning",
    banner: {
      js: "// it-pushable and p-defer, both MIT: https://github.com/alanshaw/it-pushable https://github.com/sindresorhus/p-defer",
    },
  });
}
