// A test of code over the pool: scripted conns instead of a network, a fake clock instead of sleeping.
import assert from "node:assert/strict";
import { type Conn, isPoolError, Pool } from "rpc-conn-pool";
import { echo, FakeClock, scriptedDial, settle } from "rpc-conn-pool/testing";

/** The code under test: asks a peer, and says so when the peer is slow. */
async function greeting(peer: Conn, name: string): Promise<string> {
  return peer.invoke(echo, name, { timeoutMs: 2_000 }).catch((error: unknown) => {
    if (isPoolError(error)) return `no greeting: ${error.code}`;
    throw error;
  });
}

const clock = new FakeClock();
const dial = scriptedDial({ answer: (name) => `hello, ${String(name)}` });
const pool = new Pool<string>({ clock, dial, expirationMs: 60_000 });
console.log(await greeting(pool.get("peer"), "Ada"));

// An hour passes at once: the idle conn has expired.
await clock.advance(3_600_000);
assert.equal(dial.conns[0]?.closes, 1);
console.log(`${pool.stats().open} conns open`);

// A dial that never ends: the call's time is up when the test says so.
const slow = scriptedDial({}, { manual: true });
const late = greeting(new Pool<string>({ clock, dial: slow }).get("peer"), "Bob");
await settle();
await clock.advance(2_000);
console.log(await late);
await pool.close();

// hello, Ada
// 0 conns open
// no greeting: ERR_POOL_WAIT_TIMEOUT
