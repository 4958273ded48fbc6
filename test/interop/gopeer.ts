import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { ca, localhost } from "../support/certs.ts";

/** Compiled tests run in .build/test/interop; the Go sources stay where they are. */
const sources = fileURLToPath(new URL("../../../test/interop/drpc", import.meta.url));

/** Why the Go tests cannot run here; false when they can. */
export const noGo: string | false =
  spawnSync("go", ["version"]).status === 0
    ? false
    : "SKIPPED: there is no `go` here, so DRPC is not tested against Go";

/** The Go peer, built into a folder of its own. */
export class GoPeer implements Disposable {
  readonly #folder: string = mkdtempSync(join(tmpdir(), "drpcpeer-"));
  readonly #binary: string = join(this.#folder, "drpcpeer");
  #server: ChildProcessWithoutNullStreams | undefined;

  constructor() {
    execFileSync("go", ["build", "-o", this.#binary, "."], { cwd: sources, stdio: "inherit" });
  }

  /** Starts the server; it ends with this process, whatever becomes of that. */
  async serve(): Promise<{ plain: string; header: string; tls: string }> {
    const files = Object.entries({ cert: localhost.cert, key: localhost.key, ca }).map(([name, pem]) => {
      const file = join(this.#folder, `${name}.pem`);
      writeFileSync(file, pem);
      return file;
    });
    this.#server = this.start("serve", ...files);
    const addresses = { plain: "", header: "", tls: "" };
    for await (const line of createInterface(this.#server.stdout)) {
      const [name, address] = line.split(" ");
      if (address !== undefined && (name === "plain" || name === "header" || name === "tls")) addresses[name] = address;
      if (name === "tls") return addresses;
    }
    throw new Error("the Go server did not start");
  }

  /** Starts the binary; it ends at the end of its input. */
  start(...args: string[]): ChildProcessWithoutNullStreams {
    const child = spawn(this.#binary, args);
    child.stderr.pipe(process.stderr);
    return child;
  }

  /** Runs the Go client and returns what it printed. */
  async run(...args: string[]): Promise<string> {
    const child = spawn(this.#binary, args, { stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      out += chunk;
    });
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
    if (code !== 0) throw new Error(`the Go client ended with ${code}:\n${out}`);
    return out;
  }

  [Symbol.dispose](): void {
    this.#server?.stdin.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
