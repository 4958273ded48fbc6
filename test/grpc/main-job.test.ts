import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { on, once } from "node:events";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { until } from "../support/clock.ts";

const script = fileURLToPath(new URL("../../examples/main-job/main.js", import.meta.url));

/** The processes that `parent` has started; Linux only. */
function children(parent: ChildProcess): number[] {
  const list = readFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`, "utf8");
  return list.trim().split(" ").filter(Boolean).map(Number);
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("the main job", () => {
  test("prints a table and a plot of the three ways, draws the plot, and ends", { timeout: 60_000 }, async () => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script, "500"]);
    assert.equal(stderr, "");
    assert.match(stdout, /^The same calls in three ways: /);
    for (const title of ["calls a second", "open connections"]) {
      const plotted = new RegExp(`^${title}, 0 to [\\d,]+, over [\\d.]+ s\\n(.+│.{60} .*\\n){9}`, "m");
      assert.match(stdout, plotted);
    }
    const picture = /^The plot as a picture: (.*)$/m.exec(stdout)?.[1] ?? "";
    const drawn = readFileSync(picture, "utf8");
    assert.equal(drawn.match(/<path /g)?.length, 6, "two panels, three ways each");
    assert.doesNotMatch(drawn, /NaN|undefined|Infinity/);
    assert.match(stdout, /running: a dial per call\nrunning: one channel per server\nrunning: the pool\n/);
    assert.match(stdout, /calls\/s +p50 +p99 +dials +open at peak\n/);
    // On a machine that is busy otherwise, no call may end within half a second: there are no latencies then.
    const figures = / +([\d,]+) +(?:\S+ ms|none) +(?:\S+ ms|none) +([\d,]+) +([\d,]+)\n/;
    const [, , , channelPeak] = new RegExp(`one channel per server${figures.source}`).exec(stdout) ?? [];
    assert.equal(channelPeak, "3");
    const [, , , poolPeak] = new RegExp(`the pool${figures.source}`).exec(stdout) ?? [];
    assert.ok(Number(poolPeak) <= 30, stdout);
  });

  const skip = process.platform === "linux" ? false : "reads /proc";
  test("leaves no process behind when it is interrupted or killed", { timeout: 60_000, skip }, async () => {
    for (const signal of ["SIGINT", "SIGKILL"] as const) {
      const job = spawn(process.execPath, [script], { stdio: ["ignore", "pipe", "inherit"] });
      for await (const [text] of on(job.stdout, "data")) if (String(text).includes("running: ")) break;
      const servers = children(job);
      assert.equal(servers.length, 1);
      job.kill(signal);
      await once(job, "exit");
      await until(() => !servers.some(alive), "the servers' process ends");
    }
  });
});
