import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { printed } from "./support/printed.ts";

const sources = fileURLToPath(new URL("../../examples/", import.meta.url));
const compiled = fileURLToPath(new URL("../examples/", import.meta.url));
const examples = readdirSync(sources).filter((name) => name.endsWith(".ts"));

// The main job has tests of its own.
describe("the examples print what stands at their end, and end by themselves", () => {
  assert.ok(examples.length > 0);
  for (const name of examples) {
    test(name, { timeout: 60_000 }, async () => {
      const expected = printed(readFileSync(sources + name, "utf8"));
      assert.notEqual(expected, "");
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [compiled + name.replace(/\.ts$/, ".js")]);
      assert.equal(stdout, expected);
      assert.equal(stderr, "");
    });
  }
});
