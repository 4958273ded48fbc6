/**
 * Which record belongs to which conn, so that none is held twice, and none watched twice. What the pool holds stands in
 * a plain map: a weak one of many entries makes every garbage collection pay. What callers took out is remembered
 * only as long as they keep it.
 */
export class Register<C extends object, M> {
  readonly #held = new Map<C, M>();
  readonly #lent = new WeakMap<C, M>();

  find(conn: C): M | undefined {
    return this.#held.get(conn) ?? this.#lent.get(conn);
  }

  hold(conn: C, record: M): void {
    this.#held.set(conn, record);
    this.#lent.delete(conn);
  }

  lend(conn: C, record: M): void {
    this.#held.delete(conn);
    this.#lent.set(conn, record);
  }

  forget(conn: C): void {
    this.#held.delete(conn);
    this.#lent.delete(conn);
  }
}
