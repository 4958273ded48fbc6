import { fresh } from "./fresh.ts";
import { NoopConn, rpc } from "./noop.ts";
import { median, type Race } from "./race.ts";
import { atMost, type Contender, type Line, type Pace, type Section } from "./row.ts";
import { contendersOf, off, on } from "./variants.ts";

const direct = (): Contender => {
  const conn = new NoopConn();
  return {
    name: "direct",
    run: async (n) => {
      for (let i = 0; i < n; i++) await conn.invoke(rpc, "request");
    },
  };
};

const contenders: Record<string, () => Contender | Promise<Contender>> = { direct };
for (const [name, variant] of Object.entries({ ...off, ...on })) {
  Object.assign(contenders, contendersOf(name, variant));
}

/** A handle's `invoke`; `tryAcquire` and `release`. */
const kinds = ["call", "lease"] as const;

/** The processes that each variant had for itself: they differ more than the rounds of one do. */
class Runs {
  readonly #races = new Map<string, Race[]>();

  add(name: string, race: Race): void {
    this.#races.set(name, [...(this.#races.get(name) ?? []), race]);
  }

  ns(name: string, kind: string): number {
    return median(this.#of(name).map((race) => race.ns(`${name} ${kind}`)));
  }

  /** To the default pool, each by the direct call of its own process. */
  ratio(name: string, kind: string): number {
    return median(this.#toDirect(name, kind)) / median(this.#toDirect("default", kind));
  }

  /** How far a process of the default pool strays from the median of all of them. */
  stray(kind: string): number {
    const all = [...this.#toDirect("default", kind), ...this.#toDirect("again", kind)];
    return Math.max(...all.map((ratio) => Math.abs(ratio / median(all) - 1)));
  }

  #toDirect(name: string, kind: string): number[] {
    return this.#of(name).map((race) => race.ratio(`${name} ${kind}`, "direct"));
  }

  #of(name: string): readonly Race[] {
    return this.#races.get(name) ?? [];
  }
}

async function* run(pace: Pace): AsyncGenerator<Line, void, undefined> {
  const runs = new Runs();
  const measure = async (name: string): Promise<void> => {
    runs.add(name, await fresh("off", ["direct", `${name} call`, `${name} lease`], pace));
  };
  const turns = pace.name === "long" ? 3 : 1;
  for (let turn = 0; turn < turns; turn++) {
    for (const name of [...Object.keys(off), "again", "default"]) await measure(name);
  }
  for (const kind of kinds) {
    const stray = runs.stray(kind);
    const noise = Math.max(Math.abs(runs.ratio("again", kind) - 1), stray / Math.sqrt(turns));
    for (const [name, { title }] of Object.entries(off)) {
      const ratio = runs.ratio(name, kind);
      const row: Line = { name: `${kind}, ${title}`, value: runs.ns(name, kind), unit: "ns", ratio };
      if (name === "default") yield row;
      else if (name === "again") yield { ...row, note: `one process strays by ${(100 * stray).toFixed(0)} %` };
      else yield { ...row, target: atMost(1.05 + noise, ratio) };
    }
  }
  for (const name of Object.keys(on)) await measure(name);
  for (const kind of kinds) {
    for (const [name, { title }] of Object.entries(on)) {
      const ratio = runs.ratio(name, kind);
      yield { name: `${kind}, with ${title}`, value: runs.ns(name, kind), unit: "ns", ratio };
    }
  }
}

export const offSection: Section = {
  name: "off",
  title: "what features cost that are off (target: 1.05 x and the noise) and that are on; to the default pool",
  run,
  contenders,
};
