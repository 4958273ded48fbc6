import { type Clock, longestDelayMs } from "./clock.ts";

/** Something due at a time. It carries its own place in the heap, so that cancelling needs no search. */
export interface Task {
  due: number;
  /** Index in the heap; -1: not scheduled. Written by the schedule only. */
  place: number;
  run(): void;
}

/** Node's timers know no shorter delay. */
const soonestMs = 1;

/** A heap of tasks behind one timer, armed for the earliest and never holding the process. */
export class Schedule {
  readonly clock: Clock;
  readonly #heap: Task[] = [];
  #timer: unknown;
  #armedFor = Number.POSITIVE_INFINITY;
  #running = false;
  #firedAt = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Runs `task` in `ms`; a task that is scheduled already moves. */
  add(task: Task, ms: number): void {
    this.#remove(task);
    task.due = this.clock.now() + ms;
    // What a task schedules is for a later turn, however coarse the clock: I/O gets its turn in between.
    if (this.#running && task.due <= this.#firedAt) task.due = this.#firedAt + soonestMs;
    task.place = this.#heap.length;
    this.#heap.push(task);
    this.#rise(task);
    this.#arm();
  }

  /** Idempotent. */
  cancel(task: Task): void {
    if (task.place < 0) return;
    this.#remove(task);
    if (this.#heap.length === 0) this.#disarm();
  }

  #arm(): void {
    const first = this.#heap[0];
    if (this.#running || first === undefined || first.due >= this.#armedFor) return;
    this.#disarm();
    this.#armedFor = first.due;
    const delay = Math.min(Math.max(Math.ceil(first.due - this.clock.now()), 0), longestDelayMs);
    const timer = this.clock.setTimeout(() => this.#fire(), delay);
    if (typeof timer === "object" && timer !== null && "unref" in timer && typeof timer.unref === "function") {
      timer.unref();
    }
    this.#timer = timer;
  }

  #disarm(): void {
    if (this.#armedFor === Number.POSITIVE_INFINITY) return;
    this.#armedFor = Number.POSITIVE_INFINITY;
    this.clock.clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #fire(): void {
    this.#armedFor = Number.POSITIVE_INFINITY;
    this.#timer = undefined;
    this.#running = true;
    const now = this.clock.now();
    this.#firedAt = now;
    try {
      for (let task = this.#heap[0]; task !== undefined && task.due <= now; task = this.#heap[0]) {
        this.#remove(task);
        task.run();
      }
    } finally {
      this.#running = false;
      this.#arm();
    }
  }

  #remove(task: Task): void {
    const { place } = task;
    if (place < 0) return;
    task.place = -1;
    const last = this.#heap.pop();
    if (last === undefined || last === task) return;
    this.#heap[place] = last;
    last.place = place;
    this.#rise(last);
    this.#sink(last);
  }

  #rise(task: Task): void {
    const heap = this.#heap;
    while (task.place > 0) {
      const parent = heap[(task.place - 1) >> 1];
      if (parent === undefined || parent.due <= task.due) return;
      this.#swap(parent, task);
    }
  }

  #sink(task: Task): void {
    const heap = this.#heap;
    for (;;) {
      const left = heap[2 * task.place + 1];
      const right = heap[2 * task.place + 2];
      const least = right !== undefined && left !== undefined && right.due < left.due ? right : left;
      if (least === undefined || least.due >= task.due) return;
      this.#swap(task, least);
    }
  }

  #swap(upper: Task, lower: Task): void {
    const { place } = upper;
    upper.place = lower.place;
    lower.place = place;
    this.#heap[upper.place] = upper;
    this.#heap[place] = lower;
  }
}
