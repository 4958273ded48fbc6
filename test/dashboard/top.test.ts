import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Pool } from "rpc-conn-pool";
import { scriptedDial } from "rpc-conn-pool/testing";
import { serveDashboard } from "../../examples/dashboard/serve.ts";
import { view } from "../../examples/dashboard/view.ts";
import { top } from "../../src/cli/top.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

const command = fileURLToPath(new URL("../../../dist/cli/main.js", import.meta.url));
const run = (...args: string[]) => promisify(execFile)(process.execPath, [command, ...args]);

test("top draws the pools of a dashboard again and again, until that ends", async () => {
  await using pool = new Pool({ name: "mine", dial: scriptedDial({ maxStreams: 2 }) });
  using _lease = await pool.acquire("a\x1b[2J");
  const dashboard = await serveDashboard([view(pool)], { everyMs: 20 });
  const pictures: string[] = [];
  await top(dashboard.url, {
    isTTY: true,
    columns: 90,
    rows: 24,
    write: (text) => pictures.push(text) === 2 && void dashboard.close(),
  });
  const [first = "", second = ""] = pictures;
  assert.ok(first.startsWith("\x1b[H"), "over the picture before");
  assert.match(first, /mine: - calls\/s; p50 \/ p99: /);
  assert.match(second, /mine: 0 calls\/s; /);
  assert.match(second, /1 open: 1 used, 1 streams\b/);
  assert.match(second, /key +used +idle +draining +dialing +streams +waiting +calls\/s/);
  assert.match(second, /a\?\[2J +1 +0 +0 +0 +1 +0 +0/, "no name reaches the terminal as a command");
});

test("the command prints pictures where there is no terminal, and ends with the dashboard", {
  timeout: 30_000,
}, async () => {
  await using pool = new Pool({ name: "mine", dial: scriptedDial() });
  await pool.warm("a", 3);
  const dashboard = await serveDashboard([view(pool)], { everyMs: 20 });
  const running = run("top", dashboard.url);
  setTimeout(() => void dashboard.close(), 1_500);
  const { stdout, stderr } = await running;
  assert.equal(stderr, "");
  assert.match(stdout, /mine: .*\n3 open: 3 idle\nclosed: none\n/);
});

test("the command says what is wrong", { timeout: 30_000 }, async () => {
  const failing = (...args: string[]) => run(...args).catch((error: { code: number; stderr: string }) => error);
  for (const args of [[], ["top"], ["top", "no url"], ["bottom", "http://localhost:1"]]) {
    const { code, stderr } = (await failing(...args)) as { code: number; stderr: string };
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, /^rpc-conn-pool top <url>/);
  }
  const dashboard = await serveDashboard([]);
  await dashboard.close();
  const { code, stderr } = (await failing("top", dashboard.url)) as { code: number; stderr: string };
  assert.equal(code, 1);
  assert.match(stderr, /^http:.*: fetch failed: .*ECONNREFUSED/);
  assert.match((await run("--help")).stdout, /^rpc-conn-pool top <url>/);
});
