import type { Linked } from "./list.ts";
import { List } from "./list.ts";

/** Something that stands in line. */
export interface Standing<T> extends Linked<T> {
  turn: number | undefined;
}

/** The keys that only `maxConns` holds back, in the order of their oldest waiters. */
export class Line<T extends Standing<T>> {
  readonly #list: List<T> = new List();

  get size(): number {
    return this.#list.size;
  }

  get first(): T | undefined {
    return this.#list.head;
  }

  has(one: T): boolean {
    return this.#list.has(one);
  }

  /** The first that is not `one`. */
  firstBut(one: T): T | undefined {
    const first = this.#list.head;
    return first === one ? first.next : first;
  }

  /** Joins at its turn, which is `turn` unless it has one already. Idempotent. */
  join(one: T, turn: number): void {
    if (this.#list.has(one)) return;
    one.turn ??= turn;
    let after = this.#list.tail;
    while (after?.turn !== undefined && after.turn > one.turn) after = after.prev;
    const before = after === undefined ? this.#list.head : after.next;
    if (before === undefined) this.#list.push(one);
    else this.#list.insert(one, before);
  }

  leave(one: T): void {
    if (this.#list.has(one)) this.#list.remove(one);
  }
}
