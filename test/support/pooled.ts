import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { CallOptions, Conn, Dial, Lease, PoolConn } from "../../src/contract.ts";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "./clock.ts";
import { echo, type ScriptedConn } from "./conn.ts";
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

/** Runs one RPC to its end. */
export function call(handle: Conn, options?: CallOptions): Promise<string> {
  return handle.invoke(echo, "hello", options);
}

/** What `promise` rejects with; a test fails where it does not. */
export async function rejection(promise: PromiseLike<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof Error, `rejected with no Error: ${String(error)}`);
    return error;
  }
  assert.fail("it did not reject");
}
