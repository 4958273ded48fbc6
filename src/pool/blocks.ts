import type { CloseReason, PoolConn } from "../contract.ts";
import { isThenable } from "../runtime/guard.ts";
import type { Census } from "./census.ts";
import type { Member, Peer } from "./key-pool.ts";

/** Conns that are skipped for a while: a cancelled RPC is still being flushed, or the caller is looking at them. */
export class Blocks<K, C extends PoolConn> {
  readonly #census: Census<K, C>;
  readonly #roster: { end(conn: Member<K, C>, reason: CloseReason): void };
  readonly #owner: { available(peer: Peer<K, C>): void };

  /** `roster` closes what fails; `owner` hears of what can be handed out again. */
  constructor(
    census: Census<K, C>,
    roster: { end(conn: Member<K, C>, reason: CloseReason): void },
    owner: { available(peer: Peer<K, C>): void },
  ) {
    this.#census = census;
    this.#roster = roster;
    this.#owner = owner;
  }

  /** Skipped until `until` settles; a rejection closes the conn. */
  block(conn: Member<K, C>, until: PromiseLike<unknown>): void {
    if (!conn.ready) {
      Promise.resolve(until).catch(() => {}); // it has gone while it was asked
      return;
    }
    // A conn that answers each question with a new promise must not starve the event loop.
    const again = conn.blockedAt === conn.uses;
    const settled = again ? Promise.resolve(until).then(() => new Promise((resolve) => setImmediate(resolve))) : until;
    this.hold(
      conn,
      () => settled,
      "blocked",
      () => this.#owner.available(conn.home),
    );
    conn.blockedAt = conn.uses;
  }

  /** Skipped until what `ask` returns has settled; `done` is called then. A failure closes the conn. */
  hold(conn: Member<K, C>, ask: () => unknown, reason: CloseReason, done: () => void): void {
    this.#add(conn, 1);
    const finish = (failed: boolean) => {
      if (conn.blocked) this.#add(conn, -1);
      if (failed) this.#roster.end(conn, reason);
      done();
    };
    try {
      const until = ask();
      if (isThenable(until)) {
        Promise.resolve(until).then(
          () => finish(false),
          () => finish(true),
        );
      } else finish(false);
    } catch {
      finish(true);
    }
  }

  #add(conn: Member<K, C>, by: 1 | -1): void {
    this.#census.change(conn, () => {
      conn.blocks += by;
    });
    if (conn.open) conn.home.place(conn);
  }
}
