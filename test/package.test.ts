import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
const manifest: {
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
  readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional: boolean }>>;
} = JSON.parse(readFileSync(`${root}package.json`, "utf8"));

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

  test("every entry point can be imported", async () => {
    for (const entry of entries) {
      const loaded: object = await import(`rpc-conn-pool${entry.slice(1)}`);
      assert.ok(Object.keys(loaded).length > 0, entry);
    }
  });

  test("where there are no peers, all loads but /grpc", async () => {
    for (const entry of entries) {
      const program = `await import("rpc-conn-pool${entry.slice(1)}").catch((error) => console.log(error.code));`;
      const { stdout } = await run(process.execPath, ["--input-type=module", "-e", program], { cwd: folder });
      assert.equal(stdout, entry !== "./grpc" ? "" : "ERR_PACKAGE_PATH_NOT_EXPORTED\n", entry);
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
    const [{ files }]: [{ files: readonly { path: string }[] }] = JSON.parse(stdout);
    const paths = files.map(({ path }) => path);
    assert.deepEqual(paths.filter((path) => !path.startsWith("dist/")).sort(), [
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "package.json",
    ]);
    for (const path of paths.filter((name) => name.startsWith("dist/"))) assert.match(path, /\.(js|d\.ts)$/);
  });
});
