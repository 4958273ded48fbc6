import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { CallOptions, Conn, Dial, Lease, PoolConn } from "../../src/contract.ts";
import type { AcquireOptions, PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "./clock.ts";
import { echo, type ScriptedConn, type ScriptedDial, scriptedDial } from "./conn.ts";
import { outcome } from "./outcome.ts";

export interface Pooled<K, C extends PoolConn> {
  readonly pool: Pool<K, C>;
  readonly clock: FakeClock;
  /** Takes a lease, which a dial may have to bring. */
  readonly lease: (key: K, dial?: Dial<K, C>) => Promise<Lease<C>>;
}

/** A pool on a fake clock. It is closed when the test ends, and must have left no timer then. */
export function pooled<C extends PoolConn = ScriptedConn, K = string>(
  t: TestContext,
  options: PoolOptions<K, C> = {},
): Pooled<K, C> {
  const clock = new FakeClock();
  const pool = new Pool<K, C>({ clock, ...options });
  t.after(async () => {
    const closing = outcome(pool.close({ graceMs: 0 }));
    await clock.advance(5000);
    assert.notEqual(closing.state, "pending", "the pool did not close");
    assert.equal(clock.timers, 0, "a timer was left");
    assert.deepEqual([...pool.keys()], [], "a key was left");
  });
  return { pool, clock, lease: (key, dial) => pool.acquire(key, dial === undefined ? {} : { dial }) };
}

/** A pool with one conn, dialed, exclusive and idle, and a handle of its key. */
export async function single(t: TestContext): Promise<{
  readonly pool: Pool<string, Conn>;
  readonly conn: ScriptedConn;
  readonly dial: ScriptedDial<string>;
  readonly handle: Conn;
}> {
  const dial = scriptedDial();
  const { pool } = pooled<Conn>(t, { dial });
  (await pool.acquire("k")).release();
  const [conn] = dial.conns;
  assert.ok(conn !== undefined);
  return { pool, conn, dial, handle: pool.get("k") };
}

/** A key at its limit of one exclusive conn, and leases that are asked for in the order of their names. */
export function fullKey(t: TestContext, options: PoolOptions<string, ScriptedConn> = {}) {
  const { pool, clock } = pooled(t, { maxKeyConns: 1, ...options });
  const dial = scriptedDial();
  const served: string[] = [];
  const ask = async (name: string, request: AcquireOptions<string, ScriptedConn> = {}) => {
    const lease = await pool.acquire("k", { dial, ...request });
    served.push(name);
    return lease;
  };
  return { pool, clock, dial, served, ask };
}

/** Takes a lease of `key` and gives it back at once. */
export async function useOnce(pool: { acquire(key: string): Promise<{ release(): void }> }, key = "k"): Promise<void> {
  (await pool.acquire(key)).release();
}

/** Runs one RPC to its end. */
export function call(handle: Conn, options?: CallOptions): Promise<string> {
  return handle.invoke(echo, "hello", options);
}
