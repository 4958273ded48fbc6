import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type Conn, Pool } from "../../src/index.ts";
import { echo, FakeClock, type Simulation, SimulationError, simulate } from "../../src/testing/index.ts";
import { nothingUnheard } from "../support/outcome.ts";

nothingUnheard();

/** A program that meets everything: its pool pauses and ends lifetimes at random, as pools do. */
async function busy({ clock, network, random, sleep }: Simulation, tries = 3): Promise<void> {
  const pool = new Pool<string>({ clock, dial: network.dial, maxKeyConns: 2, backoff: true, maxLifetimeMs: 10_000 });
  const ask = async () => {
    await sleep(random.under(20_000));
    const peer = pool.get(random.pick(["a", "b", "c"]));
    for (let left = tries; left > 0; left--) if (await answered(peer)) return;
    throw new Error("no answer");
  };
  await Promise.allSettled(Array.from({ length: 100 }, ask));
  network.calm();
  await pool.close();
  assert.equal(network.open, 0);
  assert.equal(clock.timers, 0);
}

function answered(peer: Conn): Promise<boolean> {
  return peer.invoke(echo, "hello", { timeoutMs: 2_000 }).then(
    (answer) => answer === "hello",
    () => false,
  );
}

async function traceOf(seed: number): Promise<readonly string[]> {
  let trace: readonly string[] = [];
  await simulate({ seed }, async (simulation) => {
    await busy(simulation);
    ({ trace } = simulation.network);
  });
  return trace;
}

async function failureOf(run: Promise<void>): Promise<SimulationError> {
  const error = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof SimulationError, `failed with ${String(error)}`);
  return error;
}

test("the same seed is the same run, to the millisecond; another seed is another run", async () => {
  const trace = await traceOf(1);
  assert.ok(trace.length > 100, `${trace.length} lines`);
  assert.deepEqual(await traceOf(1), trace);
  assert.notDeepEqual(await traceOf(2), trace);
});

test("each fault happens in some runs of the defaults, and the pool leaves nothing behind", async () => {
  const kinds = new Set<string>();
  await simulate({ seed: 1, runs: 20 }, async (simulation) => {
    await busy(simulation);
    for (const line of simulation.network.trace) kinds.add(line.replace(/^\d+ ms: /, "").replaceAll(/\d+ of \w/g, "N"));
  });
  for (const kind of ["dial N fails", "conn N dies", "conn N falls silent", "conn N says goaway", "conn N is blocked"])
    assert.ok(kinds.has(kind), `${kind} is not in ${[...kinds].join()}`);
});

test("chance is the run's own while it lasts, and the machine's again afterwards, after a failure too", async () => {
  const { random } = Math;
  const drawn: number[] = [];
  const draw = () => drawn.push(Math.random());
  for (let i = 0; i < 2; i++) await simulate({ seed: 7 }, draw);
  assert.equal(drawn[0], drawn[1]);
  await failureOf(simulate({ seed: 7 }, () => assert.fail("of purpose")));
  assert.equal(Math.random, random);
});

test("what the program draws changes nothing for the network", async () => {
  const dialMs: string[] = [];
  for (const draws of [0, 10]) {
    await simulate({ seed: 7 }, async ({ clock, network, random }) => {
      for (let i = 0; i < draws; i++) random.next();
      const pool = new Pool<string>({ clock, dial: network.dial });
      await answered(pool.get("a"));
      await pool.close();
      dialMs.push(network.trace.join("\n"));
    });
  }
  assert.equal(dialMs[0], dialMs[1]);
});

test("runs have one seed each, from the first on; by default a hundred that change from day to day, or the one that is given", async () => {
  const seeds: number[] = [];
  const note = ({ seed }: Simulation) => seeds.push(seed);
  await simulate({ seed: 5, runs: 3 }, note);
  await simulate({ seed: 42 }, note);
  assert.deepEqual(seeds.splice(0), [5, 6, 7, 42]);
  await simulate({}, note);
  assert.equal(seeds.length, 100);
});

test("a lease that is not given back when a call fails is found, and its seed finds it again", async () => {
  const leaky = async ({ clock, network }: Simulation) => {
    const pool = new Pool<string>({ clock, dial: network.dial, maxKeyConns: 1, waitTimeoutMs: 30_000 });
    for (let i = 0; i < 20; i++) {
      const lease = await pool.acquire("a").catch(() => undefined);
      if (lease === undefined) continue;
      try {
        await lease.conn.invoke(echo, "hello", { timeoutMs: 1_000 });
        lease.release();
      } catch {} // the planted bug: no release
    }
    await pool.close({ graceMs: 0 });
    assert.equal(pool.stats().timeouts, 0);
  };
  const first = await failureOf(simulate({ seed: 1, runs: 50, maxStreams: 1 }, leaky));
  const again = await failureOf(simulate({ seed: first.seed, maxStreams: 1 }, leaky));
  assert.equal(again.message, first.message);
  assert.deepEqual(again.trace, first.trace);
});

test("a retry that is forgotten is found; the message names the seed and what happened last, the cause is the error itself", async () => {
  const forgetful = async (simulation: Simulation) => {
    const pool = new Pool<string>({ clock: simulation.clock, dial: simulation.network.dial });
    const answer = await answered(pool.get("a"));
    await pool.close();
    assert.ok(answer, "no answer");
  };
  const error = await failureOf(simulate({ seed: 1, runs: 200 }, forgetful));
  assert.match(
    error.message,
    new RegExp(`^the run of seed ${error.seed} fails: no answer\nsimulate\\({ seed: ${error.seed} }, …`),
  );
  assert.match(error.message, /What happened last:\n {4}0 ms: dial 1 of a\n/);
  assert.ok(error.cause instanceof assert.AssertionError);
});

test("a program that waits for nothing that could happen fails at once", async () => {
  const error = await failureOf(simulate({ seed: 1 }, () => new Promise(() => {})));
  assert.match(error.message, /waits for what can never happen: no timer of the simulated clock is armed/);
});

test("a program that is not done in time fails, and those who still wait in it hear that all is over", async () => {
  const waits: Promise<unknown>[] = [];
  const stuck = async ({ clock, network }: Simulation) => {
    const pool = new Pool<string>({ clock, dial: network.dial, maxKeyConns: 1 });
    await pool.acquire("a"); // the planted bug: it is kept
    waits.push(pool.acquire("a"));
    await waits[0];
  };
  const error = await failureOf(simulate({ seed: 1, maxStreams: 1, maxMs: 120_000, faults: false }, stuck));
  assert.match(error.message, /the program is not done after 120000 ms of simulated time/);
  await assert.rejects(waits[0] ?? Promise.resolve(), /the simulation is over/);
});

test("timers that fire for ever while no time passes are a failure", async () => {
  const error = await failureOf(
    simulate({ seed: 1 }, async ({ sleep }) => {
      for (;;) await sleep(0);
    }),
  );
  assert.match(error.message, /timers fire without end/);
});

test("what a timer of the simulated clock throws fails the run", async () => {
  const error = await failureOf(
    simulate({ seed: 1 }, async ({ clock, sleep }) => {
      clock.setTimeout(() => {
        throw new Error("in a callback");
      }, 5);
      await sleep(10);
    }),
  );
  assert.match(error.message, /in a callback/);
});

test("a step of the clock fires the next timer alone, or none, and then no time has passed", async () => {
  const clock = new FakeClock();
  const fired: number[] = [];
  for (const ms of [20, 10, 10]) clock.setTimeout(() => fired.push(clock.now()), ms);
  assert.equal(await clock.step(5), false);
  assert.equal(clock.now(), 1000);
  for (const timers of [2, 1, 0]) {
    assert.equal(await clock.step(), true);
    assert.equal(clock.timers, timers);
  }
  assert.deepEqual(fired, [1010, 1010, 1020]);
  assert.equal(await clock.step(), false);
});

test("one simulation runs at a time, since chance is the process's", async () => {
  const first = simulate({ seed: 1 }, ({ sleep }) => sleep(10));
  await assert.rejects(
    simulate({ seed: 2 }, () => {}),
    /another simulation runs in this process/,
  );
  await first;
});

test("options are checked, by name and by value", async () => {
  const refused = (options: object, message: RegExp) =>
    assert.rejects(
      simulate(options, () => {}),
      { code: "ERR_POOL_ARGUMENT", message },
    );
  await refused({ sead: 1 }, /unknown option `sead` in simulate's options; did you mean `seed`\?/);
  await refused({ faults: { death: 1 } }, /unknown option `death` in faults; did you mean `deaths`\?/);
  await refused({ faults: { deaths: 2 } }, /expected `faults.deaths` to be a number from 0 to 1, got 2/);
  await refused({ faults: true }, /expected `faults` to be an object of options, got true/);
  await refused({ seed: -1 }, /expected `seed`/);
  await refused({ seed: 1.5 }, /expected `seed`/);
  await refused({ runs: 0 }, /expected `runs` to be an integer of at least 1, got 0/);
  await refused({ maxMs: 0 }, /expected `maxMs`/);
  await refused({ answer: 1 }, /expected `answer` to be a function/);
  await refused(
    { dialMs: [5, 1] },
    /expected `dialMs` to be a number of at least 0, or a pair of them, \[least, most\], got/,
  );
  await refused({ answerMs: "1" }, /expected `answerMs`/);
  await refused({ maxStreams: 0 }, /expected `maxStreams` to be a number of at least 1/);
  await refused({ faults: { slowMs: [1] } }, /expected `faults.slowMs`/);
});

test("a simulation that fails keeps no process alive", async () => {
  const testing = new URL("../../src/testing/index.js", import.meta.url).href;
  const index = new URL("../../src/index.js", import.meta.url).href;
  const program = `
    import { Pool } from "${index}";
    import { simulate } from "${testing}";
    await simulate({ seed: 1, maxStreams: 1, faults: false }, async ({ clock, network }) => {
      const pool = new Pool<string>({ clock, dial: network.dial, maxKeyConns: 1 });
      for (;;) await pool.acquire("a", { waitForReady: true });
    }).catch(({ seed }) => console.log("failed", seed));`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program], {
    cwd: fileURLToPath(new URL(".", import.meta.url)),
  });
  assert.equal(stdout, "failed 1\n");
});
