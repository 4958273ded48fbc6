/** What a bag can hold. It carries its own place, and is in one bag at most. */
export interface Item {
  /** -1: in no bag. Written by the bag only. */
  place: number;
}

/**
 * Items in no order. A Set that calls come to and go from is copied again and again, and V8 keeps what was in its old
 * copies until it collects the old generation; this one is copied only when it holds more than ever.
 */
export class Bag<T extends Item> {
  size = 0;
  readonly #items: (T | undefined)[] = [];

  add(item: T): void {
    item.place = this.size;
    this.#items[this.size++] = item;
  }

  /** Idempotent. */
  delete(item: T): void {
    const { place } = item;
    if (place < 0) return;
    item.place = -1;
    const last = this.#items[--this.size];
    this.#items[this.size] = undefined;
    if (last === undefined || last === item) return;
    last.place = place;
    this.#items[place] = last;
  }

  /** Those that are in it now. */
  all(): T[] {
    return this.#items.filter((item) => item !== undefined);
  }
}
