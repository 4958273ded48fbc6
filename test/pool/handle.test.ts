import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conn } from "../../src/contract.ts";
import { isPoolError } from "../../src/errors.ts";
import { settle } from "../support/clock.ts";
import { answered, echo, PlainConn, running, ScriptedConn, scriptedDial } from "../support/conn.ts";
import { nothingUnheard, outcome, rejection } from "../support/outcome.ts";
import { call, pooled, single } from "../support/pool.ts";

nothingUnheard();

test("get dials nothing, the first RPC does, and those after it reuse the conn", async (t) => {
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

test("concurrent RPCs on exclusive conns cause as many dials; the capacities bound the idle conns only", async (t) => {
  const { pool } = pooled<Conn>(t, { capacity: 2, keyCapacity: 2 });
  const dial = scriptedDial();
  const handle = pool.get("a", dial);
  const calls = Array.from({ length: 5 }, () => call(handle));
  await settle();
  assert.equal(dial.count, 5);
  assert.equal(pool.stats().leased, 5); // all at once
  const end = (conns: ScriptedConn[]) => {
    for (const { calls } of conns) for (const one of calls) one.answer("done");
  };
  end(dial.conns.slice(0, 2));
  await settle();
  assert.deepEqual([pool.stats().idle, pool.stats().leased], [2, 3]); // five are open, two are cached
  end(dial.conns);
  await Promise.all(calls);
  assert.equal(pool.stats().idle, 2);
  assert.equal(dial.conns.filter((conn) => conn.closes === 1).length, 3);
});

test("an idle conn is reused before anything is dialed", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const handle = pool.get("a", dial);
  const first = call(handle);
  await settle();
  running(dial.conns[0]).answer("done");
  await first;
  const calls = [call(handle), call(handle), call(handle)];
  await settle();
  assert.equal(dial.count, 3); // one reused, two dialed
  for (const { calls } of dial.conns) for (const one of calls) one.answer("done");
  await Promise.all(calls);
});

test("an RPC gives its conn back when it settles, success or error", async (t) => {
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

for (const end of ["resolves", "rejects"] as const) {
  test(`the slot is free when invoke ${end}: whoever calls again at that moment dials nothing`, async (t) => {
    const { pool, conn, dial, handle } = await single(t);
    const learnt: string[] = [];
    const learn = (how: string) => {
      learnt.push(how);
      const lease = pool.tryAcquire("k");
      assert.equal(lease?.conn, conn);
      lease?.release();
    };
    const ended = call(handle).then(
      () => learn("resolves"),
      () => learn("rejects"),
    );
    if (end === "resolves") running(conn).answer("y");
    else running(conn).fail(new Error("no"));
    await ended;
    assert.deepEqual(learnt, [end]);
    await settle();
    assert.deepEqual([pool.stats().streams, dial.count, conn.closes], [0, 1, 0]);
    const again = call(handle);
    running(conn).answer("y");
    assert.equal(await again, "y");
    assert.equal(dial.count, 1);
  });
}

test("an RPC that throws at once, before it has run, gives its conn back too", async (t) => {
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

for (const method of ["invoke", "newStream"] as const) {
  test(`a conn whose ${method} throws, or brings what is none, keeps no slot`, async (t) => {
    const { pool, conn, handle } = await single(t);
    const misdeeds: (() => unknown)[] = [
      () => {
        throw new Error("thrown");
      },
      () => undefined,
      () => Promise.resolve(undefined),
      () => Promise.resolve({ closed: 1 }),
    ];
    for (const misdeed of misdeeds) {
      Object.assign(conn, { [method]: misdeed });
      await handle[method](echo, "x" as never).catch(() => {});
      await settle();
      assert.equal(pool.stats().streams, 0);
    }
  });
}

test("whatever ends the RPCs, the slots in use are the RPCs in flight, always", async (t) => {
  const dial = scriptedDial({ maxStreams: 7 });
  const { pool } = pooled<Conn>(t, { dial });
  const handle = pool.get("k");
  const ends = ["answer", "fail", "abort", "answer", "fail"] as const;
  const aborts: AbortController[] = [];
  const inFlight = () => dial.conns.reduce((sum, { calls }) => sum + calls.size, 0);
  for (let round = 0; round < 40; round++) {
    const abort = new AbortController();
    aborts.push(abort);
    outcome(handle.invoke(echo, "x", { signal: abort.signal }));
    outcome(handle.newStream(echo, { signal: abort.signal }));
    await settle();
    assert.equal(pool.stats().streams, inFlight());
    const end = ends[round % ends.length];
    if (end === "abort") aborts[round]?.abort();
    for (const [call] of [dial.conns[0]?.calls ?? []]) {
      if (end === "answer") call?.answer(undefined);
      else if (end === "fail") call?.fail(new Error("NOT_FOUND"));
    }
    await settle();
    assert.equal(pool.stats().streams, inFlight());
  }
  dial.conns[0]?.die();
  for (const abort of aborts) abort.abort();
  await settle();
  assert.deepEqual([pool.stats().streams, inFlight()], [0, 0]);
});

test("a dial error reaches the caller unchanged in cause, and caches nothing", async (t) => {
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

test("a handle refuses a conn that carries no RPCs with an error that says what to do, and the conn stays", async (t) => {
  const { pool } = pooled<Conn>(t);
  const plain = new PlainConn();
  const handle = pool.get("k", () => plain as unknown as Conn);
  for (let i = 0; i < 2; i++) {
    const error = await rejection(call(handle));
    assert.equal("code" in error && error.code, "ERR_POOL_ARGUMENT");
    assert.match(error.message, /acquire or use/);
  }
  assert.deepEqual([pool.stats().idle, pool.stats().streams, plain.closes], [1, 0, 0]);
});

test("a handle's close stops later calls on it and leaves what runs, other handles and conns alone", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial();
  const [one, other] = [pool.get("a", dial), pool.get("a", dial)];
  const first = call(one);
  await settle();
  await one.close();
  await one.close(); // idempotent
  await one.closed;
  for (const refused of [call(one), one.newStream(echo)]) {
    const error = await rejection(refused);
    assert.ok(isPoolError(error) && "reason" in error && "sent" in error);
    assert.deepEqual([error.code, error.reason, error.sent], ["ERR_POOL_CONN_CLOSED", "handle", false]);
  }
  const conn = dial.conns[0];
  assert.equal(conn?.closes, 0);
  running(conn).answer("finished");
  assert.equal(await first, "finished"); // what ran goes on
  const again = call(other);
  await settle();
  running(conn).answer("other");
  assert.equal(await again, "other"); // on the same conn
  assert.equal(dial.count, 1);
});

test("a call that waits when its handle is closed goes on: it began before", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered, { manual: true });
  const handle = pool.get("a", dial);
  const waiting = call(handle);
  await handle.close();
  dial.pending[0]?.arrive();
  assert.equal(await waiting, "world");
});

test("a handle is never blocked, even where its key's conns are", async (t) => {
  const { pool } = pooled<Conn>(t);
  const dial = scriptedDial(answered);
  const handle = pool.get("a", dial);
  assert.equal(handle.unblocked(), undefined);
  await call(handle);
  for (const conn of dial.conns) conn.blockedUntil = new Promise(() => {});
  await call(handle);
  assert.equal(dial.count, 2); // the blocked one was skipped
  assert.equal(handle.unblocked(), undefined);
});
