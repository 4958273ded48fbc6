import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("upstream.js", import.meta.url));

test("random operations come to the same on storj.io/drpc/drpcpool, but for its known defects", async (t) => {
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    execFile(process.execPath, [program, "20000"], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: stdout + stderr }),
    );
  });
  if (output.startsWith("SKIPPED")) return t.skip(output.trim());
  assert.equal(code, 0, output);
  for (const line of output.trim().split("\n")) t.diagnostic(line);
});
