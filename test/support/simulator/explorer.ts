import type { Limits } from "../../../src/options.ts";
import { commands, type OpName } from "./commands.ts";
import { whenSettled } from "./invariants.ts";
import { heal } from "./liveness.ts";
import { plainPlan } from "./plan.ts";
import { World } from "./world.ts";

/** A small world, all of whose orders of events are tried. */
export interface Bounds {
  readonly limits: Limits;
  /** Slots of each conn. */
  readonly slots: number;
  /** Callers who wait or hold a lease at the same time. */
  readonly callers: number;
  readonly depth: number;
  /** After so many seconds no new depth is begun. */
  readonly seconds: number;
}

export interface Explored {
  readonly states: number;
  /** Moves that were tried. */
  readonly moves: number;
  /** All orders of so many moves. */
  readonly depth: number;
  readonly broken: string | undefined;
}

/** One event: a command, and whom it happens to. */
interface Move {
  readonly op: OpName;
  readonly a: number;
  readonly b: number;
}

/** The commands' way to name the first two keys. */
const keyNumbers: readonly number[] = [0, 4];
/** A caller with a signal of its own and a dial function. */
const plainCaller = 2;

class SmallWorld {
  readonly world: World;
  readonly #bounds: Bounds;
  readonly #uninstall: () => void;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
    this.world = new World({ ...plainPlan, limits: bounds.limits, slots: [bounds.slots] });
    this.world.manual = true;
    this.#uninstall = this.world.machine.install();
  }

  /** Everything that can happen now. */
  moves(): Move[] {
    const { world } = this;
    const moves: Move[] = [];
    const each = (op: OpName, count: number, b = 1): void => {
      for (let a = 0; a < count; a++) moves.push({ op, a, b });
    };
    const open = world.open();
    const waiting = world.waiting();
    if (waiting.length + world.held.length < this.#bounds.callers) {
      for (const a of keyNumbers) moves.push({ op: "acquire", a, b: plainCaller });
    }
    each("release", world.held.length);
    const abortable = world.callers.filter(({ state }) => state !== "done");
    for (const [a, { state }] of abortable.entries()) if (state === "waiting") moves.push({ op: "abort", a, b: 0 });
    each("arrive", world.dialing().length);
    each("failDial", world.dialing().length);
    each("die", open.length);
    const used = open.filter(({ endedStreams }) => endedStreams > 0);
    for (const [a, { block }] of used.entries()) if (block === undefined) moves.push({ op: "block", a, b: 0 });
    each("unblock", world.conns.filter(({ block }) => block !== undefined).length);
    if (open.length + world.dialing().length > 0) {
      for (const a of keyNumbers) moves.push({ op: "clear", a, b: 2 });
      moves.push({ op: "clear", a: 0, b: 0 });
    }
    return moves;
  }

  /** What was looked at on a shorter path need not be looked at again. */
  async make({ op, a, b }: Move, looks: boolean): Promise<void> {
    const { world } = this;
    await commands[op](world, { a, b, c: 0, limits: {} });
    const rests = await world.machine.settle();
    if (!rests) world.violate("the pool finds no rest");
    if (looks) whenSettled(world, true);
    world.nextBurst();
  }

  /** Two worlds that are told apart by nothing that can be seen are the same. */
  get state(): string {
    const { world } = this;
    const open = world.open();
    const byRelease = [...open].sort((one, other) => one.released - other.released);
    const conns = open.map((conn) => {
      const { key, running, block, mustDrain, endedStreams, askPending } = conn;
      const order = running === 0 ? byRelease.indexOf(conn) : -1;
      return [key, running, block !== undefined, askPending, mustDrain, endedStreams > 0, order].join();
    });
    const known = new Map(open.map((conn, index) => [conn, index]));
    const held = world.held.map(({ conn }) => known.get(conn) ?? "gone");
    const waiting = world.waiting().map(({ key }) => key);
    const dialing = world.dialing().map(({ key }) => key);
    const told = ["a", "b"].map((key) => {
      const { idle, leased, draining, blocked, dialing: dials } = world.pool.stats(key);
      return [idle, leased, draining, blocked, dials, world.knows(key)].join();
    });
    return [conns, held, waiting, dialing, told].map((part) => part.join(";")).join("|");
  }

  /** Returns the rule that was broken, if one was. */
  async end(lives: boolean): Promise<string | undefined> {
    const { world } = this;
    if (lives && world.violation === undefined) await heal(world);
    const { violation } = world;
    world.healed = true;
    world.pool.close({ graceMs: 0 }).catch(() => {});
    await world.machine.advance(30); // a pool that is not closed yet keeps the process alive
    this.#uninstall();
    return violation;
  }
}

/** Every so many new states, the faults stop: all callers must settle. */
const livesEach = 20;

/**
 * Tries every order of events up to a depth, breadth first, from the empty pool; what leads to a state that was seen before
 * is not followed.
 */
export async function explore(bounds: Bounds): Promise<Explored> {
  const end = performance.now() + bounds.seconds * 1000;
  const seen = new Set<string>();
  let frontier: (readonly Move[])[] = [[]];
  let moves = 0;
  let depth = 0;
  for (; depth < bounds.depth && frontier.length > 0 && performance.now() < end; depth++) {
    const next: (readonly Move[])[] = [];
    for (const path of frontier) {
      const here = new SmallWorld(bounds);
      for (const move of path) await here.make(move, false);
      const possible = here.moves();
      await here.end(false);
      for (const move of possible) {
        moves++;
        const there = new SmallWorld(bounds);
        for (const before of path) await there.make(before, false);
        await there.make(move, true);
        const { state } = there;
        const isNew = !seen.has(state);
        if (isNew) {
          seen.add(state);
          next.push([...path, move]);
        }
        const violation = await there.end(isNew && seen.size % livesEach === 0);
        if (violation !== undefined) {
          const words = [...path, move].map(({ op, a, b }) => `${op} a=${a} b=${b}`).join(", ");
          return { states: seen.size, moves, depth, broken: `${violation}\nafter: ${words}` };
        }
      }
    }
    frontier = next;
  }
  return { states: seen.size, moves, depth, broken: undefined };
}

/** Two keys, two conns, three callers: as many conns of one slot, or of two, or one conn of each key, or few kept. */
export const smallWorlds: readonly Limits[] = [
  { maxConns: 2 },
  { maxConns: 2, capacity: 1 },
  { maxKeyConns: 1, maxStreams: 2 },
  { maxConns: 2, keyCapacity: -1 },
];
