import type { PoolConn } from "../contract.ts";
import { PoolTypeError } from "../errors.ts";
import type { KeyLimits, Limits } from "../options.ts";
import type { Clock } from "../runtime/clock.ts";
import { type KeyRules, keyChanges, type Rules, withLimits } from "./config.ts";
import { Peer, type PeerOwner } from "./key-pool.ts";
import { Tally } from "./stats.ts";

/** How the pool's owner told keys apart, and what it said of each. */
export interface DirectoryOptions<K> {
  readonly hashKey?: ((key: K) => unknown) | undefined;
  readonly limits?: ((key: K) => KeyLimits | undefined) | undefined;
  readonly clock: Clock;
}

/** The keys that have something open, dialing or waiting, and the rules of each. Emptied keys leave no trace. */
export class Directory<K, C extends PoolConn> {
  rules: Rules;
  /** What the keys counted that are gone. */
  readonly gone: Tally = new Tally();
  readonly #options: DirectoryOptions<K>;
  readonly #owner: PeerOwner<K, C>;
  readonly #equip: (peer: Peer<K, C>) => void;
  readonly #peers = new Map<unknown, Peer<K, C>>();
  /** What the pool's `limits` said of keys when they appeared. */
  readonly #limits = new Map<unknown, Partial<KeyRules>>();
  /** What `configure` said of single keys; it outlives them. */
  readonly #configured = new Map<unknown, Partial<KeyRules>>();

  /** `equip` is called for each new record. */
  constructor(rules: Rules, options: DirectoryOptions<K>, owner: PeerOwner<K, C>, equip: (peer: Peer<K, C>) => void) {
    this.rules = rules;
    this.#options = options;
    this.#owner = owner;
    this.#equip = equip;
  }

  get size(): number {
    return this.#peers.size;
  }

  [Symbol.iterator](): Iterator<Peer<K, C>> {
    return this.#peers.values();
  }

  hash(key: K): unknown {
    const { hashKey } = this.#options;
    const hash = hashKey === undefined ? key : hashKey(key);
    if (hash !== undefined) return hash;
    throw new PoolTypeError(
      hashKey === undefined ? "expected a key, got undefined" : "expected `hashKey` to return a Map key, got undefined",
    );
  }

  find(hash: unknown): Peer<K, C> | undefined {
    return this.#peers.get(hash);
  }

  open(key: K, hash: unknown): Peer<K, C> {
    const known = this.#peers.get(hash);
    if (known !== undefined) return known;
    const { clock } = this.#options;
    const own = this.#options.limits?.(key);
    const limits = own === undefined ? undefined : keyChanges(own, "what `limits` returned");
    const meanwhile = this.#peers.get(hash); // `limits` may have used the pool
    if (meanwhile !== undefined) return meanwhile;
    const peer = new Peer(key, hash, this.#rulesOf(limits, hash), clock.now(), this.#owner);
    if (limits !== undefined) this.#limits.set(hash, limits);
    this.#equip(peer);
    this.#peers.set(hash, peer);
    return peer;
  }

  forget(peer: Peer<K, C>): void {
    if (this.#peers.get(peer.hash) !== peer) return;
    this.#peers.delete(peer.hash);
    this.#limits.delete(peer.hash);
    peer.alive = false;
    peer.count(this.gone);
  }

  /** New limits for all keys, or for one; checked before anything changes. */
  configure(limits: Limits, hash: unknown): void {
    if (hash === undefined) this.rules = withLimits(this.rules, limits);
    else this.#configured.set(hash, { ...this.#configured.get(hash), ...keyChanges(limits, "the limits of a key") });
    for (const peer of this) peer.rules = this.#rulesOf(this.#limits.get(peer.hash), peer.hash);
  }

  #rulesOf(limits: Partial<KeyRules> | undefined, hash: unknown): KeyRules {
    const configured = this.#configured.get(hash);
    if (limits === undefined && configured === undefined) return this.rules;
    return { ...this.rules, ...limits, ...configured };
  }
}
