import assert from "node:assert/strict";
import { test } from "node:test";
import { settle, turns } from "../support/clock.ts";
import { HeldConn, manualDial, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { outcome, rejection, soon } from "../support/outcome.ts";
import { pooled } from "../support/pool.ts";

/** A conn whose properties throw while `broken` names them. */
class Brittle extends ScriptedConn {
  broken: string | undefined;
}
for (const name of ["maxStreams", "draining", "tags", "maxLifetimeMs", "bytesRead", "peerStreams"]) {
  const own = new WeakMap<object, unknown>();
  Object.defineProperty(Brittle.prototype, name, {
    get(this: Brittle) {
      if (this.broken === name) throw new Error(`${name} cannot be read`);
      return own.get(this);
    },
    set(this: Brittle, value: unknown) {
      own.set(this, value);
    },
  });
}
// A field of the base class would hide what stands on the prototype.
function brittle(): Brittle {
  const conn = new Brittle({ maxStreams: 2 });
  for (const name of ["maxStreams", "draining", "tags", "maxLifetimeMs"] as const) {
    const { [name]: value } = conn;
    Reflect.deleteProperty(conn, name);
    Reflect.set(conn, name, value);
  }
  return conn;
}

test("a getter that throws harms no caller: its conn has no slots now, and waiters are served by others", async (t) => {
  for (const name of ["maxStreams", "draining", "tags", "maxLifetimeMs", "peerStreams"]) {
    const conn = brittle();
    const { pool, clock } = pooled(t, { maxKeyConns: 1, expirationMs: 1000, dial: () => conn });
    const first = await pool.acquire("k");
    conn.broken = name;
    const second = outcome(pool.acquire("k", { timeoutMs: 500 }));
    const third = outcome(pool.acquire("k", { timeoutMs: 500, filter: ({ tags }) => tags === undefined }));
    await settle();
    assert.doesNotThrow(() => pool.stats("k"));
    conn.broken = undefined;
    first.release();
    await settle();
    second.value?.release();
    third.value?.release();
    await clock.advance(2000);
    assert.notEqual(second.state, "pending", name);
    assert.equal(pool.stats().waiting, 0, name);
  }
});

test("a conn whose unblocked() never settles is closed as blocked after dialTimeoutMs, and its place is the waiter's", async (t) => {
  const dial = scriptedDial();
  const { pool, clock } = pooled(t, { dial, maxKeyConns: 1, dialTimeoutMs: 1000 });
  const lease = await pool.acquire("k");
  lease.conn.blockedUntil = new Promise(() => {});
  lease.release();
  const next = outcome(pool.acquire("k"));
  await clock.advance(999);
  assert.equal(next.state, "pending");
  await clock.advance(1);
  assert.equal(next.state, "resolved");
  assert.deepEqual([lease.conn.closes, pool.stats().closed.blocked], [1, 1]);
  next.value?.release();
});

test("an unblocked() that returns null, as plain JavaScript may, says that the conn is free", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial, maxKeyConns: 1 });
  const lease = await pool.acquire("k");
  lease.conn.blockedUntil = JSON.parse("null");
  lease.release();
  (await soon(pool.acquire("k"))).release();
  assert.equal(dial.count, 1);
});

test("a listener that replaces itself is called once for each event; one that throws no Error only warns", async (t) => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on("warning", onWarning);
  t.after(() => process.off("warning", onWarning));
  const { pool } = pooled(t, { dial: scriptedDial() });
  let calls = 0;
  const listen = (): void => {
    const off = pool.on("leased", () => {
      if (calls++ > 20) return;
      off();
      listen();
    });
  };
  listen();
  pool.on("leased", () => {
    throw Object.create(null);
  });
  (await pool.acquire("k")).release();
  await turns(10);
  assert.equal(calls, 1);
  assert.match(warnings[0]?.message ?? "", /a listener of the pool threw an object/);
});

test("validate and reset may do I/O on a conn that lets the process go: it is held meanwhile", async (t) => {
  const held: boolean[] = [];
  const dial = () => new HeldConn();
  const { pool, clock } = pooled<HeldConn>(t, {
    dial,
    validateAfterMs: 0,
    validate: async (conn) => held.push(conn.held) > 0,
    reset: (conn) => held.push(conn.held),
  });
  const lease = await pool.acquire("k");
  lease.release();
  await clock.advance(1000);
  const again = await soon(pool.acquire("k"));
  again.release();
  await settle();
  assert.deepEqual(held, [true, true, true]);
  assert.equal(lease.conn.held, false);
});

test("a filter that throws is the cause of NoMatchError, and dials one conn, not one per call", async (t) => {
  const dial = scriptedDial();
  const { pool } = pooled(t, { dial });
  const why = new Error("no such tag");
  const filter = (): boolean => {
    throw why;
  };
  for (let i = 0; i < 50; i++) {
    const error = await rejection(pool.acquire("k", { filter }));
    assert.deepEqual([error.name, error.cause], ["NoMatchError", why]);
  }
  for (let i = 0; i < 50; i++) await rejection(pool.acquire("other", { filter: neverPasses }));
  assert.deepEqual([dial.count, pool.stats().open], [2, 2]);
});

const neverPasses = () => false;

test("an abandoned dial that brings a conn which the pool holds closes nothing", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial });
  const conn = new ScriptedConn();
  pool.put("other", conn);
  const lease = await pool.acquire("other");
  const abort = new AbortController();
  const gone = rejection(pool.acquire("k", { signal: abort.signal }));
  abort.abort(new Error("gone"));
  await gone;
  dial.pending[0]?.arrive(conn);
  await settle();
  assert.deepEqual([conn.closes, pool.stats().streams], [0, 1]);
  lease.release();
});

test("the waiter whose own dial is still in flight is not turned away by the conn of another's", async (t) => {
  const dial = manualDial(1);
  const { pool } = pooled(t, { dial });
  const blue = outcome(pool.acquire("k", { filter: ({ tags }) => tags?.["color"] === "blue" }));
  const any = outcome(pool.acquire("k"));
  assert.equal(dial.count, 2);
  dial.pending[1]?.arrive(new ScriptedConn({ tags: { color: "red" } }));
  await settle();
  assert.deepEqual([blue.state, any.state, dial.pending[0]?.signal.aborted], ["pending", "resolved", false]);
  dial.pending[0]?.arrive(new ScriptedConn({ tags: { color: "blue" } }));
  await settle();
  assert.equal(blue.state, "resolved");
  blue.value?.release();
  any.value?.release();
});

test("a dial that fails while a validation holds a slot rejects the waiter that it was for, not the validation's", async (t) => {
  const dial = manualDial(1);
  let finish = (_healthy: boolean) => {};
  const { pool, clock } = pooled(t, {
    dial,
    validateAfterMs: 1,
    validate: () =>
      new Promise((resolve) => {
        finish = resolve;
      }),
  });
  pool.put("k", new ScriptedConn());
  await clock.advance(1000);
  const first = outcome(pool.acquire("k"));
  const second = outcome(pool.acquire("k"));
  await settle();
  assert.equal(dial.count, 1);
  dial.pending[0]?.fail(new Error("refused"));
  await settle();
  assert.deepEqual([first.state, second.state], ["pending", "rejected"]);
  finish(true);
  await settle();
  assert.equal(first.state, "resolved");
  first.value?.release();
});

test("keys that are objects, without hashKey, bring one warning; messages name a key by its address or its hash", async (t) => {
  const codes: unknown[] = [];
  const onWarning = (warning: Error & { code?: string }) => codes.push(warning.code);
  process.on("warning", onWarning);
  t.after(() => process.off("warning", onWarning));
  const dial = () => Promise.reject(new Error("refused"));
  const { pool } = pooled<ScriptedConn, object>(t, { dial });
  for (let i = 0; i < 5; i++) {
    const error = await rejection(pool.acquire({ address: "10.0.0.1:80", token: "secret" }));
    assert.match(error.message, /^the dial of "10.0.0.1:80" failed: refused; /);
  }
  await turns(5);
  assert.deepEqual(
    codes.filter((code) => code !== undefined),
    ["RPC_CONN_POOL_OBJECT_KEY"],
  );
  const hashed = pooled<ScriptedConn, { id: number }>(t, { dial, hashKey: ({ id }) => `node-${id}` });
  assert.match((await rejection(hashed.pool.acquire({ id: 7 }))).message, /the dial of "node-7" failed/);
});

test("clear(undefined) is refused, as a look-up that found nothing gives it; minIdle needs a dial", (t) => {
  const { pool } = pooled(t);
  const none = new Map<string, string>().get("x");
  assert.throws(() => pool.clear(none), /expected a key, got undefined: clear\(\) without arguments clears all keys/);
  assert.throws(() => pooled(t, { minIdle: 1 }), /`minIdle` needs the pool's `dial`/);
  assert.throws(() => pool.configure({ minIdle: 1 }), /`minIdle` needs the pool's `dial`/);
});
