import type { Conn } from "../../../src/contract.ts";
import { ConnClosedError } from "../../../src/errors.ts";
import type { Limits } from "../../../src/options.ts";
import { deferred, echo } from "../conn.ts";
import { type Action, bit, ended, follow, keyOf, leased, makeAsk, optionsOf } from "./asks.ts";
import { StressConn } from "./conn.ts";
import type { World } from "./world.ts";

export type ActionName =
  | "invoke"
  | "stream"
  | "acquire"
  | "use"
  | "warm"
  | "tryAcquire"
  | "release"
  | "answer"
  | "fail"
  | "abort"
  | "arrive"
  | "failDial"
  | "arriveLate"
  | "die"
  | "goaway"
  | "slots"
  | "block"
  | "unblock"
  | "put"
  | "take"
  | "putBack"
  | "clear"
  | "configure"
  | "closeHandle"
  | "advance";

type Act = (world: World, action: Action) => void | Promise<void>;

function pick<T>(from: readonly T[], index: number): T | undefined {
  return from[index % from.length];
}

function release(world: World, index: number): void {
  const { held } = world;
  const [entry] = held.length === 0 ? [] : held.splice(index % held.length, 1);
  if (entry === undefined) return;
  const { conn, lease, end } = entry;
  conn.leases--;
  conn.streamEnded();
  entry.ask.state = "done";
  lease?.release();
  if (index % 3 === 0) lease?.release(); // idempotent
  end?.resolve();
}

function endCall(world: World, index: number, error?: unknown): void {
  const running = world.calls.filter((call) => call.conn.calls.has(call));
  const call = pick(running, index);
  if (call === undefined) return;
  call.end(error);
}

function configure(world: World, limits: Limits, key: string | undefined): void {
  const { capacity: _capacity, maxConns: _maxConns, ...keyLimits } = limits;
  const given = key === undefined ? limits : keyLimits;
  world.configuredAt = world.clock.now();
  world.rules.configure(given, key);
  for (const conn of world.open()) {
    conn.peakSlots = Math.max(conn.peakSlots, world.slots(conn));
    conn.mayDrain = true; // over the new limits, perhaps
    conn.idleSince = Math.max(conn.idleSince, world.clock.now());
  }
  world.pool.configure(given, key);
}

function clear(world: World, key: string | undefined): void {
  for (const conn of world.open(key)) world.drains(conn);
  for (const conn of world.taken) if (key === undefined || conn.key === key) conn.mustDrain = true;
  if (key === undefined) world.pool.clear();
  else world.pool.clear(key);
}

function put(world: World, conn: StressConn): void {
  const { openedAt } = conn;
  const known = conn.taken;
  world.prepare(conn);
  if (known) conn.openedAt = openedAt; // it keeps its age
  conn.taken = false;
  conn.held = false; // until the pool has accepted it
  conn.held = world.pool.put(conn.key, conn);
  if (!conn.held && !conn.dead && conn.closes !== 1) world.violate(`conn ${conn.id} was refused and not closed`);
}

export const actions = {
  invoke: (world, action) => {
    const asked = makeAsk(world, action, "invoke");
    const kept = world.handles.get(asked.key);
    const plain = asked.color === undefined && asked.dials && action.c < 4;
    const { dial, filter } = optionsOf(world, asked, action);
    const retryUnsent = !plain && bit(action.c, 2);
    asked.resends = retryUnsent;
    asked.resent = retryUnsent;
    const { pool } = world;
    const fresh = dial
      ? pool.get(asked.key, dial, { filter, retryUnsent })
      : pool.get(asked.key, { filter, retryUnsent });
    const handle = plain && kept ? kept : fresh;
    if (plain) world.handles.set(asked.key, handle);
    const { signal, timeoutMs, waitForReady } = optionsOf(world, asked, action);
    const options = { signal, timeoutMs, waitForReady, metadata: { ask: String(asked.id) } };
    follow(handle.invoke(echo, "hello", options), world, asked);
  },
  stream: (world, action) => {
    const asked = makeAsk(world, action, "stream");
    const { dial, filter, signal, timeoutMs, waitForReady } = optionsOf(world, asked, action);
    const handle = dial ? world.pool.get(asked.key, dial, { filter }) : world.pool.get(asked.key, { filter });
    const options = { signal, timeoutMs, waitForReady, metadata: { ask: String(asked.id) } };
    const done = handle.newStream(echo, options).then(async (stream) => {
      if (bit(action.c, 2)) for await (const _ of stream);
      await stream.closed;
    });
    follow(done, world, asked);
  },
  acquire: (world, action) => {
    const asked = makeAsk(world, action, "acquire");
    world.pool.acquire(asked.key, optionsOf(world, asked, action)).then(
      (lease) => leased(world, asked, lease),
      (error: unknown) => ended(world, asked, error),
    );
  },
  use: (world, action) => {
    const asked = makeAsk(world, action, "use");
    const fn = (conn: Conn): Promise<void> => {
      const end = deferred();
      if (!(conn instanceof StressConn)) throw new Error("a strange conn");
      asked.state = "granted";
      asked.grantedIn = world.burst;
      conn.leases++;
      world.held.push({ ask: asked, lease: undefined, end, conn });
      world.granted(conn, asked);
      return end.promise;
    };
    follow(world.pool.use(asked.key, fn, optionsOf(world, asked, action)), world, asked);
  },
  warm: (world, action) => {
    const asked = makeAsk(world, action, "warm");
    asked.state = "warming";
    const warm = world.pool.warm(asked.key, 1 + (action.c % 3), optionsOf(world, asked, action));
    const settled = (): void => {
      asked.state = "done";
    };
    world.warmed.add(asked.key);
    warm.then(settled, settled);
  },
  tryAcquire: (world, action) => {
    if (world.closing) return;
    const lease = world.pool.tryAcquire(keyOf(action));
    if (lease !== undefined) leased(world, undefined, lease);
  },
  release: (world, { a }) => release(world, a),
  answer: (world, { a }) => endCall(world, a),
  fail: (world, { a, b }) =>
    endCall(world, a, bit(b, 0) ? new ConnClosedError("died", false) : new Error("the RPC failed")),
  abort: (world, { a, b }) => {
    const asked = pick(
      world.asks.filter(({ abort, state }) => abort !== undefined && !abort.signal.aborted && state !== "done"),
      a,
    );
    const conn = world.calls.find((call) => call.ask === asked?.id)?.conn;
    if (conn?.open && bit(b, 0)) block(world, conn);
    asked?.abort?.abort(new Error("the caller aborts"));
  },
  arrive: (world, { a }) => {
    const dial = pick(
      world.dialing().filter(({ mode }) => mode === "later"),
      a,
    );
    if (dial !== undefined) world.arrive(dial);
  },
  failDial: (world, { a, b }) => {
    const dial = pick(
      world.dialing().filter(({ mode }) => mode === "later"),
      a,
    );
    if (dial !== undefined) world.fail(dial, b === 0);
  },
  arriveLate: (world, { a }) => {
    const dial = pick(
      world.dials.filter(({ settled, signal }) => !settled && signal.aborted),
      a,
    );
    if (dial !== undefined) world.arrive(dial);
  },
  die: (world, { a }) => {
    const conn = pick([...world.open(), ...world.taken], a);
    if (conn === undefined) return;
    conn.unfitSince = Math.min(conn.unfitSince, world.burst);
    conn.diedIn = world.burst;
    conn.die();
    world.gaveUp(conn.key); // that is how the pool sees it if it had just been dialed
  },
  goaway: (world, { a, b }) => {
    const conn = pick(world.open(), a);
    if (conn === undefined) return;
    conn.draining = true;
    if (conn.uses === 0) world.gaveUp(conn.key); // that is how the pool sees it if it had just been dialed
    conn.mayDrain = true;
    conn.unfitSince = Math.min(conn.unfitSince, world.burst);
    world.gaveUp(conn.key); // as above
    if (bit(b, 0) && world.plan.notifies) {
      world.drains(conn);
      conn.changed();
    }
  },
  slots: (world, { a, b }) => {
    const conn = pick(world.open(), a);
    if (conn === undefined) return;
    conn.maxStreams = b;
    if (b === 0) world.unsuited.set(conn.key, { burst: world.burst, all: true });
    conn.peakSlots = Math.max(conn.peakSlots, world.slots(conn));
    if (world.plan.notifies) conn.changed();
    else conn.changedSilently = true;
  },
  block: (world, { a }) => {
    const conn = pick(
      world.open().filter(({ ended: over }) => over > 0),
      a,
    );
    if (conn !== undefined) block(world, conn);
  },
  unblock: (world, { a, b }) => {
    const conn = pick(
      world.conns.filter(({ blocked }) => blocked),
      a,
    );
    if (conn === undefined) return;
    conn.blockedSince = Number.POSITIVE_INFINITY;
    const asked = conn.answerPending;
    const error = b === 0 ? new Error("still blocked, and will be") : undefined;
    if (error !== undefined && asked && conn.open) world.drains(conn);
    conn.unblock(error);
  },
  put: (world, action) => put(world, world.makeConn(keyOf(action))),
  take: (world, action) => {
    world.taking = 1;
    const conn = world.pool.take(keyOf(action));
    world.taking = 0;
    if (!(conn instanceof StressConn)) return;
    if (!conn.open || conn.running > 0 || conn.unfitSince < world.burst || conn.blockedSince < world.burst) {
      world.violate(`take gave conn ${conn.id}, which is not free`);
    }
    conn.taken = true;
    world.taken.push(conn);
  },
  putBack: (world, { a, b }) => {
    const { taken } = world;
    const [conn] = taken.length === 0 ? [] : taken.splice(a % taken.length, 1);
    if (conn === undefined) return;
    if (b === 0) conn.die();
    put(world, conn);
  },
  clear: (world, action) => clear(world, action.b < 2 ? undefined : keyOf(action)),
  configure: (world, action) => configure(world, action.limits, action.b < 4 ? undefined : keyOf(action)),
  closeHandle: (world, action) => {
    void world.handles.get(keyOf(action))?.close();
    world.handles.delete(keyOf(action));
  },
  advance: (world, { a, b }) => world.clock.advance((a + 1) * (b + 1)),
} satisfies Record<ActionName, Act>;

function block(world: World, conn: StressConn): void {
  conn.block();
  conn.blockedSince = Math.min(conn.blockedSince, world.burst);
}
