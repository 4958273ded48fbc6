import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const execute = promisify(execFile);
const root = fileURLToPath(new URL("../../../", import.meta.url));
const onWindows = process.platform === "win32";
const npm = onWindows ? "npm.cmd" : "npm";
const npx = onWindows ? "npx.cmd" : "npx";

/** Runs a program; rejects with all that it has printed where it fails. */
export async function run(command: string, args: readonly string[], cwd: string = root): Promise<string> {
  try {
    const { stdout } = await execute(command, args, { cwd, timeout: 900_000, maxBuffer: 2 ** 26 });
    return stdout;
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }; // as execFile's promise documents
    throw new Error(`${[command, ...args].join(" ")} failed:\n${stdout}\n${stderr}`);
  }
}

/** The path of a runtime that npm carries: `node`, `bun` or `deno`. */
export async function runtime(name: string, version: string): Promise<string> {
  const print = name === "deno" ? ["deno", "eval", "console.log(Deno.execPath())"] : [name, "-p", "process.execPath"];
  return (await run(npx, ["--yes", "--package", `${name}@${version}`, ...print])).trim();
}

/** A program's folder, in which this package is installed from its tarball as its users get it. */
export class Installation {
  readonly folder: string = mkdtempSync(join(tmpdir(), "rpc-conn-pool-"));

  /** Packs, and installs beside it what `others` name (`name@version`). */
  static async of(others: readonly string[]): Promise<Installation> {
    const made = new Installation();
    made.write("package.json", JSON.stringify({ private: true }));
    const [{ filename }]: [{ filename: string }] = JSON.parse(
      // The script that makes the package prints as well, before the JSON.
      (await run(npm, ["pack", "--json", "--silent", "--pack-destination", made.folder])).replace(/^[^[]*/, ""),
    );
    await run(npm, ["install", "--no-audit", "--no-fund", `./${filename}`, ...others], made.folder);
    return made;
  }

  write(name: string, text: string): string {
    const file = join(this.folder, name);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  }

  /** The file of an installed package. */
  path(...names: readonly string[]): string {
    return join(this.folder, "node_modules", ...names);
  }

  /** What a compiler of TypeScript has against a file, errors in the declarations of other packages left out. */
  async complaints(compiler: string, options: string, file: string): Promise<string[]> {
    const flags = `--strict --noEmit --skipLibCheck false --target es2022 --lib es2022,esnext.disposable --types node`;
    const args = [this.path(compiler, "bin", "tsc"), ...flags.split(" "), ...options.split(" "), file];
    const output = await this.run(process.execPath, ...args).catch((error: Error) => {
      if (!error.message.includes("error TS")) throw error;
      return error.message;
    });
    const theirs = /^(\.\.\/)*node_modules\/(?!rpc-conn-pool\/)/;
    return output.split("\n").filter((line) => line.includes("error TS") && !theirs.test(line));
  }

  /** Runs an installed program with a Node of one's choice. */
  run(node: string, ...args: readonly string[]): Promise<string> {
    return run(node, args, this.folder);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
