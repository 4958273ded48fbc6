/** A node of an intrusive list: it is in one list or in none. The list alone writes these fields. */
export interface Linked<T extends Linked<T>> {
  prev: T | undefined;
  next: T | undefined;
  list: List<T> | undefined;
}

/** A doubly linked list through its nodes: push and remove are O(1) and allocate nothing. */
export class List<T extends Linked<T>> {
  head: T | undefined;
  tail: T | undefined;
  size = 0;

  push(node: T): void {
    const tail = this.tail;
    node.list = this;
    node.prev = tail;
    if (tail === undefined) this.head = node;
    else tail.next = node;
    this.tail = node;
    this.size++;
  }

  /** Puts `node` in front of `next`, which is in this list. */
  insert(node: T, next: T): void {
    const prev = next.prev;
    node.list = this;
    node.prev = prev;
    node.next = next;
    next.prev = node;
    if (prev === undefined) this.head = node;
    else prev.next = node;
    this.size++;
  }

  /** Takes out `node`. Nothing happens where it is in another list, or in none. */
  remove(node: T): void {
    if (node.list !== this) return;
    const { prev, next } = node;
    if (prev === undefined) this.head = next;
    else prev.next = next;
    if (next === undefined) this.tail = prev;
    else next.prev = prev;
    node.prev = undefined;
    node.next = undefined;
    node.list = undefined;
    this.size--;
  }

  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (let node = this.head; node !== undefined; node = node.next) yield node;
  }
}
