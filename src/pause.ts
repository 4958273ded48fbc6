import type { PoolConn } from "./contract.ts";
import type { Peer } from "./peer.ts";
import type { Schedule, Task } from "./schedule.ts";

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
    const pause: Task = {
      due: 0,
      place: -1,
      run: () => {
        if (peer.pause !== pause) return;
        peer.pause = undefined;
        this.#over(peer);
      },
    };
    peer.pause = pause;
    if (ms === undefined) setImmediate(() => pause.run());
    else this.#schedule.add(pause, ms);
  }

  /** The caller serves the key then. */
  end(peer: Peer<K, C>): void {
    if (peer.pause !== undefined) this.#schedule.cancel(peer.pause);
    peer.pause = undefined;
  }
}
