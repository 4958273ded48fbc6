import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";

/**
 * Runs a program of test/sim, or by its path from there, and fails with what it printed if it fails. In a process of its own: node:test watches every
 * promise of its process, which makes a simulation several times slower.
 */
export async function runProgram(t: TestContext, name: string, ...args: readonly (string | number)[]): Promise<void> {
  const program = fileURLToPath(new URL(`../../sim/${name}.js`, import.meta.url));
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    execFile(process.execPath, [program, ...args.map(String)], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: stdout + stderr }),
    );
  });
  assert.equal(code, 0, output);
  if (output.startsWith("SKIPPED")) t.skip(output.trim());
  else for (const line of output.trim().split("\n")) t.diagnostic(line);
}
