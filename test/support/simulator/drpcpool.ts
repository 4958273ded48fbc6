/** A conn of the model, by number. */
interface ModelConn {
  readonly id: number;
  readonly key: string;
  dead: boolean;
  blocked: boolean;
}

/**
 * What storj.io/drpc/drpcpool does, in lists and loops, with and without two of its ways: conns that have died stay in
 * its cache and count there until somebody meets them, and keys that were emptied by a take stay in its table.
 */
export class DrpcPoolModel {
  readonly #capacity: number;
  readonly #keyCapacity: number;
  readonly #keepsDead: boolean;
  readonly #conns = new Map<number, ModelConn>();
  /** Idle conns, those put first in front. */
  readonly #order: ModelConn[] = [];
  readonly #keys = new Set<string>();
  closed: number[] = [];

  constructor(capacity: number, keyCapacity: number, keepsDead: boolean) {
    this.#capacity = capacity;
    this.#keyCapacity = keyCapacity;
    this.#keepsDead = keepsDead;
  }

  conn(id: number, key: string): ModelConn {
    const known = this.#conns.get(id) ?? { id, key, dead: false, blocked: false };
    this.#conns.set(id, known);
    return known;
  }

  /**
   * Whether a put would evict the last conn of its own key for the sake of `capacity`: drpcpool then drops the key's list
   * while it puts the conn into it, and nothing finds that conn again.
   */
  orphans(key: string): boolean {
    if (this.#capacity <= 0 || this.#keyCapacity < 0) return false;
    const local = this.#order.filter((conn) => conn.key === key);
    const kept = this.#keyCapacity > 0 ? local.slice(Math.max(local.length - this.#keyCapacity + 1, 0)) : local;
    const order = this.#order.filter((conn) => conn.key !== key || kept.includes(conn));
    const evicted = order.slice(0, Math.max(order.length - this.#capacity + 1, 0));
    return kept.length > 0 && kept.every((conn) => evicted.includes(conn));
  }

  put(conn: ModelConn): void {
    if (this.#capacity < 0 || this.#keyCapacity < 0) {
      this.#close(conn);
      return;
    }
    if (conn.dead) return;
    const ofKey = (): ModelConn[] => this.#order.filter(({ key }) => key === conn.key);
    while (this.#keyCapacity > 0 && ofKey().length >= this.#keyCapacity) this.#evict(ofKey()[0]);
    while (this.#capacity > 0 && this.#order.length >= this.#capacity) this.#evict(this.#order[0]);
    this.#order.push(conn);
    this.#keys.add(conn.key);
  }

  take(key: string): ModelConn | undefined {
    for (const conn of this.#order.filter((one) => one.key === key)) {
      if (conn.blocked) continue;
      this.#remove(conn);
      if (!conn.dead) return conn;
    }
    return undefined;
  }

  die(conn: ModelConn): void {
    conn.dead = true;
    conn.blocked = false;
    if (!this.#keepsDead) this.#remove(conn, true);
  }

  /** The time of all that is idle is over. */
  expire(): void {
    const order = [...this.#order];
    for (const conn of order) this.#evict(conn);
  }

  /** Keys that are in the table though nothing of them is idle. */
  get emptiedKeys(): number {
    return [...this.#keys].filter((key) => !this.#order.some((conn) => conn.key === key)).length;
  }

  get idleKeys(): number {
    return new Set(this.#order.map(({ key }) => key)).size;
  }

  #evict(conn: ModelConn | undefined): void {
    if (conn === undefined) return;
    this.#remove(conn, true);
    this.#close(conn);
  }

  #remove(conn: ModelConn, forgets = false): void {
    const index = this.#order.indexOf(conn);
    if (index >= 0) this.#order.splice(index, 1);
    if (forgets && index >= 0 && !this.#order.some(({ key }) => key === conn.key)) this.#keys.delete(conn.key);
  }

  #close(conn: ModelConn): void {
    if (!conn.dead) this.closed.push(conn.id);
    conn.dead = true;
    conn.blocked = false;
  }
}
