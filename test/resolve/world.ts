import { afterEach } from "node:test";
import type { PoolOptions } from "../../src/options.ts";
import { Pool } from "../../src/pool/pool.ts";
import { dialService, type ServiceDial, type ServiceOptions } from "../../src/resolve/index.ts";
import { FakeClock, type Script, type ScriptedConn, type ScriptedDial, scriptedDial } from "../../src/testing/index.ts";

/** A client of one service, `svc`, whose addresses the test sets. */
export interface Client {
  readonly clock: FakeClock;
  readonly dial: ServiceDial<string, ScriptedConn>;
  readonly pool: Pool<string, ScriptedConn>;
  /** The dials that reach an address. */
  readonly backend: ScriptedDial<string>;
  /** Addresses of dials so far, in order. */
  readonly dialed: string[];
  addresses: readonly string[];
  /** How often the service was resolved. */
  resolved: number;
  /** How many conns that take streams there are to each address that has some. */
  readonly conns: () => Record<string, number>;
}

export interface ClientOptions {
  readonly service?: Partial<ServiceOptions<string, ScriptedConn>>;
  readonly pool?: PoolOptions<string, ScriptedConn>;
  readonly script?: Script | ((address: string) => Script);
  readonly manual?: boolean;
  readonly clock?: FakeClock;
}

const open: Pool<string, ScriptedConn>[] = [];
afterEach(() => {
  for (const pool of open.splice(0)) pool.close({ graceMs: 0 }).catch(() => {});
});

/** A pool over a service of `count` backends, with a clock that stands still. Closed after the test. */
export function client(count: number, options: ClientOptions = {}): Client {
  const clock = options.clock ?? new FakeClock();
  const backend = scriptedDial<string>(options.script ?? { maxStreams: 100 }, { manual: options.manual === true });
  const dialed: string[] = [];
  const dial = dialService<string, ScriptedConn>({
    resolve: () => {
      made.resolved++;
      return made.addresses;
    },
    dial: (address, { signal }) => {
      dialed.push(address);
      return backend(address, { signal });
    },
    seed: "a client",
    clock,
    ...options.service,
  });
  const pool = new Pool<string, ScriptedConn>({ dial, clock, selection: "least-loaded", ...options.pool });
  open.push(pool);
  const made: Client = {
    clock,
    dial,
    pool,
    backend,
    dialed,
    addresses: backends(count),
    resolved: 0,
    conns: () =>
      Object.fromEntries(
        dial
          .addresses("svc")
          .filter(({ conns }) => conns > 0)
          .map(({ address, conns }) => [address, conns]),
      ),
  };
  return made;
}

/** `10.0.0.1:1`, `10.0.0.2:1`… */
export function backends(count: number, first = 1): string[] {
  return Array.from({ length: count }, (_, i) => `10.0.0.${first + i}:1`);
}
