import { checkBoolean, checkFraction, checkFunction, checkOptions, checkRange } from "../argument.ts";
import type { Dial } from "../contract.ts";
import type { FakeClock } from "./clock.ts";
import type { Random } from "./random.ts";
import { SimulatedConn, type Wire } from "./simulated-conn.ts";

/** A number, always the same, or one that is drawn each time, from the least to the most. */
export type Range = number | readonly [least: number, most: number];

/** What goes wrong in a simulated network, and how often: each rate is a part of 1; 0: never. A message of a stream counts as a call. */
export interface Faults {
  /** Of dials: they fail, as of a peer that refuses. Default 0.05. */
  readonly failedDials?: number | undefined;
  /** Of dials: they take `slowMs`. Default 0.05. */
  readonly slowDials?: number | undefined;
  /** Of calls: they take `slowMs`. Default 0.05. */
  readonly slowAnswers?: number | undefined;
  /** Of calls: their conn dies while they run, or soon after. Default 0.02. */
  readonly deaths?: number | undefined;
  /** Of calls: their conn becomes half-open, with no answer, no byte and no pong, until `silentMs` are over. Default 0.01. */
  readonly silences?: number | undefined;
  /** Of calls: the peer says goaway: calls that have not reached it fail as not sent, the others finish. Default 0.02. */
  readonly goaways?: number | undefined;
  /** Of calls: the peer changes how many streams it takes, within `maxStreams`. Default 0.05. */
  readonly limitChanges?: number | undefined;
  /** Of cancelled calls: their conn stays blocked for `blockedMs`. Default 0.5. */
  readonly blocks?: number | undefined;
  /** Of conns: their `close()` rejects, though they are closed; `pool.close()` then rejects, too. Default 0. */
  readonly failedCloses?: number | undefined;
  /** Milliseconds that slow dials and calls take. Default [500, 5_000]; 0: no time. */
  readonly slowMs?: Range | undefined;
  /** Milliseconds that a conn stays blocked. Default [10, 500]; 0: no time. */
  readonly blockedMs?: Range | undefined;
  /** Milliseconds after which the machine itself gives up a silent conn, or a dial to a silent peer. Default 900_000; 0: never. */
  readonly silentMs?: Range | undefined;
}

/** What a simulated network is like. `K`: the pool's keys. */
export interface NetworkOptions<K = string> {
  /** What the peer of `key` answers to a request, or to each message of a stream; may throw, or be async. Default: the request itself. */
  readonly answer?: ((request: unknown, call: { readonly key: K; readonly path: string }) => unknown) | undefined;
  /** The name of a key's peer: one peer for each name. Default: `String(key)`, of an object its JSON. */
  readonly nameOf?: ((key: K) => string) | undefined;
  /** Milliseconds that a dial takes. Default [5, 50]; 0: no time. */
  readonly dialMs?: Range | undefined;
  /** Milliseconds that a call takes, there and back. Default [1, 20]; 0: no time. */
  readonly answerMs?: Range | undefined;
  /** How many streams a conn takes at once, at least 1. Default [1, 10]. */
  readonly maxStreams?: Range | undefined;
  /** What goes wrong. Default: the defaults of each; false: nothing, until a peer goes down. */
  readonly faults?: Faults | false | undefined;
}

/** A fault that has a rate. */
export type Rate = Exclude<keyof Faults, "slowMs" | "blockedMs" | "silentMs">;

const defaultRates: Readonly<Record<Rate, number>> = {
  failedDials: 0.05,
  slowDials: 0.05,
  slowAnswers: 0.05,
  deaths: 0.02,
  silences: 0.01,
  goaways: 0.02,
  limitChanges: 0.05,
  blocks: 0.5,
  failedCloses: 0,
};
const rateNames = Object.keys(defaultRates) as Rate[]; // the names of the record above, which is all that keys() has of it
const defaultRanges = { slowMs: [500, 5_000], blockedMs: [10, 500], silentMs: 900_000 } as const;
const rangeNames = ["slowMs", "blockedMs", "silentMs"] as const;

/** The names of a network's options. */
export const networkOptionNames: readonly (keyof NetworkOptions)[] = [
  "answer",
  "nameOf",
  "dialMs",
  "answerMs",
  "maxStreams",
  "faults",
];

/** Checks the values; the names are checked by whoever takes the options. */
export function checkNetworkOptions<K>(options: NetworkOptions<K>): void {
  const { answer, nameOf, dialMs = 0, answerMs = 0, maxStreams = 1, faults = {} } = options;
  checkFunction("answer", answer);
  checkFunction("nameOf", nameOf);
  checkRange("dialMs", dialMs);
  checkRange("answerMs", answerMs);
  checkRange("maxStreams", maxStreams, 1);
  if (faults === false) return;
  checkOptions("faults", faults, [...rateNames, ...rangeNames]);
  for (const name of rateNames) checkFraction(`faults.${name}`, faults[name] ?? 0);
  for (const name of rangeNames) checkRange(`faults.${name}`, faults[name] ?? 0);
}

/**
 * Peers that answer, and a network between that does to conns what networks do, on a virtual clock and by chance out of one
 * seed. `simulate` makes one for each run.
 */
export class SimulatedNetwork<K = string> {
  readonly #clock: FakeClock;
  readonly #random: Random;
  readonly #options: NetworkOptions<K>;
  readonly #began: number;
  readonly #conns = new Set<SimulatedConn>();
  /** Peers that are down, by their names. */
  readonly #down = new Map<string, "refuses" | "silent">();
  /** What fails each dial that runs. */
  readonly #dialing = new Set<(error: Error) => void>();
  #isCalm = false;
  #isOver = false;
  #opened = 0;
  readonly #trace: string[] = [];
  /** Dials so far. */
  dials = 0;
  /** RPCs that have begun on conns so far. */
  calls = 0;

  /** @internal */
  constructor(clock: FakeClock, random: Random, options: NetworkOptions<K>) {
    this.#clock = clock;
    this.#random = random;
    this.#options = options;
    this.#began = clock.now();
  }

  /** Conns that are open now: neither closed nor dead. */
  get open(): number {
    return this.#conns.size;
  }

  /** What has happened so far, one line each, with its time in milliseconds. */
  get trace(): readonly string[] {
    return this.#trace;
  }

  /** The dial function for the pool. */
  readonly dial: Dial<K, SimulatedConn> = async (key, { signal }) => {
    const { dialMs = [5, 50] } = this.#options;
    const peer = this.#nameOf(key);
    const dial = `dial ${++this.dials} of ${peer}`;
    this.note(dial);
    try {
      const fails = this.#strikes("failedDials");
      await this.#pass(this.#draw(this.#strikes("slowDials") ? this.#range("slowMs") : dialMs), signal);
      if (this.#down.get(peer) === "silent") {
        await this.#pass(this.#draw(this.#range("silentMs")) || Number.POSITIVE_INFINITY, signal);
        throw refusal(peer, "ETIMEDOUT");
      }
      if (fails || this.#down.has(peer)) throw refusal(peer, "ECONNREFUSED");
    } catch (error) {
      this.note(`${dial} ${signal.aborted ? "is given up" : "fails"}`);
      throw error;
    }
    const conn = new SimulatedConn(++this.#opened, peer, this.#wireTo(key));
    this.#conns.add(conn);
    this.note(`${dial} brings ${conn.name}`);
    return conn;
  };

  /** No faults happen from now on. What has happened stays: conns that are silent or drain, dials and calls that are slow. */
  calm(): void {
    this.#isCalm = true;
    this.note("calm");
  }

  /** Faults happen again. */
  storm(): void {
    this.#isCalm = false;
    this.note("storm");
  }

  /**
   * The peer of `key` goes away: its conns die, and dials fail. With `silent` it goes without a word, as behind a cable that is
   * cut: its conns fall silent, and dials hang. Default: false.
   */
  down(key: K, options: { readonly silent?: boolean | undefined } = {}): void {
    checkOptions("down's options", options, ["silent"]);
    const { silent = false } = options;
    checkBoolean("silent", silent);
    const peer = this.#nameOf(key);
    this.note(`${peer} goes down`);
    this.#down.set(peer, silent ? "silent" : "refuses");
    for (const conn of this.#conns) {
      if (conn.peer !== peer) continue;
      if (silent) conn.fallSilent();
      else conn.die();
    }
  }

  /** The peer of `key` is back, for new dials. It knows nothing of earlier conns: those that fell silent stay so. */
  up(key: K): void {
    const peer = this.#nameOf(key);
    this.note(`${peer} comes up`);
    this.#down.delete(peer);
  }

  /** Writes a line of your own into `trace`. */
  note(text: string): void {
    if (!this.#isOver) this.#trace.push(`${Math.round(this.#clock.now() - this.#began)} ms: ${text}`);
  }

  /** @internal The run is over: dials fail for good, and conns die, so that nobody goes on waiting for them. */
  end(): void {
    this.#isOver = true;
    for (const fail of this.#dialing) fail(over());
    for (const conn of this.#conns) conn.die();
  }

  #nameOf(key: K): string {
    const { nameOf } = this.#options;
    if (nameOf !== undefined) return nameOf(key);
    return typeof key === "object" ? JSON.stringify(key) : String(key);
  }

  #draw(range: Range): number {
    if (typeof range === "number") return range;
    const [least, most] = range;
    return Math.min(most, least + this.#random.under(most - least + 1));
  }

  #strikes(fault: Rate): boolean {
    const { faults = {} } = this.#options;
    return faults !== false && !this.#isCalm && this.#random.chance(faults[fault] ?? defaultRates[fault]);
  }

  #range(name: keyof typeof defaultRanges): Range {
    const { faults } = this.#options;
    return (faults === false ? undefined : faults?.[name]) ?? defaultRanges[name];
  }

  /** Lets time pass in a dial. Rejects when nobody wants it any more. */
  async #pass(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#isOver) throw over();
    signal.throwIfAborted();
    let forget = () => {};
    await new Promise<void>((resolve, reject) => {
      const timer = ms === Number.POSITIVE_INFINITY ? undefined : this.#clock.setTimeout(resolve, ms);
      const abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort);
      this.#dialing.add(reject);
      forget = () => {
        this.#clock.clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        this.#dialing.delete(reject);
      };
    }).finally(() => forget());
  }

  #wireTo(key: K): Wire {
    const { answer, answerMs = [1, 20], maxStreams = [1, 10] } = this.#options;
    return {
      answerMs,
      maxStreams,
      after: (ms, action) => {
        const timer = this.#clock.setTimeout(action, ms);
        return () => this.#clock.clearTimeout(timer);
      },
      draw: (range) => this.#draw(range),
      strikes: (fault) => this.#strikes(fault),
      range: (name) => this.#range(name),
      answer: (request, path) => (answer === undefined ? request : answer(request, { key, path })),
      began: () => {
        this.calls++;
      },
      left: (conn) => this.#conns.delete(conn),
      note: (text) => this.note(text),
    };
  }
}

/** As Node's sockets say it. */
function refusal(peer: string, code: string): Error {
  return Object.assign(new Error(`connect ${code} ${peer} (simulated)`), { code });
}

/** `final`: the pool need not try again. */
function over(): Error {
  return Object.assign(new Error("the simulation is over"), { final: true });
}
