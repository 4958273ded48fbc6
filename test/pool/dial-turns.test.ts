import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";

/** In a process of its own, since a pool that serves without end never gives the event loop a turn again. */
const program = `
  const { Pool } = await import(${JSON.stringify(new URL("../../src/pool/pool.js", import.meta.url).href)});
  const dial = async () => ({ closed: new Promise(() => {}), close() {} });
  const pool = new Pool({ maxConns: 2, maxDials: 1, dial });
  for (const key of ["a", "b", "c"]) pool.acquire(key, { timeoutMs: 50 }).catch(() => {});
  setTimeout(() => process.exit(0), 200);
`;

test("a key that waits for its turn to dial, while the last place is taken, does not freeze the process", async () => {
  const how = await new Promise((resolve) => {
    execFile(process.execPath, ["--input-type=module", "-e", program], { timeout: 20_000 }, (error) =>
      resolve(error === null ? "ended by itself" : (error.signal ?? error.message)),
    );
  });
  assert.equal(how, "ended by itself");
});
