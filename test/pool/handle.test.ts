import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn, Rpc, Stream } from "../../src/contract.ts";
import { settle } from "../support/clock.ts";
import { echo, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { call, pooled, rejection } from "../support/pooled.ts";

const answered = { answer: () => "world" };

test("row 1: get dials nothing, the first RPC does, and those after it reuse the conn", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered);
  const check = async (conn: Conn, dials: number) => {
    assert.equal(await call(conn), "world");
    assert.equal(dial.count, dials);
  };

  const a = pool.get("a", dial);
  const b = pool.get("b", dial);
  assert.equal(dial.count, 0); // get is lazy
  assert.deepEqual([...pool.keys()], []); // and leaves no trace

  await check(a, 1); // nothing cached
  await check(a, 1); // reuses
  await check(b, 2); // another key
  await check(a, 2); // both are cached
  await check(pool.get("a", dial), 2); // a second handle shares the first one's conn
  await check(pool.get("b", dial), 2);
});

test("row 1: a dial has a signal of the pool's: the caller that caused it may go, the others are served", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true, maxStreams: 2 });
  const caller = new AbortController();
  const handle = pool.get("a", dial);
  const first = call(handle, { signal: caller.signal });
  const second = call(handle);
  assert.equal(dial.pending.length, 1); // two slots: one dial for both
  caller.abort(new Error("gone"));
  assert.equal((await rejection(first)).message, "gone");
  assert.equal(dial.pending[0]?.signal.aborted, false);
  dial.pending[0]?.arrive();
  assert.equal(await second, "world");
  assert.equal(dial.count, 1);
});

test("row 1: when all callers of a dial have gone, its signal aborts", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true, maxStreams: 2 });
  const caller = new AbortController();
  const handle = pool.get("a", dial, { signal: caller.signal });
  const calls = [call(handle), call(handle)];
  caller.abort(new Error("gone"));
  for (const one of calls) assert.equal((await rejection(one)).message, "gone");
  assert.equal(dial.pending[0]?.signal.aborted, true);
  const late = dial.pending[0]?.arrive();
  await settle();
  assert.equal(late?.closes, 1); // what it still brings is closed
  assert.deepEqual([...pool.keys()], []);
});

test("row 1: a new dial uses the function of the oldest caller that it is for", async (t) => {
  const { pool } = pooled<Conn>(t, { maxKeyConns: 1 });
  const [first, second, third] = [scriptedDial(), scriptedDial(answered), scriptedDial(answered)];
  const running = call(pool.get("a", first));
  await settle();
  const waiting = [call(pool.get("a", second)), call(pool.get("a", third))];
  first.conns[0]?.die();
  await rejection(running);
  assert.deepEqual(await Promise.all(waiting), ["world", "world"]);
  assert.deepEqual([first.count, second.count, third.count], [1, 1, 0]); // the third shares the second's conn
});

test("row 2: N concurrent RPCs on exclusive conns cause N dials; the capacities bound the idle ones only", async (t) => {
  const { pool } = pooled<Conn>(t, { capacity: 2, keyCapacity: 2 });
  const dial = scriptedDial();
  const handle = pool.get("a", dial);
  const calls = Array.from({ length: 5 }, () => call(handle));
  await settle();
  assert.equal(dial.count, 5);
  assert.equal(pool.stats().leased, 5); // all at once
  const end = (conns: ScriptedConn[]) => {
    for (const { calls } of conns) for (const running of calls) running.answer("done");
  };
  end(dial.conns.slice(0, 2));
  await settle();
  assert.deepEqual([pool.stats().idle, pool.stats().leased], [2, 3]); // five are open, two are cached
  end(dial.conns);
  await Promise.all(calls);
  assert.equal(pool.stats().idle, 2);
  assert.equal(dial.conns.filter((conn) => conn.closes === 1).length, 3);
});

test("row 2: N concurrent RPCs that a dial function announces as exclusive are dialed for at once", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true, maxStreams: 1 });
  const handle = pool.get("a", dial);
  const calls = Array.from({ length: 5 }, () => call(handle));
  assert.equal(dial.pending.length, 5);
  for (const pending of dial.pending) pending.arrive();
  await Promise.all(calls);
});

test("row 2: an idle conn is reused before anything is dialed", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const handle = pool.get("a", dial);
  const first = call(handle);
  await settle();
  for (const running of dial.conns[0]?.calls ?? []) running.answer("done");
  await first;
  const calls = [call(handle), call(handle), call(handle)];
  await settle();
  assert.equal(dial.count, 3); // one reused, two dialed
  for (const { calls } of dial.conns) for (const running of calls) running.answer("done");
  await Promise.all(calls);
});

test("row 3: an RPC gives its conn back when it settles, success or error", async (t) => {
  const { pool } = pooled<Conn>(t);
  let reply = (): string => "world";
  const dial = scriptedDial({ answer: () => reply() });
  const handle = pool.get("a", dial);
  const check = (dials: number, why: string) => {
    assert.equal(dial.count, dials, why);
    assert.deepEqual([pool.stats().idle, pool.stats().streams], [1, 0], why);
  };
  assert.equal(await call(handle), "world");
  check(1, "success");
  reply = () => {
    throw new Error("NOT_FOUND");
  };
  for (let i = 0; i < 200; i++) assert.equal((await rejection(call(handle))).message, "NOT_FOUND");
  check(1, "200 errors leak no slot");
  reply = () => "again";
  assert.equal(await call(handle), "again");
  check(1, "success after errors");
});

test("row 3: the conn is back before the caller learns that its RPC has ended", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial({ answer: (text) => (text === "hello" ? "world" : assert.fail("refused")) });
  const handle = pool.get("a", dial);
  await call(handle);
  const free = () => {
    const lease = pool.tryAcquire("a");
    lease?.release();
    return lease !== undefined;
  };
  assert.equal(await call(handle).then(free), true);
  assert.equal(await handle.invoke(echo, "refuse").then(() => false, free), true);
});

test("row 3: an RPC that throws at once, before it has run, gives its conn back too", async (t) => {
  const { pool } = pooled<Conn>(t);
  class Throwing extends ScriptedConn {
    override invoke(): never {
      throw new Error("not now");
    }
    override newStream(): never {
      throw new Error("not now");
    }
  }
  const dials: ScriptedConn[] = [];
  const handle = pool.get("a", () => {
    const conn = new Throwing();
    dials.push(conn);
    return conn;
  });
  for (let i = 0; i < 3; i++) {
    assert.equal((await rejection(call(handle))).message, "not now");
    assert.equal((await rejection(handle.newStream(echo))).message, "not now");
  }
  assert.equal(dials.length, 1);
  assert.equal(pool.stats().streams, 0);
});

test("row 3: a dial error reaches the caller unchanged in cause, and caches nothing", async (t) => {
  const { pool } = pooled<Conn>(t);
  const refused = new Error("ECONNREFUSED");
  let dials = 0;
  const handle = pool.get("a", () => {
    dials++;
    throw refused;
  });
  for (const expected of [1, 2]) {
    const error = await rejection(call(handle));
    assert.equal(error.name, "DialError");
    assert.equal(error.cause, refused);
    assert.equal(dials, expected); // the failure was not cached
    await settle();
    assert.deepEqual([...pool.keys()], []);
  }
  const dial = scriptedDial(answered);
  assert.equal(await call(pool.get("a", dial)), "world");
});

test("row 3: a failed newStream gives its conn back before it rejects", async (t) => {
  const { pool } = pooled<Conn>(t);
  class NoStreams extends ScriptedConn {
    override newStream<I, O>(_rpc: Rpc<I, O>): Promise<Stream<I, O>> {
      return Promise.reject(new Error("no streams"));
    }
  }
  const conns: ScriptedConn[] = [];
  const handle = pool.get("a", () => {
    const conn = new NoStreams(answered);
    conns.push(conn);
    return conn;
  });
  await call(handle);
  const free = await handle.newStream(echo).catch((error: Error) => {
    assert.equal(error.message, "no streams");
    const lease = pool.tryAcquire("a");
    lease?.release();
    return lease !== undefined;
  });
  assert.equal(free, true);
  await rejection(handle.newStream(echo));
  await call(handle);
  assert.equal(conns.length, 1);
});
