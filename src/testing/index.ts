/**
 * For tests of code over a pool: a clock that the test moves, and scripted conns instead of a network.
 *
 * @example
 * ```ts
 * import { Pool } from "rpc-conn-pool";
 * import { echo, FakeClock, scriptedDial } from "rpc-conn-pool/testing";
 *
 * const clock = new FakeClock();
 * const dial = scriptedDial({ answer: (name) => `hello, ${String(name)}` });
 * const pool = new Pool({ clock, dial, expirationMs: 60_000 });
 * console.log(await pool.get("peer").invoke(echo, "Ada")); // hello, Ada
 * await clock.advance(3_600_000);
 * console.log(pool.stats().open); // 0
 * ```
 *
 * @module
 */
export { FakeClock, settle } from "./clock.ts";
export {
  type Deferred,
  deferred,
  echo,
  type Script,
  ScriptedCall,
  ScriptedConn,
  type ScriptedDial,
  ScriptedStream,
  scriptedDial,
} from "./conn.ts";
