/** What an operator reads when something fails: every error once, and what to do about it. */

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import * as drpc from "../src/drpc/index.ts";
import * as errors from "../src/errors.ts";
import { provokeAll, type Told, textOf } from "./error-page.ts";
import { nothingUnheard } from "./support/outcome.ts";

nothingUnheard();

describe("the page of errors", () => {
  let page: readonly Told[] = [];
  before(async () => {
    page = await provokeAll();
  });

  test("has every class of error that a call can end with", () => {
    const names = new Set(page.map(({ error }) => error.name));
    const causes = new Set(page.map(({ error }) => (error.cause instanceof Error ? error.cause.name : "")));
    const classes = [...Object.entries(errors), ...Object.entries(drpc)].filter(
      ([, one]) => typeof one === "function" && one.prototype instanceof Error,
    );
    const missing = classes.map(([name]) => name).filter((name) => !names.has(name) && !causes.has(name));
    assert.deepEqual(missing, ["PoolError"], "PoolError itself is a bug of the pool");
    assert.ok(names.has("ConnectError") && page.some(({ when }) => when.startsWith("gRPC")));
  });

  test("says in each message what to do, but in those of the server and of grpc-js", () => {
    const remedy = /\b(raise|see|give|call|correct|loosen|make|get|send|repeat|expected|known are)\b/;
    const others = ["DRPC: the server's error", "gRPC: the dial failed"];
    for (const told of page) if (!others.includes(told.when)) assert.match(told.error.message, remedy, told.when);
  });

  test("says where the time went, as text and as data that add up", () => {
    const ended = page.map(({ error, when }) => ({
      when,
      error: errors.isPoolError(error.cause) ? error.cause : error,
    }));
    let told = 0;
    for (const { when, error } of ended) {
      if (!(error instanceof errors.PoolError) || error.waitedMs === undefined) continue;
      told++;
      const { waitedMs, slotMs = 0, dialMs = 0, blockedMs = 0, askedMs, ranMs } = error;
      assert.equal(waitedMs, slotMs + dialMs + blockedMs, when);
      assert.equal(ranMs, 0, when);
      if (error.code === "ERR_POOL_WAIT_TIMEOUT") assert.ok(askedMs !== undefined && waitedMs > askedMs - 1, when);
      assert.match(error.message, /waited [\d,]+ ms|not dialed again|may wait|already|were left/, when);
    }
    assert.ok(told >= 20, `${told}`);
  });

  test("names what held the call back, with its numbers", () => {
    const byOf = (when: string) => {
      const error = page.find((told) => told.when === when)?.error;
      return error instanceof errors.PoolError ? error.heldBackBy : undefined;
    };
    const { by, used, limit } = byOf("WaitTimeoutError: other keys hold maxConns") ?? {};
    assert.deepEqual([by, used, limit], ["maxConns", 1, 1]);
    assert.equal(byOf("QueueFullError")?.by, "maxWaiters");
    assert.equal(byOf("DialError: a backoff runs")?.by, "backoff");
    assert.equal(byOf("WaitTimeoutError: by waitTimeoutMs, the dial hangs"), undefined);
  });

  test("tells no secret", () => {
    assert.ok(!page.map(textOf).join("\n").includes("s3cret"));
  });
});
