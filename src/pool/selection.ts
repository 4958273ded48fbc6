import { type Linked, List } from "../runtime/list.ts";

/** Conns that run streams, by how many: the least loaded is found without a search, however many there are. */
export class Loads<M extends Linked<M>> {
  readonly #byStreams: List<M>[] = [];

  /** The list of the conns with so many streams. */
  of(streams: number): List<M> {
    let list = this.#byStreams[streams];
    if (list === undefined) {
      list = new List();
      this.#byStreams[streams] = list;
    }
    return list;
  }

  get least(): M | undefined {
    for (const list of this.#byStreams) if (list?.head !== undefined) return list.head;
    return undefined;
  }

  *[Symbol.iterator](): Generator<M, void, undefined> {
    for (const list of this.#byStreams) if (list !== undefined) yield* list;
  }
}

/** Half of what is known of a conn's latency is forgotten after this. */
const halfLifeMs = 10_000;

/**
 * How long a conn's calls take: a moving average that follows a rise at once and a fall slowly (peak EWMA,
 * https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/). No start time is kept per call: by
 * Little's law the streams that ran, times how long, over the calls that ended, is their mean time. As many calls
 * make one sample as ran side by side; one alone is a sample of its own.
 */
export class Latency {
  #meanMs = 0;
  #sampledAt: number;
  #streamMs = 0;
  #calls = 0;
  #most = 1;
  #changedAt: number;

  constructor(now: number) {
    this.#changedAt = now;
    this.#sampledAt = now;
  }

  /** `streams` have run since the last change. */
  changed(streams: number, now: number): void {
    this.#streamMs += streams * (now - this.#changedAt);
    this.#changedAt = now;
    if (streams > this.#most) this.#most = streams;
  }

  /** One of `streams` has ended. */
  ended(streams: number, now: number): void {
    this.changed(streams, now);
    if (++this.#calls < this.#most) return;
    const sample = this.#streamMs / this.#calls;
    const kept = this.#kept(now);
    this.#meanMs = sample > this.#meanMs ? sample : this.#meanMs * kept + sample * (1 - kept);
    this.#sampledAt = now;
    this.#streamMs = 0;
    this.#calls = 0;
    this.#most = Math.max(streams - 1, 1);
  }

  /** What one more call can expect beside `streams` others. A conn that has never answered is tried first. */
  cost(streams: number, now: number): number {
    const pending = streams === 0 ? 0 : (this.#streamMs + streams * (now - this.#changedAt)) / (this.#calls + streams);
    return Math.max(this.#meanMs * this.#kept(now), pending) * (streams + 1);
  }

  /** A conn that was slow once is tried again some time. */
  #kept(now: number): number {
    return 0.5 ** ((now - this.#sampledAt) / halfLifeMs);
  }
}
