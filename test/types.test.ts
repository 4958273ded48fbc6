import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** What a compiler says about `test/types`, which imports the package by its name, as its users do. */
function compile(compiler: string, ...options: string[]): Promise<string> {
  const args = [`node_modules/${compiler}/bin/tsc`, "-p", "test/types/tsconfig.json", ...options];
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: root }, (error, stdout, stderr) => {
      resolve(error === null ? "" : `${stdout}${stderr}` || error.message);
    });
  });
}

test("programs as users write them compile with the newest TypeScript, the package's types checked too", async () => {
  assert.equal(await compile("typescript"), "");
});

test("they compile with TypeScript 5.4", async () => {
  // Its check of all declaration files takes three times as long, and the newest has made it.
  assert.equal(await compile("typescript-5.4", "--skipLibCheck"), "");
});
