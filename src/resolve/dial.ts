import { checkClock, checkFunction, checkOptions, checkString, checkTime, show } from "../argument.ts";
import type { Conn, Dial, PoolConn } from "../contract.ts";
import { PoolRangeError, PoolTypeError } from "../errors.ts";
import { systemClock } from "../runtime/clock.ts";
import type { Resolve, ServiceOptions } from "./resolve.ts";
import { Service, type ServiceSettings, type Warmable } from "./service.ts";

/** One address of a service. */
export interface ServiceAddress {
  readonly address: string;
  /** Conns of this client to it that take new streams. */
  readonly conns: number;
}

/** A dial function whose keys name services; give it to a pool. */
export interface ServiceDial<K, C extends PoolConn> extends Dial<K, C> {
  /**
   * Lets the service open conns in `pool`, the one that it dials for: one at least for each address as soon as that is known,
   * and those that take over before others leave. Without it conns are opened when calls need them. With the pool's
   * `maxKeyConns` no more addresses are used than that.
   */
  attach(pool: Warmable<K>): void;
  /** Resolves a key in use now. Rejects with what `resolve` failed with only while no address is known. */
  refresh(key: K): Promise<void>;
  /** The addresses of a key in use, in this client's order; empty for others. */
  addresses(key: K): readonly ServiceAddress[];
}

const optionNames = [
  "resolve",
  "dial",
  "refreshMs",
  "maxAddresses",
  "attemptTimeoutMs",
  "seed",
  "hashKey",
  "onResolved",
  "clock",
];

/**
 * Makes a dial function for keys that name services of several addresses: it spreads a key's conns over what
 * `resolve(key)` gives. The address with the fewest conns is dialed first, and others in turn where it cannot be reached.
 * The key is resolved again every `refreshMs`, and when one of its conns dies. Conns to addresses that are gone drain; those to
 * others move until no address has more than its share.
 *
 * ```ts
 * const dial = dialService({ resolve: hostAddresses(), dial: dialGrpc(credentials.createInsecure()) });
 * const pool = new Pool({ dial, selection: "least-loaded" });
 * dial.attach(pool);
 * pool.get("greeter.default.svc:50051");
 * ```
 *
 * The conns that the pool holds are those dialed, wrapped: `tags.address` says where they lead. A wrapped conn is not
 * identical with the dialed one, and a call costs somewhat more: some six accesses through a proxy.
 *
 * @throws PoolTypeError or PoolRangeError for wrong options, at once.
 */
export function dialService<K = string, C extends PoolConn = Conn>(options: ServiceOptions<K, C>): ServiceDial<K, C> {
  checkOptions("dialService's options", options, optionNames);
  const { dial, hashKey = (key: K): unknown => key } = options;
  const settings = settingsOf(options);
  checkFunction("hashKey", hashKey);
  const services = new Map<unknown, Service<K, C>>();
  let pool: Warmable<K> | undefined;

  const find = (key: K): Service<K, C> | undefined => services.get(hashKey(key));
  const open = (key: K): Service<K, C> => {
    const hash = hashKey(key);
    const known = services.get(hash);
    if (known !== undefined) return known;
    const made = new Service(
      key,
      settings,
      () => pool,
      () => services.delete(hash),
    );
    services.set(hash, made);
    return made;
  };

  const dialKey = (key: K, { signal }: { signal: AbortSignal }): Promise<C> => open(key).dial(signal);
  return Object.assign(dialKey, {
    ...(dial.maxStreams === undefined ? {} : { maxStreams: dial.maxStreams }),
    attach(given: Warmable<K>): void {
      if (typeof given !== "object" || given === null || typeof given.warm !== "function")
        throw new PoolTypeError(`expected a pool, got ${show(given)}`);
      pool = given;
      for (const service of services.values()) service.fill();
    },
    async refresh(key: K): Promise<void> {
      await find(key)?.refresh();
    },
    addresses: (key: K): readonly ServiceAddress[] => find(key)?.addresses ?? [],
  });
}

function settingsOf<K, C extends PoolConn>(options: ServiceOptions<K, C>): ServiceSettings<K, C> {
  const {
    resolve,
    dial,
    refreshMs = 30_000,
    maxAddresses = 20,
    attemptTimeoutMs = 5_000,
    seed = Math.random().toString(36),
    onResolved,
    clock = systemClock,
  } = options;
  checkFunction("dial", dial ?? null);
  checkTime("refreshMs", refreshMs);
  checkTime("attemptTimeoutMs", attemptTimeoutMs);
  checkString("seed", seed);
  checkFunction("onResolved", onResolved);
  checkClock(clock);
  if (!Number.isSafeInteger(maxAddresses) || maxAddresses < 0)
    throw new PoolRangeError(
      `expected \`maxAddresses\` to be an integer, 0 or more (0: all), got ${show(maxAddresses)}`,
    );
  return { resolve: resolverOf(resolve), dial, refreshMs, maxAddresses, attemptTimeoutMs, seed, onResolved, clock };
}

function resolverOf<K>(resolve: Resolve<K> | readonly string[]): Resolve<K> {
  if (typeof resolve === "function") return resolve;
  if (!Array.isArray(resolve))
    throw new PoolTypeError(`expected \`resolve\` to be a function or a list of addresses, got ${show(resolve)}`);
  const fixed = [...resolve];
  return () => fixed;
}
