import { setImmediate } from "node:timers"; // the machine's, whatever a test does to the global
import { show } from "../argument.ts";
import type { PoolConn } from "../contract.ts";
import { DialError, DialTimeoutError, isPoolError, PoolTypeError } from "../errors.ts";
import { unwatchAbort, watchAbort } from "../runtime/abort.ts";
import { type Clock, longestDelayMs } from "../runtime/clock.ts";
import { attempt, outcome } from "../runtime/guard.ts";
import { Member } from "./member.ts";
import { ranked } from "./rank.ts";
import type { AddressDial, Resolve, Resolved } from "./resolve.ts";

/** One address of a service, with this client's conns to it. */
interface Place<C extends PoolConn> {
  readonly address: string;
  readonly members: Set<Member<C>>;
  dialing: number;
  /** When it could last not be reached; a success forgets it. */
  failedAt: number;
}

/** What opens conns without being asked: `Pool` is one. */
export interface Warmable<K> {
  warm(key: K, count: number, options: { readonly timeoutMs: number }): Promise<void>;
  stats(key: K): {
    readonly open: number;
    readonly limits?: { readonly maxKeyConns?: number | undefined } | undefined;
  };
}

/** Options with their defaults filled in. */
export interface ServiceSettings<K, C extends PoolConn> {
  readonly resolve: Resolve<K>;
  readonly dial: AddressDial<K, C>;
  readonly refreshMs: number;
  readonly maxAddresses: number;
  readonly attemptTimeoutMs: number;
  readonly seed: string;
  readonly onResolved: ((key: K, resolved: Resolved) => void) | undefined;
  readonly clock: Clock;
}

/** A conn that dies has its key resolved again, but not more often than this. */
const soonestRefreshMs = 1_000;

/** How much earlier than `refreshMs` a refresh may come, so that the clients of a service do not ask all at once. */
const refreshJitter = 0.1;

/** Conns that the pool is asked for beforehand may take so long to come. */
const warmTimeoutMs = 30_000;

/** The service that one key names: its addresses, and the conns to them. */
export class Service<K, C extends PoolConn> {
  readonly #key: K;
  readonly #settings: ServiceSettings<K, C>;
  readonly #pool: () => Warmable<K> | undefined;
  readonly #ended: () => void;
  /** In this client's order. */
  #places: readonly Place<C>[] = [];
  #resolving: Promise<void> | undefined;
  #asking: AbortController | undefined;
  #timer: unknown;
  #refreshedAt = Number.NEGATIVE_INFINITY;
  /** Dials in flight, and conns that have not closed: while there are some, the service is kept. */
  #held = 0;
  /** A conn died or an address could not be reached since the last refresh began. */
  #lostSome = false;
  /** Some address has no conn, other than by the pool's own doing. */
  #lacking = false;
  /** None of its addresses has been dialed yet. */
  #isNew = true;
  /** How many conns there are to be when those that move have moved; undefined while none do. */
  #moving: number | undefined;
  #moveAgain = false;

  constructor(key: K, settings: ServiceSettings<K, C>, pool: () => Warmable<K> | undefined, ended: () => void) {
    this.#key = key;
    this.#settings = settings;
    this.#pool = pool;
    this.#ended = ended;
  }

  /** The addresses in use and how many conns each has that take new streams. */
  get addresses(): { address: string; conns: number }[] {
    return this.#places.map((place) => ({ address: place.address, conns: ready(place) }));
  }

  /** Dials the address that has the fewest conns; others in turn, where it cannot be reached. */
  async dial(signal: AbortSignal): Promise<C> {
    this.#held++;
    try {
      if (this.#places.length === 0) await unlessAborted(this.refresh(), signal);
      const conn = await this.#dialAny(signal);
      if (this.#isNew) setImmediate(() => this.fill()); // when the pool has this one, or it would dial for it again
      this.#isNew = false;
      return conn;
    } finally {
      this.#release();
    }
  }

  /** Resolves the key again. Rejects with what `resolve` failed with only while no address is known. */
  refresh(): Promise<void> {
    if (this.#resolving === undefined) {
      this.#lostSome = false;
      this.#resolving = this.#resolve().finally(() => {
        this.#resolving = undefined;
        this.#schedule();
      });
      this.#schedule(); // in case that it is never answered
    }
    return this.#resolving;
  }

  /** Opens conns where addresses have none, now that there is a pool to do so. */
  fill(): void {
    if (this.#places.length > 0) void this.#spread();
  }

  async #resolve(): Promise<void> {
    this.#refreshedAt = this.#settings.clock.now();
    // A resolver that watches keeps the one signal that it got; one that is asked again gets a new one.
    this.#asking?.abort();
    const asking = new AbortController();
    this.#asking = asking;
    const { signal } = asking;
    const update = (addresses: readonly string[]): void => {
      if (!signal.aborted) this.#update(addresses);
    };
    try {
      const resolved = (async () => this.#settings.resolve(this.#key, { signal, update }))();
      this.#update(await unlessAborted(resolved, signal));
    } catch (error) {
      if (!signal.aborted || error instanceof DialTimeoutError) this.#tell(error);
      if (this.#places.length === 0) throw error;
    }
    if (this.#places.length === 0) throw this.#unknown();
  }

  #unknown(): DialError {
    return new DialError(`no address was found for ${show(this.#key)}`);
  }

  #update(given: readonly string[]): void {
    const addresses: unknown = given; // a caller's own function gave it
    if (!Array.isArray(addresses) || !addresses.every((one) => typeof one === "string" && one !== ""))
      throw new PoolTypeError(`expected \`resolve\` to give a list of addresses, got ${show(given)}`);
    // Kept are those from before: a service does not vanish because DNS says nothing for a moment.
    if (addresses.length === 0) {
      this.#tell(this.#unknown());
      return;
    }
    const places = new Map(this.#places.map((place) => [place.address, place]));
    const before = this.#places;
    this.#places = ranked(given, this.#settings.seed)
      .slice(0, this.#most())
      .map((address) => places.get(address) ?? { address, members: new Set(), dialing: 0, failedAt: -Infinity });
    const kept = new Set(this.#places);
    const gone = before.filter((place) => !kept.has(place));
    const had = conns(before);
    for (const { members } of gone) for (const member of members) member.leave();
    this.#tell();
    if (this.#isNew) return;
    if (gone.length > 0 || kept.size > before.length) void this.#spread(had);
    else if (this.#lacking) void this.#spread();
  }

  #tell(error?: unknown): void {
    const addresses = this.#places.map(({ address }) => address);
    attempt(() => this.#settings.onResolved?.(this.#key, error === undefined ? { addresses } : { addresses, error }));
  }

  /** How many addresses are used: no more than the pool may have conns. */
  #most(): number {
    const limits = attempt(() => this.#pool()?.stats(this.#key).limits);
    const { maxKeyConns = 0 } = limits ?? {};
    return Math.min(this.#settings.maxAddresses || Infinity, maxKeyConns > 0 ? maxKeyConns : Infinity);
  }

  /** Addresses that are not known to be out of reach; all of them, where all are. */
  #reachable(): readonly Place<C>[] {
    const reachable = this.#places.filter((place) => !this.#failedLately(place));
    return reachable.length > 0 ? reachable : this.#places;
  }

  #failedLately({ failedAt }: Place<C>): boolean {
    return this.#settings.clock.now() - failedAt < (this.#settings.refreshMs || longestDelayMs);
  }

  /**
   * Moves conns so that no address has more than its share of as many as there were, `had`; where there is a pool, each has
   * at least one, and what is to leave does so when the others have come.
   */
  async #spread(had = conns(this.#places)): Promise<void> {
    if (this.#pool() === undefined) return this.#dismissSurplus(had);
    const moving = this.#moving !== undefined;
    this.#moving = Math.max(this.#moving ?? 0, had);
    this.#moveAgain = moving;
    if (moving) return;
    do {
      this.#moveAgain = false;
      await this.#move(Math.max(this.#moving, this.#reachable().length));
    } while (this.#moveAgain);
    this.#moving = undefined;
    this.#lacking = this.#places.some((place) => ready(place) === 0);
  }

  async #move(total: number): Promise<void> {
    const warm = (count: number) =>
      outcome(() => this.#held > 0 && this.#pool()?.warm(this.#key, count, { timeoutMs: warmTimeoutMs }));
    let missing = 0;
    let surplus = 0;
    for (const [place, share] of this.#shares(total)) {
      missing += Math.max(0, share - ready(place));
      surplus += Math.max(0, ready(place) - share);
    }
    const failed = await warm(conns(this.#places) + missing);
    if (failed !== undefined) return;
    this.#dismissSurplus(Math.max(total, conns(this.#places) - surplus), surplus); // calls may have opened more meanwhile
    await warm(total); // at a limit of the pool the others could not come before
  }

  #shares(total: number): Map<Place<C>, number> {
    const places = this.#reachable();
    const each = Math.floor(total / places.length);
    return new Map(places.map((place, index) => [place, each + (index < total % places.length ? 1 : 0)]));
  }

  /** Lets conns leave, `most` at most, where there are more than the place's share of `total`: the oldest ones. */
  #dismissSurplus(total: number, most: number = Number.POSITIVE_INFINITY): void {
    let left = most;
    for (const [place, share] of this.#shares(total)) {
      const members = [...place.members].filter((member) => member.takesStreams);
      const leaving = members.slice(0, Math.min(Math.max(0, members.length - share), left));
      left -= leaving.length;
      for (const member of leaving) member.leave();
    }
  }

  async #dialAny(signal: AbortSignal): Promise<C> {
    const tried = new Set<Place<C>>();
    const errors: unknown[] = [];
    for (;;) {
      signal.throwIfAborted();
      const place = this.#next(tried);
      if (place === undefined) throw this.#failure(errors);
      tried.add(place);
      place.dialing++;
      try {
        const conn = await this.#attempt(place.address, signal);
        if (this.#places.includes(place)) return this.#adopt(place, conn);
        void outcome(() => conn.close()); // its address was removed meanwhile
      } catch (error) {
        this.#failed(place, error, signal);
        errors.push(error);
      } finally {
        place.dialing--;
      }
    }
  }

  #next(tried: ReadonlySet<Place<C>>): Place<C> | undefined {
    const cost = (place: Place<C>): number => (this.#failedLately(place) ? 2 ** 32 : 0) + ready(place) + place.dialing;
    let best: Place<C> | undefined;
    for (const place of this.#places) {
      if (!tried.has(place) && (best === undefined || cost(place) < cost(best))) best = place;
    }
    return best;
  }

  #failed(place: Place<C>, error: unknown, signal: AbortSignal): void {
    // A dial that nobody wants any more says nothing about the address, one whose time was up does.
    if (signal.aborted && !(isPoolError(error) && error.code === "ERR_POOL_DIAL_TIMEOUT")) throw error;
    place.failedAt = this.#settings.clock.now();
    this.#lost();
    if (signal.aborted) throw error;
  }

  #failure(errors: readonly unknown[]): unknown {
    if (errors.length === 1) return errors[0];
    if (errors.length === 0) return new DialError(`the addresses of ${show(this.#key)} changed while it was dialed`);
    const final = errors.every((error) => attempt(() => (error as { final?: unknown }).final) === true);
    return new DialError(`none of the ${errors.length} addresses of ${show(this.#key)} could be dialed`, {
      cause: new AggregateError(errors),
      final,
    });
  }

  /** Dials one address, for as long as that is wanted and its time lasts; a conn that comes too late is closed. */
  async #attempt(address: string, signal: AbortSignal): Promise<C> {
    const { dial, attemptTimeoutMs, clock } = this.#settings;
    const attemptEnd = new AbortController();
    const watcher = { onAbort: (reason: unknown) => attemptEnd.abort(reason) };
    watchAbort(signal, watcher);
    const timeUp = (): void =>
      attemptEnd.abort(new DialTimeoutError(`${address} was not connected within ${attemptTimeoutMs} ms`));
    const timer =
      attemptTimeoutMs > 0 ? clock.setTimeout(timeUp, Math.min(attemptTimeoutMs, longestDelayMs)) : undefined;
    const dialed = (async () => dial(address, { signal: attemptEnd.signal, key: this.#key }))();
    try {
      return await unlessAborted(dialed, attemptEnd.signal);
    } catch (error) {
      if (attemptEnd.signal.aborted) dialed.then((conn) => outcome(() => conn.close())).catch(() => {});
      throw error;
    } finally {
      unwatchAbort(signal, watcher);
      if (timer !== undefined) clock.clearTimeout(timer);
    }
  }

  #adopt(place: Place<C>, inner: C): C {
    const member = new Member(inner, place.address);
    place.failedAt = -Infinity;
    place.members.add(member);
    this.#held++;
    member.watch(() => {
      if (!member.takesStreams && !member.dismissed) this.#lost();
    });
    void outcome(() => inner.closed).then(() => {
      place.members.delete(member);
      if (!member.dismissed) this.#lost();
      this.#release();
    });
    return member.conn;
  }

  /** A conn or an address was lost: perhaps there are others by now. */
  #lost(): void {
    this.#lostSome = true;
    this.#lacking = true;
    this.#schedule();
  }

  /** Arms the timer of the next refresh: after `refreshMs`, or soon when something was lost. */
  #schedule(): void {
    const { clock, refreshMs } = this.#settings;
    clock.clearTimeout(this.#timer);
    if (this.#held === 0 || refreshMs === 0) return;
    const regular = refreshMs * (1 - refreshJitter * Math.random());
    const since = clock.now() - this.#refreshedAt;
    const soon = this.#lostSome && this.#resolving === undefined;
    const delay = (soon ? Math.min(soonestRefreshMs, regular) : regular) - since;
    const tick = (): void => {
      // Of a refresh that is not answered yet; those that are answered have nobody who listens.
      this.#asking?.abort(new DialTimeoutError(`the addresses of ${show(this.#key)} were not found in time`));
      void outcome(() => this.refresh());
    };
    const timer = clock.setTimeout(tick, Math.min(Math.max(Math.ceil(delay), 0), longestDelayMs));
    if (typeof timer === "object" && timer !== null && "unref" in timer && typeof timer.unref === "function")
      timer.unref();
    this.#timer = timer;
  }

  #release(): void {
    if (--this.#held > 0) return;
    this.#settings.clock.clearTimeout(this.#timer);
    this.#asking?.abort();
    this.#ended();
  }
}

/** Conns to an address that take new streams. */
function ready<C extends PoolConn>({ members }: Place<C>): number {
  let count = 0;
  for (const member of members) if (member.takesStreams) count++;
  return count;
}

function conns<C extends PoolConn>(places: readonly Place<C>[]): number {
  return places.reduce((sum, place) => sum + ready(place), 0);
}

/** What `work` brings, or the signal's reason where that comes first. */
function unlessAborted<T>(work: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    const watcher = { onAbort: reject };
    watchAbort(signal, watcher);
    work.then(resolve, reject);
    work.then(
      () => unwatchAbort(signal, watcher),
      () => unwatchAbort(signal, watcher),
    );
  });
}
