import assert from "node:assert/strict";
import type { PoolConn } from "../../src/contract.ts";
import {
  type Deferred,
  deferred,
  type Script,
  type ScriptedCall,
  ScriptedConn,
  type ScriptedDial,
  scriptedDial,
} from "../../src/testing/conn.ts";

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
} from "../../src/testing/conn.ts";

/** The one RPC that runs on `conn`. */
export function running(conn: ScriptedConn | undefined): ScriptedCall {
  const [call] = conn?.calls ?? [];
  assert.ok(call !== undefined && conn?.calls.size === 1, `${conn?.calls.size} calls run`);
  return call;
}

/** A conn that can keep the process alive, and tells whether it does. */
export class HeldConn extends ScriptedConn {
  held = true;

  ref(): void {
    this.held = true;
  }

  unref(): void {
    this.held = false;
  }
}

/** The least that a conn can be, at next to no cost: exclusive, without RPCs. It counts its closes. */
export class PlainConn implements PoolConn {
  readonly #closed: Deferred<void> = deferred();
  closes = 0;

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  close(): void {
    this.closes++;
    this.#closed.resolve();
  }

  die(): void {
    this.#closed.resolve();
  }
}

/** Named conns of one key, in this order; each is tagged with its name. */
export function namedConns<T extends string>(...names: T[]): Record<T, ScriptedConn> {
  const conns: Record<string, ScriptedConn> = {};
  for (const name of names) conns[name] = new ScriptedConn({ tags: { name } });
  return conns as Record<T, ScriptedConn>;
}

/** The script of conns that answer each call at once. */
export const answered: Script = { answer: () => "world" };

/** Dials that the test settles. Each brings so many slots, and says so before; without a number one, and says nothing. */
export function manualDial(maxStreams?: number): ScriptedDial<string> {
  return scriptedDial({ maxStreams }, { manual: true, ...(maxStreams === undefined ? {} : { maxStreams }) });
}
