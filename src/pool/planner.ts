import type { PoolConn } from "../contract.ts";
import type { Places } from "./capacity.ts";
import type { Dialer } from "./dialer.ts";
import type { Peer, PeerDialing } from "./key-pool.ts";
import type { Keeper } from "./min-idle.ts";

/** How many dials a key has in flight: as many as its waiters need and the limits allow, and no more. */
export class Planner<K, C extends PoolConn> {
  readonly #dialer: Dialer<K, C>;
  readonly #places: Places<K, C>;
  readonly #keeper: Keeper<K, C>;

  constructor(dialer: Dialer<K, C>, places: Places<K, C>, keeper: Keeper<K, C>) {
    this.#dialer = dialer;
    this.#places = places;
    this.#keeper = keeper;
  }

  plan(peer: Peer<K, C>): void {
    if (peer.resting) return;
    this.#places.leave(peer);
    this.#start(peer);
    this.#abandon(peer);
    this.#places.settle(peer);
  }

  /** Each dial is for the oldest waiter that those in flight will not serve, and uses its function. */
  #start(peer: Peer<K, C>): void {
    const { demand } = peer;
    if (demand.batching || demand.pause !== undefined) return;
    let last: ReturnType<typeof demand.nextToDial>;
    while (demand.wanting > demand.promised() && this.#places.mayDial(peer)) {
      last = demand.nextToDial(last);
      const dial = last?.waiter.request.dial;
      if (dial === undefined) return;
      demand.turn = undefined;
      this.#dialer.start(peer, dial, false);
    }
  }

  /** The newest go first. */
  #abandon(peer: Peer<K, C>): void {
    const { demand } = peer;
    for (let dialing = demand.dials.tail; dialing !== undefined; ) {
      if (demand.promised() <= demand.wanting) return; // none is too many
      const older: PeerDialing<K, C> | undefined = dialing.prev;
      if (demand.promised(dialing) >= demand.wanting && (!dialing.background || this.#keeper.spares(peer))) {
        this.#dialer.abandon(dialing, "no caller waits for it any more");
      }
      dialing = older;
    }
  }
}
