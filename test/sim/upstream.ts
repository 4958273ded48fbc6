import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Lease } from "../../src/contract.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Random } from "../../src/testing/random.ts";
import { DrpcPoolModel } from "../support/simulator/drpcpool.ts";
import { Machine } from "../support/simulator/machine.ts";
import { UpstreamConn } from "../support/simulator/upstream-conn.ts";

/**
 * The same random operations on storj.io/drpc/drpcpool and on this pool, side by side with what both should do:
 * `node .build/test/sim/upstream.js [operations] [seed]`. Needs Go 1.25, which simulates time.
 */
const operations = Number(process.argv[2] ?? 1_000_000);
const seed = Number(process.argv[3] ?? 1);

const version = /go(\d+)\.(\d+)/.exec(spawnSync("go", ["version"], { encoding: "utf8" }).stdout ?? "");
if (version === null || Number(version[1]) < 1 || Number(version[2]) < 25) {
  console.log("SKIPPED: there is no `go` of 1.25 or later here, so the pool is not compared with drpcpool");
  process.exit(0);
}

const folder = mkdtempSync(join(tmpdir(), "drpcpool-"));
const binary = join(folder, "model.test");
const sources = fileURLToPath(new URL("../../../test/interop/drpc", import.meta.url));
execFileSync("go", ["test", "-c", "-o", binary, "."], { cwd: sources, stdio: "inherit" });
const go = spawn(binary, ["-test.run", "TestModel", "-test.timeout", "0"], {
  env: { ...process.env, DRPCPOOL_MODEL: "1" },
  stdio: ["pipe", "pipe", "inherit"],
});
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** What is expected of drpcpool for each line that it was sent, oldest first. */
const expected: { readonly line: string; readonly answer: string }[] = [];
const answers = createInterface(go.stdout);
answers.on("line", (answer) => {
  if (!answer.startsWith("= ")) return;
  const next = expected.shift();
  if (next === undefined || next.answer !== answer.trim())
    fail(
      `drpcpool answers ${answer.trim()}, expected ${next?.answer} for ${next?.line}, after ${log.slice(0, -expected.length).join("; ")}`,
    );
});

function fail(what: string): never {
  console.log(`broken: ${what}\nplay it again: node .build/test/sim/upstream.js ${operations} ${seed}`);
  process.exit(1);
}

/** What was sent since the pools were made. */
const log: string[] = [];
async function send(line: string, took: number, result: number, closed: readonly number[]): Promise<void> {
  if (line.startsWith("new")) log.length = 0;
  log.push(line);
  expected.push({ line, answer: `= ${took} ${result} ${[...closed].sort((a, b) => a - b).join(" ")}`.trim() });
  if (!go.stdin.write(`${line}\n`)) await once(go.stdin, "drain");
}

/** Where the two differ, and how often that was seen. */
const differences = new Map<string, number>();
const seen = (what: string, count = 1): void => {
  if (count > 0) differences.set(what, (differences.get(what) ?? 0) + count);
};
const orphaned = "a put that evicts the last conn of its own key for `capacity` orphans the conn that is put";
const putLate = "a put after close caches the conn; ours closes it";
const emptied = "a key that was emptied by a take stays in the table";
const countsDead = "conns that have died count in the cache until somebody meets them";
const slowClose = "a close that takes its time blocks all keys";
const twice = "a conn that expires slowly, taken meanwhile, is removed twice";

const machine = new Machine();
machine.install();
const random = new Random(seed);
const keys = ["a", "b", "c"] as const;
const expirationMs = 1000;
let done = 0;

/** What ends a sequence early: the two go different ways from here. */
type End = boolean;

/** Both pools, and what is expected of each. */
class Pair {
  readonly capacity: number = random.pick([0, 0, 1, 2, 3, 5, -1]);
  readonly keyCapacity: number = random.pick([0, 0, 1, 2, 3, -1]);
  readonly expires: boolean = random.chance(0.5);
  readonly theirs = new DrpcPoolModel(this.capacity, this.keyCapacity, true);
  readonly ours = new DrpcPoolModel(this.capacity, this.keyCapacity, false);
  readonly pool = new Pool<string, UpstreamConn>({
    capacity: this.capacity,
    keyCapacity: this.keyCapacity,
    expirationMs: this.expires ? expirationMs : 0,
    selection: "oldest",
    clock: machine,
  });
  readonly conns: UpstreamConn[] = [];
  readonly taken: UpstreamConn[] = [];
  readonly streams: { readonly conn: UpstreamConn; readonly lease: Lease<UpstreamConn> }[] = [];

  begin(): Promise<void> {
    return send(`new ${this.capacity} ${this.keyCapacity} ${this.expires ? expirationMs : 0}`, 0, 0, []);
  }

  make(key: string): UpstreamConn {
    const conn = new UpstreamConn(this.conns.length + 1, key);
    this.conns.push(conn);
    this.theirs.conn(conn.id, key);
    this.ours.conn(conn.id, key);
    return conn;
  }

  /** Looks at what both have closed by an operation, each as it should. True: not the same. */
  async settle(line: string, took = 0, result = 0): Promise<End> {
    done++;
    await send(line, took, result, this.theirs.closed);
    await machine.ticks(4);
    const closed = this.conns.filter((conn) => conn.closes > 0 && !conn.noted);
    for (const conn of closed) conn.noted = true;
    const words = closed
      .map(({ id }) => id)
      .sort((a, b) => a - b)
      .join();
    const wanted = this.ours.closed.sort((a, b) => a - b).join();
    if (words !== wanted) this.fail(`closes ${words || "none"}, expected ${wanted || "none"}`, line);
    const differs = wanted !== this.theirs.closed.sort((a, b) => a - b).join();
    if (differs) seen(countsDead);
    this.theirs.closed = [];
    this.ours.closed = [];
    return differs;
  }

  fail(what: string, line: string): never {
    return fail(
      `this pool ${what}, at ${line}, operation ${done}, capacity ${this.capacity}, ${this.keyCapacity} of a key`,
    );
  }

  /** A conn comes into both caches. */
  async put(conn: UpstreamConn, line: string, act: () => void): Promise<End> {
    const orphans = this.theirs.orphans(conn.key) && !conn.dead;
    this.theirs.put(this.theirs.conn(conn.id, conn.key));
    this.ours.put(this.ours.conn(conn.id, conn.key));
    act();
    const differs = await this.settle(line);
    if (!orphans || differs || conn.blocked) return differs || orphans;
    seen(orphaned);
    const found = this.pool.take(conn.key);
    if (found !== conn) this.fail(`has conn ${found?.id} instead of ${conn.id}`, line);
    await send(`take ${conn.key}`, 0, -1, []);
    return true;
  }

  async step(): Promise<End> {
    const key = random.pick(keys);
    const { taken, streams } = this;
    const [lent] = taken.splice(random.under(taken.length + 1), 1);
    switch (random.under(10)) {
      case 0:
      case 1: {
        const conn = lent ?? this.make(key);
        return this.put(conn, `put ${conn.key} ${conn.id}`, () => this.pool.put(conn.key, conn));
      }
      case 2:
      case 3:
        if (lent !== undefined) taken.push(lent);
        return this.take(key);
      case 4:
      case 5:
        if (lent !== undefined) taken.push(lent);
        return this.stream(key);
      case 6:
      case 7: {
        if (lent !== undefined) taken.push(lent);
        const [stream] = streams.splice(random.under(streams.length), 1);
        if (stream === undefined) return false;
        const { conn, lease } = stream;
        return this.put(conn, `end ${conn.id}`, () => lease.release());
      }
      case 8:
        if (lent !== undefined) taken.push(lent);
        return this.trouble();
      default:
        if (lent !== undefined) taken.push(lent);
        return random.chance(0.3) && this.expires ? this.wait() : false;
    }
  }

  async take(key: string): Promise<End> {
    const theirs = this.theirs.take(key)?.id ?? -1;
    const ours = this.ours.take(key)?.id ?? -1;
    const conn = this.pool.take(key);
    if ((conn?.id ?? -1) !== ours) this.fail(`gives conn ${conn?.id}, expected ${ours}`, `take ${key}`);
    if (conn !== undefined) this.taken.push(conn);
    const differs = await this.settle(`take ${key}`, 0, theirs);
    if (theirs !== ours) seen(countsDead);
    return differs || theirs !== ours;
  }

  async stream(key: string): Promise<End> {
    const fresh = this.make(key);
    const theirs = (this.theirs.take(key) ?? this.theirs.conn(fresh.id, key)).id;
    const ours = (this.ours.take(key) ?? this.ours.conn(fresh.id, key)).id;
    const lease = await this.pool.acquire(key, { dial: () => fresh });
    if (lease.conn.id !== ours) this.fail(`uses conn ${lease.conn.id}, expected ${ours}`, `stream ${key}`);
    this.streams.push({ conn: lease.conn, lease });
    const differs = await this.settle(`stream ${key} ${fresh.id}`, 0, theirs);
    if (theirs !== ours) seen(countsDead);
    return differs || theirs !== ours;
  }

  /** A conn dies, is blocked, or is not blocked any more. */
  async trouble(): Promise<End> {
    const conn = this.conns[random.under(this.conns.length)];
    if (conn === undefined || conn.dead) return false;
    const [theirs, ours] = [this.theirs.conn(conn.id, conn.key), this.ours.conn(conn.id, conn.key)];
    const what = random.pick(["die", "block", "unblock", "unblock"]);
    if (what === "die") {
      conn.die();
      this.theirs.die(theirs);
      this.ours.die(ours);
    } else if (what === "block") conn.block();
    else conn.unblock();
    theirs.blocked = conn.blocked;
    ours.blocked = conn.blocked;
    const differs = await this.settle(`${what} ${conn.id}`);
    await machine.settle(); // a conn that was blocked twice since its last stream is free a turn later
    return differs;
  }

  async wait(): Promise<End> {
    await machine.advance(2 * expirationMs);
    this.theirs.expire();
    this.ours.expire();
    return this.settle(`wait ${2 * expirationMs}`, 2 * expirationMs);
  }

  /** The tables of keys, and the end: what is put after it. */
  async end(): Promise<void> {
    const { idleKeys, emptiedKeys } = this.theirs;
    seen(emptied, emptiedKeys);
    await send("keys", 0, idleKeys + emptiedKeys, []);
    const used = new Set(this.streams.filter(({ conn }) => !conn.dead).map(({ conn }) => conn.key));
    const known = [...this.pool.keys()].filter((key) => !used.has(key)).length;
    const mine = this.ours.idleKeys;
    if (known > mine) this.fail(`knows ${known} keys without a stream, and ${mine} have an idle conn`, "keys");
    const closed = this.pool.close();
    this.theirs.expire();
    this.ours.expire();
    if (await this.settle("close")) return;
    const late = this.taken.find((conn) => !conn.dead && !conn.blocked);
    if (late !== undefined && this.capacity >= 0 && this.keyCapacity >= 0) {
      if (this.pool.put(late.key, late) || late.closes !== 1) this.fail("keeps a conn put after close", "put");
      await send(`put ${late.key} ${late.id}`, 0, 0, []);
      await send(`take ${late.key}`, 0, late.id, []);
      seen(putLate);
    }
    for (const { lease } of this.streams) lease.release();
    await closed;
  }
}

/** Two that random operations cannot show, since they take time. */
async function slowCloses(): Promise<void> {
  for (const line of ["new 1 0 0", "put a 1", "slow 1"]) await send(line, 0, 0, []);
  await send("put b 2", 10, 0, [1]);
  seen(slowClose);
  for (const line of ["new 0 0 1000", "slow 1", "put a 1"]) await send(line, 0, 0, []);
  await send("wait 500", 500, 0, []);
  for (const line of ["put a 2", "put a 3"]) await send(line, 0, 0, []);
  await send("wait 501", 501, 0, []); // the first is being closed, since its time is over
  await send("take a", 0, 2, []);
  await send("wait 20", 20, 0, [1]);
  await send("take a", 0, -1, []); // the third is there, and not found
  seen(twice);
}

const start = process.cpuUsage();
await slowCloses();
while (done < operations) {
  const pair = new Pair();
  await pair.begin();
  const length = 1 + random.under(200);
  let ended = false;
  for (let step = 0; step < length && !ended; step++) ended = await pair.step();
  if (!ended) await pair.end();
  else await pair.pool.close({ graceMs: 0 });
}
go.stdin.end();
await once(answers, "close");
if (expected.length > 0) fail(`drpcpool did not answer ${expected.length} operations`);
const { user, system } = process.cpuUsage(start);
for (const [what, times] of differences) console.log(`${times} times: ${what}`);
const missing = [orphaned, putLate, emptied, countsDead, slowClose, twice].filter((what) => !differences.has(what));
if (missing.length > 0 && operations >= 10_000) fail(`never seen: ${missing.join("; ")}`);
console.log(`${done} operations on both agree but for that, ${((user + system) / 1e6).toFixed(1)} s of processor time`);
process.exit(0);
