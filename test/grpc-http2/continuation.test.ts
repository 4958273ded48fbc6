import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const script = fileURLToPath(new URL("../support/continuation-flood.js", import.meta.url));

test("header blocks without end fail their calls, and do not crash the process", { timeout: 60_000 }, async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [script]);
  assert.equal(stdout, "failed: 180\n");
});
