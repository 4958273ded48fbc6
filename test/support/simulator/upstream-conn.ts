import type { PoolConn } from "../../../src/contract.ts";
import { type Deferred, deferred } from "../conn.ts";

/** An exclusive conn that does what the comparison with drpcpool says, and counts what is done to it. */
export class UpstreamConn implements PoolConn {
  readonly id: number;
  readonly key: string;
  closes = 0;
  dead = false;
  /** Its close has been compared. */
  noted = false;
  readonly #closed: Deferred<void> = deferred();
  #block: Deferred<void> | undefined;

  constructor(id: number, key: string) {
    this.id = id;
    this.key = key;
  }

  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  close(): void {
    this.closes++;
    this.die();
  }

  die(): void {
    this.dead = true;
    this.#closed.resolve();
    this.unblock();
  }

  unblocked(): Promise<void> | undefined {
    return this.#block?.promise;
  }

  get blocked(): boolean {
    return this.#block !== undefined;
  }

  block(): void {
    this.#block ??= deferred();
  }

  unblock(): void {
    this.#block?.resolve();
    this.#block = undefined;
  }
}
