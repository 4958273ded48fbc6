import { Random } from "../../../src/testing/random.ts";
import { commands, type OpName } from "./commands.ts";
import { keys, plainPlan } from "./plan.ts";
import { ReferencePool } from "./reference.ts";
import { World } from "./world.ts";

const ops: readonly [OpName, ...OpName[]] = [
  "acquire",
  "acquire",
  "acquire",
  "acquire",
  "release",
  "release",
  "release",
  "abort",
  "arrive",
  "arrive",
  "arrive",
  "failDial",
  "die",
  "goaway",
  "block",
  "unblock",
  "unblock",
  "put",
  "take",
  "clear",
];

const wide = (value: number | undefined): number =>
  value === undefined || value === 0 ? Number.POSITIVE_INFINITY : Math.max(value, 0);

/** The pool and the reference, through the same commands; after each, all that can be seen of both is equal. */
class SideBySide {
  readonly world: World;
  readonly #reference: ReferencePool;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
    const limits = {
      capacity: random.pick([undefined, undefined, -1, 1, 2, 4]),
      keyCapacity: random.pick([undefined, undefined, -1, 1, 2]),
      maxKeyConns: random.pick([undefined, 1, 2, 3]),
      maxKeyDials: random.pick([undefined, undefined, 1, 2]),
      maxStreams: random.pick([undefined, undefined, 1, 2]),
    };
    const selection = random.pick(["oldest", "newest"] as const);
    const slots = random.pick([[1], [2], [1, 3], [5]]);
    this.world = new World({ ...plainPlan, limits, selection, slots });
    this.world.manual = true;
    this.#reference = new ReferencePool(
      {
        capacity: wide(limits.capacity),
        keyCapacity: wide(limits.keyCapacity),
        maxKeyConns: wide(limits.maxKeyConns),
        maxKeyDials: wide(limits.maxKeyDials),
        maxStreams: wide(limits.maxStreams),
      },
      selection,
    );
  }

  /** Returns what was done; nothing, where the step is skipped or finds nothing to do it to. */
  async step(skipped: boolean): Promise<string> {
    const { world } = this;
    const random = this.#random;
    const reference = this.#reference;
    const op = random.pick(ops);
    const a = random.under(64);
    if (skipped) return "";
    const act = { a, b: 2, c: 0, limits: {} };
    const key = keys[[0, 0, 0, 0, 1, 1, 2, 3][a % 8] ?? 0] ?? "a";
    const pick = <T>(from: readonly T[]): T | undefined => from[a % from.length];
    const next = world.conns.length;
    const slots = world.plan.slots[next % world.plan.slots.length] ?? 1;
    switch (op) {
      case "acquire":
        reference.acquire(world.callers.length, key);
        break;
      case "release": {
        const held = pick(world.held);
        if (held !== undefined) reference.release(held.caller.id);
        break;
      }
      case "abort": {
        const caller = pick(
          world.callers.filter(({ abort, state }) => abort && !abort.signal.aborted && state !== "done"),
        );
        if (caller !== undefined) reference.abort(caller.id);
        break;
      }
      case "arrive":
      case "failDial": {
        // The oldest of its key: which of several comes first is not the pool's affair.
        const dial = pick(world.dialing());
        if (dial === undefined || world.dialing(dial.key)[0] !== dial) return "";
        // Where a key fails, the pool dials again at its own pace: only what leaves nobody waiting is compared.
        if (op === "failDial" && !reference.failsAll(dial.key)) return "";
        if (op === "arrive") reference.arrive(dial.key, next, slots);
        else reference.fail(dial.key);
        break;
      }
      case "die": {
        const conn = pick([...world.open(), ...world.taken]);
        if (conn !== undefined) reference.die(conn.id);
        break;
      }
      case "goaway": {
        const conn = pick(world.open());
        if (conn !== undefined) reference.goaway(conn.id);
        act.b = 1;
        break;
      }
      case "block": {
        const conn = pick(world.open().filter(({ endedStreams }) => endedStreams > 0));
        if (conn !== undefined) reference.block(conn.id);
        break;
      }
      case "unblock": {
        const conn = pick(world.conns.filter(({ block }) => block !== undefined));
        if (conn !== undefined) reference.unblock(conn.id);
        break;
      }
      case "put":
        if (world.waiting(key).length > 0) return "";
        reference.put(next, key, slots);
        break;
      case "take":
        reference.take(key);
        break;
      case "clear":
        reference.clear(key);
        break;
      default:
        return "";
    }
    commands[op](world, act);
    await world.machine.settle();
    world.nextBurst();
    return `${op} a=${a}`;
  }

  /** Where the two differ. */
  get difference(): string | undefined {
    const { world } = this;
    const reference = this.#reference;
    if (world.violation !== undefined) return world.violation;
    for (const key of keys) {
      const { closed, ...stats } = world.pool.stats(key);
      const ends = Object.entries(closed).map(([reason, count]) => [`closed ${reason}`, count]);
      const seen: Record<string, unknown> = { ...stats, ...Object.fromEntries(ends) };
      for (const [name, wanted] of Object.entries(reference.stats(key))) {
        if (seen[name] !== wanted) return `${name} of ${key}: ${String(seen[name])}, expected ${wanted}`;
      }
      const waiting = world
        .waiting(key)
        .map(({ id }) => id)
        .join();
      const wanted = reference.waiting
        .filter((one) => one.key === key)
        .map(({ caller }) => caller)
        .join();
      if (waiting !== wanted) return `of ${key} wait ${waiting}, expected ${wanted}`;
    }
    for (const { caller, conn } of world.held) {
      const wanted = reference.held.get(caller.id);
      if (wanted !== conn.id) return `caller ${caller.id} has ${conn.name}, expected ${wanted}`;
    }
    if (world.held.length !== reference.held.size)
      return `${world.held.length} leases, expected ${reference.held.size}`;
    for (const { id, closes, dead, name } of world.conns) {
      const reason = reference.ends.get(id);
      if (closes > 0 && reason === undefined) return `${name} is closed`;
      if (closes === 0 && !dead && reason !== undefined) return `${name} is open, expected: ${reason}`;
    }
    const failed = world.callers.filter(({ outcome }) => outcome !== undefined && outcome !== "served").length;
    if (failed !== reference.failed.size) return `${failed} callers failed, expected ${reference.failed.size}`;
    const known = [...world.pool.keys()].sort().join();
    const wanted = [...reference.keys.keys()].sort().join();
    return known === wanted ? undefined : `keys ${known}, expected ${wanted}`;
  }
}

/** Plays a run on both, but for some steps. Returns where they differ, and after what. */
export async function compareRun(
  seed: number,
  length: number,
  skip: ReadonlySet<number> = new Set(),
): Promise<{ commands: number; broken: string | undefined }> {
  const random = new Random(seed);
  const both = new SideBySide(random);
  const { world } = both;
  const uninstall = world.machine.install();
  const said: string[] = [];
  let broken: string | undefined;
  for (let step = 0; step < length && broken === undefined; step++) {
    const words = await both.step(skip.has(step));
    if (words === "") continue;
    said.push(words);
    broken = both.difference;
  }
  world.healed = true;
  world.pool.close({ graceMs: 0 }).catch(() => {});
  await world.machine.advance(30);
  uninstall();
  const plan = `${JSON.stringify(world.plan.limits)}, ${world.plan.selection}, slots ${world.plan.slots.join()}`;
  return { commands: said.length, broken: broken && `${broken}\n${plan}\nafter: ${said.join(", ")}` };
}
