import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Race } from "./race.ts";
import type { Pace } from "./row.ts";

const main = fileURLToPath(new URL("main.js", import.meta.url));

/** Runs the bench in a process of its own, and returns what it printed. */
export async function child(args: readonly string[], flags: readonly string[] = []): Promise<string> {
  const node = spawn(process.execPath, ["--expose-gc", ...flags, main, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  node.stdout.on("data", (chunk) => {
    out += chunk;
  });
  const code = await new Promise<number | null>((resolve) => node.once("close", resolve));
  if (code !== 0) throw new Error(`the bench of ${args.join(" ")} ended with ${code}`);
  return out;
}

/** A race in a process where V8 has seen nothing but these contenders. */
export async function fresh(section: string, contenders: readonly string[], pace: Pace): Promise<Race> {
  const out = await child(["--race", section, `--${pace.name}`, ...contenders]);
  return new Race(new Map(Object.entries(JSON.parse(out) as Record<string, number[]>)));
}
