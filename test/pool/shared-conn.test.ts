import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, ScriptedConn } from "../support/conn.ts";
import { nothingUnheard, outcome } from "../support/outcome.ts";
import { testPool } from "../support/pool.ts";

nothingUnheard();

class Held extends ScriptedConn {
  held = false;
  ref() {
    this.held = true;
  }

  unref() {
    this.held = false;
  }
}

/** The one stream that runs on `conn` ends while the conn is being validated for another caller, who leaves. */
async function endWhileValidated(conn: ScriptedConn, reset?: () => void, held?: () => void): Promise<void> {
  const clock = new FakeClock();
  let answer: (() => void) | undefined;
  const pool = testPool({
    clock,
    maxKeyConns: 1,
    reset,
    validate: () =>
      new Promise((resolve) => {
        answer = () => resolve(true);
      }),
  });
  pool.put("k", conn);
  const lease = await pool.acquire("k");
  held?.();
  await clock.advance(600);
  const abort = new AbortController();
  outcome(pool.acquire("k", { signal: abort.signal }));
  lease.release();
  abort.abort();
  assert.ok(answer);
  answer();
  await settle();
  assert.equal(pool.stats("k").idle, 1);
}

test("row 45: a conn whose last stream ends while it is validated does not hold the process", async () => {
  const conn = new Held({ maxStreams: 2 });
  await endWhileValidated(conn, undefined, () => assert.equal(conn.held, true));
  assert.equal(conn.held, false);
});

test("row 33: a conn whose last stream ends while it is validated is reset", async () => {
  let resets = 0;
  await endWhileValidated(new ScriptedConn({ maxStreams: 2 }), () => void resets++);
  assert.equal(resets, 1);
});

test("row 33: a conn that is blocked twice over is skipped until both are done", async () => {
  const conn = new ScriptedConn({ maxStreams: 2 });
  const flushed = deferred();
  const pool = testPool({ maxKeyConns: 1, reset: () => new Promise(() => {}), dial: () => conn });
  const a = await pool.acquire("k");
  const b = await pool.acquire("k");
  b.release();
  conn.blockedUntil = flushed.promise;
  const waiter = outcome(pool.acquire("k"));
  a.release(); // the last stream: a reset begins
  conn.blockedUntil = undefined;
  flushed.resolve();
  await settle();
  assert.equal(pool.stats("k").blocked, 1);
  assert.equal(waiter.state, "pending");
});
