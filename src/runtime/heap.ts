/** An item of a heap. It carries its own index, so that removing it needs no search. */
export interface Ranked {
  /** The lowest comes first. It must not change while the item is in a heap. */
  rank: number;
  /** Written by the heap alone; -1: in none. */
  index: number;
}

/** A binary heap of items that know their place: adding and removing are O(log n). */
export class Heap<T extends Ranked> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  get first(): T | undefined {
    return this.#items[0];
  }

  /** The lowest but one. */
  get second(): T | undefined {
    const [, left, right] = this.#items;
    return left !== undefined && right !== undefined && right.rank < left.rank ? right : left;
  }

  add(item: T): void {
    item.index = this.#items.length;
    this.#items.push(item);
    this.#rise(item);
  }

  /** Idempotent. */
  remove(item: T): void {
    const { index } = item;
    if (index < 0) return;
    item.index = -1;
    const last = this.#items.pop();
    if (last === undefined || last === item) return;
    this.#items[index] = last;
    last.index = index;
    this.#rise(last);
    this.#sink(last);
  }

  #rise(item: T): void {
    while (item.index > 0) {
      const parent = this.#items[(item.index - 1) >> 1];
      if (parent === undefined || parent.rank <= item.rank) return;
      this.#swap(parent, item);
    }
  }

  #sink(item: T): void {
    for (;;) {
      const left = this.#items[2 * item.index + 1];
      const right = this.#items[2 * item.index + 2];
      const least = right !== undefined && left !== undefined && right.rank < left.rank ? right : left;
      if (least === undefined || least.rank >= item.rank) return;
      this.#swap(item, least);
    }
  }

  #swap(upper: T, lower: T): void {
    const { index } = upper;
    upper.index = lower.index;
    lower.index = index;
    this.#items[upper.index] = upper;
    this.#items[index] = lower;
  }
}
