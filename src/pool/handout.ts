import type { PoolConn } from "../contract.ts";
import type { Member, Peer, PeerWaiter } from "./key-pool.ts";
import type { Queue } from "./wait-queue.ts";

export interface HandoutOwner<K, C extends PoolConn> {
  /** Counts a stream. */
  lease(conn: Member<K, C>): void;
  serve(peer: Peer<K, C>): void;
}

/** Waiters served in one go; I/O gets its turn between two. */
const batch = 1000;

/** Gives what is free to those who wait for a key, in their order. */
export class Handout<K, C extends PoolConn> {
  readonly #queue: Queue<K, C>;
  readonly #owner: HandoutOwner<K, C>;

  constructor(queue: Queue<K, C>, owner: HandoutOwner<K, C>) {
    this.#queue = queue;
    this.#owner = owner;
  }

  run(peer: Peer<K, C>): void {
    const { demand } = peer;
    if (demand.batching) return; // I/O has its turn first
    if (demand.waiters.head === undefined || !(peer.hasFree || peer.reread())) return;
    let left = batch;
    for (let waiter: PeerWaiter<K, C> | undefined = demand.waiters.head; waiter !== undefined && peer.hasFree; ) {
      const { filter } = waiter.request;
      const conn = peer.pick(filter);
      const next: PeerWaiter<K, C> | undefined = waiter.next;
      if (waiter.list === undefined) {
        waiter = demand.waiters.head; // a callback removed it
      } else if (conn !== undefined) {
        this.#queue.serve(waiter, conn); // it hears of it when the slot has been counted
        this.#owner.lease(conn);
        waiter = next;
        if (--left === 0) {
          this.#continue(peer);
          return;
        }
      } else if (filter === undefined) {
        return; // nothing is free, so nothing is free for those behind it
      } else waiter = next;
    }
  }

  #continue(peer: Peer<K, C>): void {
    const demand = peer.need();
    demand.batching = true;
    setImmediate(() => {
      demand.batching = false;
      this.#owner.serve(peer);
    });
  }
}
