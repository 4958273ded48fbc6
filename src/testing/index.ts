/**
 * For tests of code over a pool: a clock that the test moves, scripted conns, and a simulated network of seeded faults.
 *
 * @example
 * ```ts
 * import { Pool } from "rpc-conn-pool";
 * import { echo, FakeClock, scriptedDial, simulate } from "rpc-conn-pool/testing";
 *
 * const clock = new FakeClock();
 * const pool = new Pool({ clock, dial: scriptedDial({ answer: (name) => `hello, ${String(name)}` }), expirationMs: 60_000 });
 * console.log(await pool.get("peer").invoke(echo, "Ada")); // hello, Ada
 * await clock.advance(3_600_000);
 * console.log(pool.stats().open); // 0
 *
 * await simulate({ runs: 200 }, async ({ clock, network }) => { // a failed run tells its seed; { seed } plays it again
 *   const pool = new Pool({ clock, dial: network.dial, maxKeyConns: 2 });
 *   const ask = () => pool.get("peer").invoke(echo, "hello", { timeoutMs: 2_000 }); // dials fail, conns die, fall silent …
 *   await Promise.allSettled([ask(), ask(), ask()]);
 *   await pool.close();
 *   if (network.open > 0) throw new Error("a conn is left");
 * });
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
export type { Faults, NetworkOptions, Range, SimulatedNetwork } from "./network.ts";
export { Random } from "./random.ts";
export { type SimulateOptions, type Simulation, SimulationError, simulate } from "./simulate.ts";
export type { SimulatedConn } from "./simulated-conn.ts";
