import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

/** Runs of each `npm test`: from a seed that differs from day to day, so that every day proves something new. */
const runs = 2000;
const first = Math.floor(Date.now() / 86_400_000) * runs;
const commands = 25;
/** On a machine that is busy otherwise, fewer runs must do. */
const seconds = 40;
const program = fileURLToPath(new URL("long.js", import.meta.url));

// In a process of its own: node:test watches every promise of its process, which makes these five times slower.
test(`whatever happens in whatever order, every rule holds: ${runs} random runs from seed ${first}`, async (t) => {
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    execFile(process.execPath, [program, `${runs}`, `${first}`, `${commands}`, `${seconds}`], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: stdout + stderr }),
    );
  });
  assert.equal(code, 0, output);
  t.diagnostic(output.trim());
});
