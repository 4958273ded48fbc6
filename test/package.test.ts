import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
const manifest: {
  readonly main: string;
  readonly types: string;
  readonly typesVersions: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
  readonly scripts: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
  readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional: boolean }>>;
} = JSON.parse(readFileSync(`${root}package.json`, "utf8"));

/** Entry points that cannot be loaded without their peer dependency. */
const needsPeer = new Set(["./grpc", "./otel"]);

/** What programs import. */
const entries = Object.keys(manifest.exports).filter((name) => !name.endsWith(".json"));

/**
 * A program's folder in which this package is installed with its dependencies, and no peers: empty packages stand in for
 * those, lest one is found in a folder further up.
 */
function bareInstall(): string {
  const folder = mkdtempSync(join(tmpdir(), "rpc-conn-pool-"));
  const modules = join(folder, "node_modules");
  const own = join(modules, "rpc-conn-pool");
  mkdirSync(own, { recursive: true });
  cpSync(`${root}dist`, join(own, "dist"), { recursive: true });
  cpSync(`${root}package.json`, join(own, "package.json"));
  mkdirSync(join(modules, "@types"));
  for (const name of [...Object.keys(manifest.dependencies), "@types/node"]) {
    symlinkSync(`${root}node_modules/${name}`, join(modules, name), "junction");
  }
  for (const name of Object.keys(manifest.peerDependencies)) {
    mkdirSync(join(modules, name), { recursive: true });
    writeFileSync(join(modules, name, "package.json"), JSON.stringify({ name, exports: {} }));
  }
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  return folder;
}

describe("the package", () => {
  const folder = bareInstall();
  after(() => rmSync(folder, { recursive: true, force: true }));

  test("what `exports` names is there", () => {
    for (const [entry, targets] of Object.entries(manifest.exports)) {
      for (const file of typeof targets === "string" ? [targets] : Object.values(targets)) {
        assert.ok(existsSync(root + file), `${entry}: ${file}`);
      }
    }
  });

  test("compilers that do not know `exports` find the types of every entry point", () => {
    assert.ok(existsSync(root + manifest.main));
    assert.ok(existsSync(root + manifest.types));
    const types = manifest.typesVersions["*"] ?? {};
    assert.deepEqual(
      Object.keys(types).sort(),
      entries.flatMap((name) => (name === "." ? [] : [name.slice(2)])).sort(),
    );
    for (const [name, files] of Object.entries(types))
      assert.deepEqual(files, [`./dist/${name}/index.d.ts`], "the same as `exports` has");
  });

  test("nothing runs when it is installed", () => {
    for (const name of ["preinstall", "install", "postinstall", "prepare"])
      assert.equal(manifest.scripts[name], undefined);
  });

  test("what is required is what is imported: one copy of each entry point", async () => {
    const program = entries
      .filter((entry) => !needsPeer.has(entry))
      .map((entry) => `"rpc-conn-pool${entry.slice(1)}"`)
      .map(
        (name) => `import(${name}).then((m) => Object.keys(m).every((x) => m[x] === require(${name})[x]) || fail());`,
      )
      .join("\n");
    const { stdout } = await run(process.execPath, ["-e", `const fail = () => console.log("two");\n${program}`], {
      cwd: folder,
    });
    assert.equal(stdout, "");
  });

  test("where a loader cannot require ES modules, there is CommonJS for it; the two work together", async () => {
    const program = `
      const { Pool, isPoolError } = require("rpc-conn-pool");
      const { ScriptedConn } = require("rpc-conn-pool/testing");
      async function main() {
        const other = await import("rpc-conn-pool");
        if (other.Pool === Pool) throw new Error("one copy: the flag has gone");
        const { scriptedDial, echo } = await import("rpc-conn-pool/testing");
        const pool = new Pool({ dial: scriptedDial({ answer: () => "yes" }) });
        console.log(await pool.get("peer").invoke(echo, "?"));
        const adopted = new other.Pool();
        adopted.put("peer", new ScriptedConn({ answer: () => "as well" }));
        console.log(await adopted.get("peer").invoke(echo, "?"));
        const error = await adopted.get("nobody").invoke(echo, "?").catch((error) => error);
        console.log(error.code, isPoolError(error));
        await Promise.all([pool.close(), adopted.close()]);
      }
      main();`;
    const flags = ["--no-experimental-require-module", "-e", program];
    const { stdout } = await run(process.execPath, flags, { cwd: folder });
    assert.equal(stdout, "yes\nas well\nERR_POOL_NO_CONN true\n");
  });

  test("the CommonJS files require nothing but what they may", () => {
    const required = new Set<string>();
    for (const file of readdirSync(`${root}dist/cjs`, { recursive: true, encoding: "utf8" })) {
      if (!file.endsWith(".js")) continue;
      const code = readFileSync(`${root}dist/cjs/${file}`, "utf8");
      for (const [, name = ""] of code.matchAll(/\brequire\("([^"]+)"\)/g)) {
        // `npm pack` puts it-pushable, an ES module, beside the files that need it.
        if (name === "it-pushable") assert.equal(dirname(file), "drpc");
        else if (!/^(\.|node:)/.test(name)) required.add(name);
      }
    }
    assert.deepEqual([...required].sort(), ["@grpc/grpc-js", "@opentelemetry/api", "lru-cache"]);
  });

  test("every entry point can be imported", async () => {
    for (const entry of entries) {
      const loaded: object = await import(`rpc-conn-pool${entry.slice(1)}`);
      assert.ok(Object.keys(loaded).length > 0, entry);
    }
  });

  test("where there are no peers, all loads but /grpc and /otel", async () => {
    for (const entry of entries) {
      const program = `await import("rpc-conn-pool${entry.slice(1)}").catch((error) => console.log(error.code));`;
      const { stdout } = await run(process.execPath, ["--input-type=module", "-e", program], { cwd: folder });
      assert.equal(stdout, needsPeer.has(entry) ? "ERR_PACKAGE_PATH_NOT_EXPORTED\n" : "", entry);
    }
  });

  test("where there are no peers, a program of the others compiles", { timeout: 60_000 }, async () => {
    writeFileSync(
      join(folder, "program.ts"),
      `import { Pool, type Conn } from "rpc-conn-pool";
      import { dialHttp2, pooledSession } from "rpc-conn-pool/connect";
      import { dialDrpc } from "rpc-conn-pool/drpc";
      import { dialHttp2 as dialSessions, type Http2Conn } from "rpc-conn-pool/http2";
      export const conn: Conn = new Pool().get("localhost:1", dialDrpc());
      export const session = pooledSession(new Pool({ dial: dialHttp2() }), "http://localhost:1");
      export const sessions: Pool<string, Http2Conn> = new Pool({ dial: dialSessions({ maxStreams: 1 }) });`,
    );
    const options =
      "--strict --exactOptionalPropertyTypes --noEmit --target es2022 --module nodenext --lib es2023,esnext.disposable --types node";
    const compiler = [`${root}node_modules/typescript/bin/tsc`, ...options.split(" "), "program.ts"];
    const { stdout } = await run(process.execPath, compiler, { cwd: folder }).catch(
      (error: { stdout: string }) => error,
    );
    assert.equal(stdout, "");
  });

  test("every peer dependency is optional", () => {
    for (const name of Object.keys(manifest.peerDependencies)) {
      assert.equal(manifest.peerDependenciesMeta[name]?.optional, true, name);
    }
  });

  test("it packs what users need, and nothing else", { timeout: 60_000 }, async () => {
    const npm = process.platform === "win32" ? "npm.cmd" : "npm";
    // Without scripts: a build would empty `dist` under the other tests.
    const { stdout } = await run(npm, ["pack", "--dry-run", "--json", "--ignore-scripts"], { cwd: root });
    const [{ files, size }]: [{ files: readonly { path: string }[]; size: number }] = JSON.parse(stdout);
    assert.ok(size <= 365_000, `the tarball has ${size} bytes`);
    const paths = files.map(({ path }) => path);
    assert.deepEqual(paths.filter((path) => !/^(dist|examples)\//.test(path)).sort(), [
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "package.json",
    ]);
    for (const path of paths.filter((name) => name.startsWith("dist/")))
      assert.match(path, /\.(js|d\.ts)$|^dist\/cjs\/package\.json$/);
    for (const path of paths.filter((name) => name.startsWith("examples/")))
      assert.match(path, /\.(ts|md)$|dashboard\/page\.(html|css|js)$|grafana\.json$|\.proto$/);
    assert.ok(paths.includes("examples/abort.ts"));
  });
});
