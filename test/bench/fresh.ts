import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Race } from "./race.ts";
import type { Pace } from "./row.ts";

const main = fileURLToPath(new URL("main.js", import.meta.url));

/** Runs the bench in a process of its own: the lines that it prints, as they come. */
export async function* child(args: readonly string[], flags: readonly string[] = []): AsyncGenerator<string, void> {
  const node = spawn(process.execPath, ["--expose-gc", ...flags, main, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const closed = once(node, "close");
  yield* createInterface({ input: node.stdout });
  const [code]: unknown[] = await closed;
  if (code !== 0) throw new Error(`the bench of ${args.join(" ")} ended with ${String(code)}`);
}

/** A race in a process where V8 has seen nothing but these contenders. */
export async function fresh(section: string, contenders: readonly string[], pace: Pace): Promise<Race> {
  let out = "";
  for await (const line of child(["--race", section, `--${pace.name}`, ...contenders])) out += line;
  return new Race(new Map(Object.entries(JSON.parse(out) as Record<string, number[]>)));
}
