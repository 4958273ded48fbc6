import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "../support/clock.ts";
import { ScriptedConn, scriptedDial } from "../support/conn.ts";
import { pooled } from "../support/pooled.ts";

/** Design, section 3: the state before a conn is one. What becomes of a dial, and of the conn that it brings late. */
const table = {
  dialed: { does: (it) => void it.dial.arrive(it.conn), open: 1, idle: 0, closes: 0, caller: "has a lease" },
  failed: { does: (it) => it.dial.fail(new Error("no")), open: 0, idle: 0, closes: 0, caller: "ERR_POOL_DIAL" },
  "the caller has gone": { does: (it) => it.abort(), open: 0, idle: 0, closes: 1, caller: "gone" },
  "its time is up": { does: (it) => it.advance(20_001), open: 0, idle: 0, closes: 1, caller: "ERR_POOL_DIAL_TIMEOUT" },
  "the pool was closed": { does: (it) => it.close(), open: 0, idle: 0, closes: 1, caller: "ERR_POOL_CLOSED" },
  "the conn died first": { does: (it) => it.arriveDead(), open: 0, idle: 0, closes: 0, caller: "ERR_POOL_DIAL" },
} satisfies Record<string, Row>;

interface Row {
  readonly does: (it: Dialed) => unknown;
  readonly open: number;
  readonly idle: number;
  /** Calls of `close()` on what arrives, however late. */
  readonly closes: number;
  readonly caller: string;
}

interface Dialed {
  readonly dial: { arrive(conn?: ScriptedConn): ScriptedConn; fail(error: unknown): void };
  readonly conn: ScriptedConn;
  abort(): void;
  advance(ms: number): Promise<void>;
  close(): Promise<void>;
  arriveDead(): void;
}

for (const [event, row] of Object.entries(table)) {
  test(`a dial in flight, and then: ${event}`, async (t) => {
    const dial = scriptedDial({}, { manual: true });
    const { pool, clock } = pooled(t, { dial });
    const conn = new ScriptedConn();
    const controller = new AbortController();
    let caller = "waits";
    const ended = pool.acquire("k", { signal: controller.signal }).then(
      () => {
        caller = "has a lease";
      },
      (error: { code?: string }) => {
        caller = error.code ?? "gone";
      },
    );
    const [pending] = dial.pending;
    assert.ok(pending);
    assert.deepEqual([pool.stats().dialing, pool.stats().open, caller], [1, 0, "waits"]);
    await row.does({
      dial: pending,
      conn,
      abort: () => controller.abort({ code: "gone" }),
      advance: (ms) => clock.advance(ms),
      close: () => pool.close({ graceMs: 0 }),
      arriveDead: () => {
        conn.die();
        pending.arrive(conn);
      },
    });
    await ended;
    await settle();
    assert.deepEqual(
      [caller, pool.stats().dialing, pool.stats().open, pool.stats().idle],
      [row.caller, 0, row.open, row.idle],
    );
    assert.equal(pending.signal.aborted, row.closes > 0); // abandoned
    pending.arrive(conn); // late, or for the second time
    pending.fail(new Error("late"));
    await settle();
    assert.deepEqual([conn.closes, pool.stats().open], [row.closes, row.open]);
    await pool.close({ graceMs: 0 });
  });
}
