/**
 * The table of examples/README.md that says what the package runs with, row by row. It installs compilers, bundlers and runtimes, so it is no part of `npm test`:
 * run it with `npm run test:support`. It needs the registry.
 */
import assert from "node:assert/strict";
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { printed } from "../support/printed.ts";
import { Installation, runtime } from "./install.ts";
import { commonJs, esModule, jestTest, oneCopy, typeScript, types, vitestTest } from "./programs.ts";

const nodes = ["20.19.0", "20", "22.12.0", "22", "24", "26"] as const;
const typeScripts = ["5.4.5", "5.7.3", "5.9.3", "6.0.3", "7.0.2"] as const;

const examples = fileURLToPath(new URL("../../../examples/", import.meta.url));

/** What the examples import beside the package and grpc-js, in the versions that it is tested with. */
const { devDependencies } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
  devDependencies: Readonly<Record<string, string>>;
};
const examplesNeed = [
  "@bufbuild/protobuf",
  "@connectrpc/connect",
  "@connectrpc/connect-node",
  "@opentelemetry/exporter-prometheus",
  "@opentelemetry/sdk-metrics",
  "@protobuf-ts/runtime",
  "@protobuf-ts/runtime-rpc",
  "nice-grpc",
].map((name) => `${name}@${devDependencies[name]}`);

const limit = { timeout: 300_000 };
const passed = "passed\n";

describe("what the package runs with", { timeout: 2_400_000 }, () => {
  let home: Installation;
  before(
    async () => {
      home = await Installation.of([
        "@grpc/grpc-js@1.14.7",
        "@opentelemetry/api@1.9.1",
        "@types/node@22.19.0",
        ...typeScripts.map((version) => `typescript-${version}@npm:typescript@${version}`),
        "tsx@4.23.15",
        "vitest@5.1.1",
        "jest@30.5.2",
        "esbuild@0.28.2",
        "rollup@4.68.7",
        "@rollup/plugin-commonjs",
        "@rollup/plugin-node-resolve",
        "fastify@5.12.8",
        "@nestjs/common@12.5.1",
        "@nestjs/core@12.5.1",
        "@nestjs/microservices@12.1.1",
        "@grpc/proto-loader@0.8.1",
        "reflect-metadata@0.2.2",
        "rxjs@7.8.2",
        "libp2p@3.3.11",
        "@libp2p/tcp@11.0.28",
        "@chainsafe/libp2p-noise@17.0.0",
        "@chainsafe/libp2p-yamux@8.0.1",
        "starpc@0.49.3",
        ...examplesNeed,
      ]);
      home.write("program.mjs", esModule);
      home.write("program.cjs", commonJs);
      home.write("one-copy.cjs", oneCopy);
    },
    { timeout: 900_000 },
  );
  after(() => home.remove());

  for (const version of nodes) {
    test(`Node ${version}: import, require, and both are one copy`, limit, async () => {
      const node = await runtime("node", version);
      for (const program of ["program.mjs", "program.cjs", "one-copy.cjs"])
        assert.equal(await home.run(node, program), passed, program);
    });
  }

  test("Bun: core and DRPC, import and require", limit, async () => {
    const bun = await runtime("bun", "1.4.5");
    for (const program of ["program.mjs", "program.cjs", "one-copy.cjs"])
      assert.equal(await home.run(bun, program), passed, program);
  });

  test("Deno: core and DRPC, import and require", limit, async () => {
    const deno = await runtime("deno", "2.9.6");
    for (const program of ["program.mjs", "program.cjs", "one-copy.cjs"])
      assert.equal(await home.run(deno, "run", "--allow-all", program), passed, program);
  });

  for (const version of typeScripts) {
    const major = Number.parseInt(version, 10);
    const ways = [
      { name: "nodenext, ES module", file: "types.mts", options: "--module nodenext" },
      { name: "nodenext, CommonJS", file: "types.cts", options: "--module nodenext" },
      { name: "node16, CommonJS", file: "types.cts", options: "--module node16" },
      { name: "bundler", file: "types.mts", options: "--module esnext --moduleResolution bundler" },
      { name: "es2020 and its library", file: "types.cts", options: "--module nodenext --target es2020 --lib es2020" },
      {
        name: "node10",
        file: "types.ts",
        options: `--module commonjs --moduleResolution node10${major === 6 ? " --ignoreDeprecations 6.0" : ""}`,
      },
    ];
    for (const { name, file, options } of ways.filter((way) => way.name !== "node10" || major < 7)) {
      test(`TypeScript ${version}: ${name}`, limit, async () => {
        home.write(file, types);
        assert.deepEqual(await home.complaints(`typescript-${version}`, options, file), []);
      });
    }
  }

  for (const [version, files] of [
    ["20", ["tsx-program.mts", "tsx-program.ts"]],
    ["24", ["tsx-program.mts", "tsx-program.ts", "tsx-program.cts"]],
  ] as const) {
    // On Node 20 tsx cannot start with a file that is named .cts and requires any ES module.
    test(`tsx on Node ${version}: ES modules and CommonJS`, limit, async () => {
      const node = await runtime("node", version);
      for (const file of files) {
        home.write(file, typeScript);
        assert.equal(await home.run(node, home.path("tsx", "dist", "cli.mjs"), file), passed, file);
      }
    });
  }

  test("Vitest, fake timers included", limit, async () => {
    home.write("vitest/pool.test.ts", vitestTest);
    // Vitest 5 wants a newer Node than 20.
    const node = await runtime("node", "24");
    await home.run(node, home.path("vitest", "vitest.mjs"), "run", "--root", "vitest");
  });

  for (const version of ["20", "24"]) {
    test(`Jest on Node ${version}, fake timers included`, limit, async () => {
      home.write("jest/pool.test.js", jestTest);
      const node = await runtime("node", version);
      await home.run(node, home.path("jest", "bin", "jest.js"), "--rootDir", "jest");
    });
  }

  for (const file of ["program.mjs", "program.cjs"]) {
    test(`esbuild bundles ${file}`, limit, async () => {
      const [bundle, options] = ["bundled-esbuild.cjs", "--bundle --platform=node --log-level=error"];
      const esbuild = home.path("esbuild", "bin", "esbuild");
      await home.run(esbuild, file, ...options.split(" "), `--outfile=${bundle}`);
      assert.equal(await home.run(process.execPath, bundle), passed);
    });
    test(`rollup bundles ${file}`, limit, async () => {
      const bundle = "bundled-rollup.mjs";
      const options = `--file ${bundle} --format es --failAfterWarnings -p node-resolve={preferBuiltins:true} -p commonjs`;
      await home.run(process.execPath, home.path("rollup", "dist", "bin", "rollup"), file, ...options.split(" "));
      assert.equal(await home.run(process.execPath, bundle), passed);
    });
  }

  // These take types out by themselves.
  for (const version of ["22.18.0", "24"]) {
    test(`its examples, copied out of the installed package, on Node ${version}`, limit, async () => {
      cpSync(home.path("rpc-conn-pool", "examples"), `${home.folder}/copied`, { recursive: true });
      home.write("copied/package.json", JSON.stringify({ type: "module" }));
      const node = await runtime("node", version);
      const programs = readdirSync(`${home.folder}/copied`).filter((name) => name.endsWith(".ts"));
      for (const name of programs) {
        const expected = printed(readFileSync(`${home.folder}/copied/${name}`, "utf8"));
        assert.equal(await home.run(node, `copied/${name}`), expected, name);
      }
    });
  }

  for (const name of readdirSync(`${examples}packages`)) {
    const file = `examples/packages/${name}`;
    test(file, limit, async () => {
      cpSync(`${examples}packages`, `${home.folder}/examples/packages`, { recursive: true });
      cpSync(`${examples}gen/greeter.proto`, `${home.folder}/examples/gen/greeter.proto`);
      home.write("examples/package.json", JSON.stringify({ type: "module" }));
      for (const version of ["5.9.3", "7.0.2"])
        assert.deepEqual(await home.complaints(`typescript-${version}`, "--module nodenext", file), []);
      const node = await runtime("node", "24");
      assert.equal(await home.run(node, file), printed(readFileSync(`${examples}packages/${name}`, "utf8")));
    });
  }
});
