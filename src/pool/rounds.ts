/** Takes one thing after another: what a step asks for comes after it, whoever calls whom meanwhile. */
export class Rounds<T> {
  /** A step runs. */
  busy = false;
  readonly #step: (item: T) => void;
  readonly #next = new Set<T>();

  constructor(step: (item: T) => void) {
    this.#step = step;
  }

  run(item: T): void {
    if (this.busy) {
      this.#next.add(item);
      return;
    }
    this.busy = true;
    try {
      this.#step(item);
      if (this.#next.size > 0) this.#rest();
    } finally {
      this.busy = false;
    }
  }

  /** After the step that runs. Seldom: a Set that goes empty at each hand-over costs more than the hand-over. */
  add(item: T): void {
    this.#next.add(item);
  }

  #rest(): void {
    for (const next of this.#next) {
      this.#next.delete(next);
      this.#step(next);
    }
  }
}
