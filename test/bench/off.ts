import { fresh } from "./fresh.ts";
import { NoopConn, rpc } from "./noop.ts";
import { median, type Race, shuffled } from "./race.ts";
import { atMost, type Contender, type Line, type Pace, type Section, short } from "./row.ts";
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

/** The races of each variant, each run in a process of its own. */
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

  /** How far processes of the default pool stray from their median, in the median. */
  stray(kind: string): number {
    const all = [...this.#toDirect("default", kind), ...this.#toDirect("again", kind)];
    const middle = median(all);
    return median(all.map((ratio) => Math.abs(ratio / middle - 1)));
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
  // Many short processes rather than few long ones: they differ more than their rounds do.
  const measure = async (name: string): Promise<void> => {
    runs.add(name, await fresh("off", ["direct", `${name} call`, `${name} lease`], short));
  };
  const turns = pace.name === "long" ? 7 : 1;
  const decides = turns > 1; // one process of each says little: it may stray by a fifth on a busy machine
  for (let turn = 0; turn < turns; turn++) {
    for (const name of shuffled(Object.keys(off))) await measure(name);
  }
  for (const kind of kinds) {
    const stray = runs.stray(kind);
    const noise = Math.max(Math.abs(runs.ratio("again", kind) - 1), stray);
    for (const [name, { title }] of Object.entries(off)) {
      const ratio = runs.ratio(name, kind);
      const row: Line = { name: `${kind}, ${title}`, value: runs.ns(name, kind), unit: "ns", ratio };
      if (name === "default") yield row;
      else if (name === "again")
        yield {
          ...row,
          note: `${2 * turns} processes, which stray by ${(100 * stray).toFixed(0)} %, typically`,
        };
      else if (decides) yield { ...row, target: atMost(1.05 + noise, ratio) };
      else yield { ...row, note: "too few processes to judge" };
    }
  }
  for (let turn = 0; turn < turns; turn += 3) {
    for (const name of shuffled(Object.keys(on))) await measure(name);
  }
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
