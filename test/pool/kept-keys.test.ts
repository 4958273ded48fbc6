import assert from "node:assert/strict";
import { test } from "node:test";
import { Pool } from "../../src/pool/pool.ts";
import { FakeClock, settle } from "../support/clock.ts";
import { deferred, scriptedDial } from "../support/conn.ts";

test("a key whose last conn has closed, and whose place another key has got, is not kept for the sake of minIdle", async () => {
  const closes: (() => void)[] = [];
  const close = () => {
    const closed = deferred();
    closes.push(() => closed.resolve());
    return closed.promise;
  };
  const pool = new Pool({ clock: new FakeClock(), maxConns: 2, minIdle: 1, dial: scriptedDial({ close }) });
  const lease = await pool.acquire("a");
  await settle(); // a second conn of its key is kept ready
  const other = pool.acquire("b"); // which makes way for this
  await settle();
  closes.shift()?.();
  await other;
  lease.discard();
  await settle();
  closes.shift()?.(); // the place goes to the second conn of the other key
  await settle();
  assert.equal(pool.stats("b").open, 2);
  assert.deepEqual([...pool.keys()], ["b"]);
  const closed = pool.close({ graceMs: 0 });
  await settle();
  for (const end of closes) end();
  await closed;
});
