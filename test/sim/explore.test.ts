import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("explore.js", import.meta.url));

test("every order of five events keeps every rule, with two keys, two conns and three callers", async (t) => {
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    execFile(process.execPath, [program, "5", "15"], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: stdout + stderr }),
    );
  });
  assert.equal(code, 0, output);
  for (const line of output.trim().split("\n")) t.diagnostic(line);
});
