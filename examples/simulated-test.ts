// A client over the pool, tested in a hundred simulated runs: it gives up slow calls, goes on after failures, and books nothing twice.
import assert from "node:assert/strict";
import { type Conn, ConnClosedError, DialError, Pool } from "rpc-conn-pool";
import { echo, type Simulation, SimulationError, simulate } from "rpc-conn-pool/testing";

/** The code under test: books an order, and tries again as long as `mayRepeat` says that it may. */
async function book(peer: Conn, order: string, mayRepeat: (error: unknown) => boolean): Promise<boolean> {
  for (let tries = 0; tries < 3; tries++) {
    try {
      await peer.invoke(echo, order, { timeoutMs: 2_000 });
      return true;
    } catch (error) {
      if (!mayRepeat(error)) return false;
    }
  }
  return false;
}

const booked: unknown[] = [];
const options = { answer: (order: unknown) => booked.push(order) }; // what the simulated server does

/** The test: what must hold, whatever the network does. */
const test =
  (mayRepeat: (error: unknown) => boolean) =>
  async ({ clock, network, random, sleep }: Simulation) => {
    booked.length = 0;
    const pool = new Pool({ clock, dial: network.dial, maxKeyConns: 2 });
    const run = async (order: string) => {
      await sleep(random.under(5_000)); // customers come when they want
      if (await book(pool.get("bank"), order, mayRepeat)) assert.ok(booked.includes(order), `${order} is lost`);
    };
    await Promise.all(Array.from({ length: 50 }, (_, i) => run(`order ${i}`)));
    assert.ok(new Set(booked).size === booked.length, "an order is booked twice");

    network.down("bank");
    await sleep(10_000);
    network.up("bank");
    network.calm(); // no more faults: now everything must work
    await sleep(60_000);
    assert.ok(await book(pool.get("bank"), "the last order", mayRepeat), "it does not recover");
    await pool.close();
    assert.equal(network.open, 0);
  };

// Only what certainly was not sent is tried again.
const careful = (error: unknown) => error instanceof DialError || (error instanceof ConnClosedError && !error.sent);
await simulate({ ...options, seed: 1, runs: 100 }, test(careful));
console.log("the careful client: 100 runs passed");

// One that tries again whatever happened is found out. `simulate({ seed }, …)` plays the run again.
const careless = simulate(
  { ...options, seed: 1, runs: 100 },
  test(() => true),
);
const found = await careless.catch((error: unknown) => error);
assert.ok(found instanceof SimulationError && found.cause instanceof Error);
console.log(`the careless client, seed ${found.seed}: ${found.cause.message}`);

// the careful client: 100 runs passed
// the careless client, seed 1: an order is booked twice
