/**
 * Which record belongs to which conn, so that none is held twice, and none watched twice. What the pool holds stands in
 * a plain map: a weak one of many entries makes every garbage collection pay. What it does not hold, since it was taken
 * out or closed, is remembered only as long as somebody else keeps it.
 */
export class Register<C extends object, M> {
  readonly #held = new Map<C, M>();
  readonly #others = new WeakMap<C, M>();

  find(conn: C): M | undefined {
    return this.#held.get(conn) ?? this.#others.get(conn);
  }

  hold(conn: C, record: M): void {
    this.#held.set(conn, record);
  }

  /** It may have been released. */
  takeBack(conn: C, record: M): void {
    if (this.#others.delete(conn)) this.#held.set(conn, record);
  }

  release(conn: C, record: M): void {
    this.#held.delete(conn);
    this.#others.set(conn, record);
  }

  forget(conn: C): void {
    this.#held.delete(conn);
  }
}
