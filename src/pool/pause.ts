import type { PoolConn } from "../contract.ts";
import type { Schedule, Task } from "../runtime/timers.ts";
import type { Peer } from "./key-pool.ts";

/** Times in which a key is not dialed, after a dial of it has failed. */
export class Pauses<K, C extends PoolConn> {
  readonly #schedule: Schedule;
  readonly #over: (peer: Peer<K, C>) => void;

  constructor(schedule: Schedule, over: (peer: Peer<K, C>) => void) {
    this.#schedule = schedule;
    this.#over = over;
  }

  /** `undefined`: until I/O has had its turn, since a dial may fail at once, time after time. */
  begin(peer: Peer<K, C>, ms: number | undefined): void {
    this.end(peer);
    const demand = peer.need();
    const pause: Task = {
      due: 0,
      place: -1,
      run: () => {
        if (demand.pause !== pause) return;
        demand.pause = undefined;
        if (peer.rules.backoff !== undefined) this.#remember(peer, peer.rules.backoff.maxMs);
        this.#over(peer);
      },
    };
    demand.pause = pause;
    if (ms === undefined) setImmediate(() => pause.run());
    else this.#schedule.add(pause, ms);
  }

  /**
   * Callers that fail fast leave nobody behind who waits for the pause to end. The key stays for a while, or the first
   * of them to come back would begin with the shortest pause again, and dial a dead peer for ever at that pace.
   */
  #remember(peer: Peer<K, C>, ms: number): void {
    const demand = peer.need();
    const grudge: Task = {
      due: 0,
      place: -1,
      run: () => {
        if (demand.dials.size > 0) {
          this.#schedule.add(grudge, ms); // it may fail yet
          return;
        }
        demand.grudge = undefined;
        demand.failures = 0;
        this.#over(peer);
      },
    };
    demand.grudge = grudge;
    this.#schedule.add(grudge, ms);
  }

  /** The caller serves the key then. */
  end({ demand }: Peer<K, C>): void {
    const { pause, grudge } = demand;
    if (pause !== undefined) {
      this.#schedule.cancel(pause);
      demand.pause = undefined;
    }
    if (grudge !== undefined) {
      this.#schedule.cancel(grudge);
      demand.grudge = undefined;
    }
  }
}
