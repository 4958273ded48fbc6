// What a pool tells: to its own listeners, and on diagnostics channels for all pools of the process.
import { subscribe } from "node:diagnostics_channel";
import { Pool, type PoolEventName } from "rpc-conn-pool";

class NullConn {
  #settle: () => void = () => {};
  readonly closed = new Promise<void>((resolve) => {
    this.#settle = resolve;
  });
  close(): void {
    this.#settle();
  }
}

const pool = new Pool<string, NullConn>({ name: "demo", maxKeyConns: 1, dial: () => new NullConn() });

const names: PoolEventName[] = ["dialed", "leased", "released", "waiting", "served", "evicted", "closed", "cleared"];
for (const name of names) pool.on(name, (event) => console.log(name, event.key)); // returns what stops it
subscribe("rpc-conn-pool:closed", (event) => {
  const { pool: name, reason, uses } = event as { pool: string; reason: string; uses: number }; // channels have no types
  console.log(`${name}: closed, ${reason}, after ${uses} uses`);
});

const first = await pool.acquire("a");
const second = pool.acquire("a"); // waits: there may be one conn
first.release();
(await second).release();
pool.clear();
await pool.close();

// waiting a
// dialed a
// served a
// leased a
// waiting a
// released a
// served a
// leased a
// released a
// cleared undefined
// demo: closed, cleared, after 2 uses
// closed a
