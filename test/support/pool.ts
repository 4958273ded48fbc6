import { afterEach } from "node:test";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock } from "./clock.ts";
import type { ScriptedConn } from "./conn.ts";

const open: Pool<string, ScriptedConn>[] = [];
afterEach(closeAll);

/**
 * A pool of scripted conns with a clock that stands still, closed after the test that makes it: a waiter left over
 * would keep the process alive.
 */
export function testPool(options: PoolOptions<string, ScriptedConn> = {}): Pool<string, ScriptedConn> {
  const pool = new Pool<string, ScriptedConn>({ clock: new FakeClock(), ...options });
  open.push(pool);
  return pool;
}

function closeAll(): void {
  for (const pool of open.splice(0)) pool.close({ graceMs: 0 }).catch(() => {});
}
