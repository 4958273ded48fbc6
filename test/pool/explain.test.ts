import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isPoolError } from "../../src/errors.ts";
import type { Decision } from "../../src/explanation.ts";
import type { Limits } from "../../src/options.ts";
import { type Options, otherCauses, type Request, type World, world } from "../support/causes.ts";
import { settle } from "../support/clock.ts";
import { ScriptedConn } from "../support/conn.ts";
import { limitCauses } from "../support/limit-causes.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

/** What a caller really meets: a lease at once, a lease from a dial that is in flight then, a wait, or an error. */
async function met({ pool, dial, ask, slots }: World, caller: Request): Promise<{ decision: Decision; code?: string }> {
  const asked = await ask("k", caller);
  if (asked.state === "rejected") {
    return isPoolError(asked.error) ? { decision: "refuse", code: asked.error.code } : { decision: "refuse" };
  }
  if (asked.state === "resolved") return { decision: "lease" };
  const maxStreams = slots ?? (pool.stats("k").open > 0 ? 1 : 100);
  for (const { key, arrive } of dial.pending) if (key === "k") arrive(new ScriptedConn({ maxStreams }));
  await settle();
  return { decision: String(asked.state) === "pending" ? "wait" : "dial" };
}

const causes = [...otherCauses, ...limitCauses];

for (const {
  name,
  options = {},
  slots,
  stage,
  caller = () => ({}),
  decision,
  by,
  numbers,
  code,
  ways,
  says,
} of causes) {
  test(`explain: ${name}`, async (t) => {
    const w = world(t, options, slots);
    await stage(w);
    const before = [w.pool.stats(), w.clock.timers, [...w.pool.keys()]];
    const told = w.pool.explain("k", caller(w));
    await settle();
    assert.deepEqual([w.pool.stats(), w.clock.timers, [...w.pool.keys()]], before, "to ask has changed something");

    assert.equal(told.decision, decision, String(told));
    assert.equal(told.heldBackBy?.by, by, String(told));
    assert.equal(told.code, code);
    if (numbers !== undefined) assert.deepEqual([told.heldBackBy?.used, told.heldBackBy?.limit], numbers);
    const texts = told.counterfactuals.map(({ text }) => text);
    if (ways !== undefined) assert.deepEqual(texts, ways, String(told));
    if (says !== undefined) assert.match(String(told), says);
    assert.ok(String(told).split("\n").length <= 12, String(told));

    const really = await met(w, caller(w));
    assert.deepEqual(really, code === undefined ? { decision } : { decision, code }, String(told));
    for (const { limits, decision: other, text } of told.counterfactuals) {
      const second = world(t, withOther(options, limits), slots);
      await stage(second);
      assert.equal(second.pool.explain("k", caller(second)).decision, other, text);
      assert.equal((await met(second, caller(second))).decision, other, text);
    }
  });
}

/** What `options.limits` says of single keys goes before the limits of the pool. */
function withOther(options: Options, limits: Limits): Options {
  const ofKey = options.limits === undefined ? {} : { limits: () => ({ ...options.limits?.("k"), ...limits }) };
  return { ...options, ...limits, ...ofKey };
}

test("at least fifty causes are explained", () => {
  assert.ok(causes.length >= 50, `${causes.length}`);
});

const steps: fc.Arbitrary<[string, number][]> = fc.array(
  fc.tuple(
    fc.constantFrom(
      ...([
        "ask",
        "ask",
        "patient",
        "choosy",
        "other",
        "arrive",
        "arrive",
        "fail",
        "release",
        "advance",
        "die",
      ] as const),
      ...(["drain", "block", "gain", "put", "clear", "abort"] as const),
    ),
    fc.nat(5),
  ),
  { maxLength: 30 },
);

const limits: fc.Arbitrary<Limits> = fc.record({
  maxKeyConns: fc.constantFrom(0, 1, 2, 3),
  maxConns: fc.constantFrom(0, 1, 2, 4),
  maxDials: fc.constantFrom(0, 0, 1),
  maxKeyDials: fc.constantFrom(0, 0, 1),
  maxStreams: fc.constantFrom(0, 1, 2),
  maxWaiters: fc.constantFrom(1000, 1, 2, -1),
  backoff: fc.constantFrom(false, { baseMs: 100, maxMs: 200 }),
});

const open = { maxKeyConns: 0, maxConns: 0, maxDials: 0, maxKeyDials: 0, maxStreams: 0, backoff: false } as const;

/** Histories in which it was wrong once. */
const found: [[string, number][], Limits, number | undefined, number][] = [
  // A conn gains room without a word.
  [
    [
      ["ask", 0],
      ["arrive", 0],
      ["ask", 0],
      ["gain", 0],
    ],
    { ...open, maxWaiters: 1000 },
    1,
    2,
  ],
  // An idle conn of another key has been evicted, and is being closed.
  [
    [
      ["other", 0],
      ["arrive", 0],
      ["ask", 0],
      ["release", 0],
    ],
    { ...open, maxConns: 2, maxWaiters: -1 },
    undefined,
    0,
  ],
  // Another waits whom no dial serves.
  [
    [
      ["ask", 0],
      ["choosy", 0],
      ["ask", 0],
      ["arrive", 0],
    ],
    { ...open, maxWaiters: -1 },
    undefined,
    0,
  ],
  // A conn in use drains without a word.
  [
    [
      ["ask", 0],
      ["arrive", 0],
      ["drain", 0],
    ],
    { ...open, maxConns: 1, maxWaiters: 1000 },
    2,
    0,
  ],
  // The same, and it has gained room, so that it is looked at.
  [
    [
      ["ask", 0],
      ["arrive", 0],
      ["gain", 0],
      ["drain", 0],
    ],
    { ...open, maxKeyConns: 1, maxWaiters: 1000 },
    1,
    0,
  ],
  // It has not, and its filter keeps the caller from looking at it.
  [
    [
      ["ask", 0],
      ["arrive", 0],
      ["drain", 0],
    ],
    { ...open, maxKeyConns: 1, maxWaiters: 1000 },
    2,
    2,
  ],
  // What a backoff, a full queue and a full pool hold back: to lift one brings back another.
  [
    [
      ["ask", 0],
      ["fail", 0],
      ["other", 0],
    ],
    { ...open, maxConns: 1, maxDials: 1, maxWaiters: -1, backoff: { baseMs: 100, maxMs: 200 } },
    undefined,
    0,
  ],
  // A conn gains room without a word, and what is dialed for who waits is free then.
  [
    [
      ["ask", 0],
      ["arrive", 0],
      ["ask", 0],
      ["gain", 0],
    ],
    { ...open, maxDials: 1, maxStreams: 2, maxWaiters: -1 },
    1,
    0,
  ],
  // The same, and no conn passes the caller's filter.
  [
    [
      ["choosy", 0],
      ["ask", 0],
      ["arrive", 0],
      ["ask", 0],
      ["ask", 0],
      ["gain", 0],
    ],
    { ...open, maxWaiters: 1000 },
    2,
    2,
  ],
];

const isChosen = (conn: ScriptedConn) => conn.tags?.["zone"] === "a";
const callers: readonly Request[] = [{}, { waitForReady: true }, { filter: isChosen }];

test("explain foretells what a caller meets, whatever happened before", async (t) => {
  const seen: Record<string, number> = {};
  const property = fc.asyncProperty(
    steps,
    limits,
    fc.constantFrom<(number | undefined)[]>(1, 2, undefined),
    fc.nat(2),
    async (script, given, slots, n) => {
      const w = world(t, { ...given, dialTimeoutMs: 0 }, slots);
      const leases: { release(): void; conn: ScriptedConn }[] = [];
      const aborts: AbortController[] = [];
      const ask = (key: string, request: Request) => {
        const abort = new AbortController();
        aborts.push(abort);
        const asked = w.pool.acquire(key, { ...request, signal: abort.signal });
        asked.then((lease) => leases.push(lease)).catch(() => {});
      };
      const make = (i: number) =>
        new ScriptedConn({ maxStreams: slots ?? 1 + (i % 2), tags: { zone: i > 2 ? "a" : "b" } });
      for (const [what, i] of script) {
        const conn = w.dial.conns[i];
        if (what === "ask") ask("k", {});
        if (what === "patient") ask("k", { waitForReady: true });
        if (what === "choosy") ask("k", { filter: isChosen });
        if (what === "other") ask(`other ${i % 2}`, {});
        if (what === "arrive") w.dial.pending.at(-1 - i)?.arrive(make(i));
        if (what === "fail") w.dial.pending.at(-1 - i)?.fail(new Error("refused"));
        if (what === "release") leases.splice(i, 1)[0]?.release();
        if (what === "advance") await w.clock.advance(i * 30);
        if (what === "die") conn?.die();
        if (what === "drain" && conn !== undefined) conn.draining = true;
        if (what === "block" && conn !== undefined) conn.blockedUntil = new Promise(() => {});
        if (what === "gain" && conn !== undefined) conn.maxStreams = 3;
        if (what === "put") w.pool.put("k", make(i));
        if (what === "clear" && i === 0) w.pool.clear();
        if (what === "abort") aborts[i]?.abort();
        await settle();
      }
      const caller = callers[n] ?? {};
      const facts = () => [w.pool.stats(), w.pool.stats("k"), [...w.pool.keys()], w.clock.timers];
      const unasked = facts();
      const told = w.pool.explain("k", caller);
      await settle();
      assert.deepEqual(facts(), unasked, "to ask has changed something");
      const before = w.dial.count;
      const asked = await w.ask("k", caller);
      const { decision } = told;
      const state = { lease: "resolved", refuse: "rejected", dial: "pending", wait: "pending" }[decision];
      assert.equal(asked.state, state, `${String(told)}\n${String(asked.error)}`);
      if (decision === "refuse") assert.ok(isPoolError(asked.error) && asked.error.code === told.code, String(told));
      if (told.why.includes("nothing is against") || told.why.includes("makes way"))
        assert.ok(w.dial.count > before, String(told));
      if (decision === "wait" && told.heldBackBy?.by !== "pace") assert.equal(w.dial.count, before, String(told));
      seen[decision] = (seen[decision] ?? 0) + 1;
      await w.pool.close({ graceMs: 0 });
    },
  );
  await fc.assert(property, {
    numRuns: 300,
    examples: found,
  });
  for (const decision of ["lease", "dial", "wait", "refuse"])
    assert.ok((seen[decision] ?? 0) > 5, JSON.stringify(seen));
});
