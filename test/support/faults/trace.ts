import type { PoolConn } from "../../../src/contract.ts";
import type { PoolOptions } from "../../../src/options.ts";
import { Pool } from "../../../src/pool/pool.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import { Heap, type Ranked } from "../../../src/runtime/heap.ts";
import { Random } from "../../../src/testing/random.ts";

interface Due extends Ranked {
  readonly act: () => void;
}

/** Time that passes from one event to the next. */
class EventClock implements Clock {
  readonly #due = new Heap<Due>();
  #now = 0;

  now(): number {
    return this.#now;
  }

  setTimeout(act: () => void, ms: number): Due {
    const due = { act, rank: this.#now + ms, index: -1 };
    this.#due.add(due);
    return due;
  }

  clearTimeout(timer: unknown): void {
    this.#due.remove(timer as Due); // what `setTimeout` returned
  }

  /** Whether anything was left to do before `end`. */
  async step(end: number): Promise<boolean> {
    const { first } = this.#due;
    if (first === undefined || first.rank > end) return false;
    this.#due.remove(first);
    this.#now = first.rank;
    first.act();
    for (let round = 0; round < 10; round++) await Promise.resolve(); // what follows at once
    return true;
  }
}

/** A peer behind a key, as its fleet runs it. */
interface Peer {
  isDown: boolean;
  maxStreams: number;
  readonly conns: Set<TraceConn>;
}

class TraceConn implements PoolConn {
  readonly key: string;
  readonly peer: Peer;
  draining = false;
  isClosed = false;
  running = 0;
  readonly closed: Promise<void>;
  #settle!: () => void;
  readonly #listeners: (() => void)[] = [];

  constructor(key: string, peer: Peer) {
    this.key = key;
    this.peer = peer;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
    peer.conns.add(this);
  }

  get maxStreams(): number {
    return this.peer.maxStreams;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  close(): void {
    this.isClosed = true;
    this.peer.conns.delete(this);
    this.#settle();
  }
}

/** What came of a trace. */
export interface Reuse {
  readonly calls: number;
  readonly dials: number;
  /** Calls that found a conn that had been dialed for an earlier one. */
  readonly reused: number;
  /** Calls that failed: their peer was down, or died under them. */
  readonly failed: number;
  /** Conns handed out that nobody should have had. */
  readonly unsafe: number;
  readonly deploys: number;
  readonly failovers: number;
  readonly keysSeen: number;
  readonly mostOpen: number;
}

/**
 * A fleet of 200 services for some minutes: 2,000 calls a second, half of them to the ten busiest. Each 30 s one service is
 * deployed (its conns say GOAWAY), each minute one fails over (its conns die, dials fail for 2 s), each 5 s one service goes for
 * ever and another comes, each 10 s one changes how many streams it allows. The seed decides who, and when each call comes.
 */
export async function replayTrace(
  seed: number,
  minutes: number,
  options: PoolOptions<string, TraceConn> = {},
): Promise<Reuse> {
  const random = new Random(seed);
  const clock = new EventClock();
  const peers = new Map<string, Peer>();
  const counts = { calls: 0, dials: 0, failed: 0, unsafe: 0, deploys: 0, failovers: 0, keysSeen: 0, mostOpen: 0 };
  const names: string[] = [];
  const appear = (at: number): void => {
    const name = `service ${counts.keysSeen++}`;
    peers.set(name, { isDown: false, maxStreams: 5 + random.under(96), conns: new Set() });
    names[at] = name;
  };
  for (let i = 0; i < 200; i++) appear(i);
  const peerOf = (name: string): Peer => {
    const peer = peers.get(name);
    if (peer === undefined) throw new Error("each name has a peer");
    return peer;
  };
  const pool = new Pool<string, TraceConn>({
    clock,
    expirationMs: 60_000,
    maxLifetimeMs: 600_000,
    capacity: 400,
    maxConns: 600,
    maxKeyConns: 20,
    dial: (name) =>
      new Promise((resolve, reject) => {
        counts.dials++;
        const arrive = (): void => {
          const peer = peerOf(name);
          if (peer.isDown) reject(new Error("connection refused"));
          else resolve(new TraceConn(name, peer));
        };
        clock.setTimeout(arrive, 1 + random.under(20));
      }),
    ...options,
  });
  const anyPeer = (): Peer => peerOf(names[random.under(names.length)] ?? "");

  const call = async (): Promise<void> => {
    counts.calls++;
    const name = names[random.chance(0.5) ? random.under(10) : random.under(names.length)] ?? "";
    const ms = 1 + random.under(random.chance(0.01) ? 2_000 : 40);
    try {
      const lease = await pool.acquire(name, { timeoutMs: 1_000 });
      const { conn } = lease;
      if (conn.key !== name || conn.isClosed || conn.draining || conn.running >= conn.maxStreams) counts.unsafe++;
      conn.running++;
      clock.setTimeout(() => {
        conn.running--;
        if (conn.isClosed) counts.failed++;
        lease.release();
      }, ms);
    } catch {
      counts.failed++;
    }
  };
  const every = (ms: number, act: () => void): void => {
    const again = (): void => {
      act();
      clock.setTimeout(again, ms * (0.5 + random.next()));
    };
    clock.setTimeout(again, ms * random.next());
  };
  every(1_000, () => {
    counts.mostOpen = Math.max(counts.mostOpen, pool.stats().open);
  });
  every(0.5, () => void call());
  every(30_000, () => {
    counts.deploys++;
    for (const conn of anyPeer().conns) {
      conn.draining = true;
      conn.changed();
    }
  });
  every(60_000, () => {
    counts.failovers++;
    const peer = anyPeer();
    peer.isDown = true;
    for (const conn of peer.conns) conn.close();
    clock.setTimeout(() => {
      peer.isDown = false;
    }, 2_000);
  });
  every(5_000, () => appear(random.under(names.length)));
  every(10_000, () => {
    const peer = anyPeer();
    peer.maxStreams = 1 + random.under(100);
    for (const conn of peer.conns) conn.changed();
  });
  const { random: machineRandom } = Math;
  const jitter = new Random(seed);
  Math.random = () => jitter.next(); // the pool's own chance: lifetimes, pauses
  try {
    while (await clock.step(minutes * 60_000));
  } finally {
    Math.random = machineRandom;
  }
  const { dialed } = pool.stats();
  await pool.close({ graceMs: 0 });
  return { ...counts, reused: counts.calls - counts.failed - dialed };
}
